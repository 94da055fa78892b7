"""COMP-AMS and FedCAMS, and what they are without compression, AMSGrad and FedAMS: server half.

COMP-AMS: Li, Karimi, Li 2022 (ICLR, arXiv:2205.05632). FedCAMS: Wang, Lin, Chen 2022 (ICML,
arXiv:2205.02719); AMSGrad: Reddi, Kale, Kumar 2018 (arXiv:1904.09237).

    1. broadcast x
    2. receive C(d_i + e_i) from the workers S that answer
    3. d = mean over S of C(d_i + e_i)               (weights renormalised over S)
    4. m = beta1 m + (1 - beta1) d;  v = beta2 v + (1 - beta2) d^2;  w = max(w, v)
    5. COMP-AMS:  x -= lr m / sqrt(w + eps), w = 0 at first
       FedCAMS:   x -= lr m / sqrt(w), w = eps at first ("max stabilisation")

With ``feedback="none"``, the papers' comparison: e_i = 0 throughout.

d_i is COMP-AMS's gradient, FedCAMS's x - x_K after K local steps of SGD. The moments live on the
server, so the fixed point is the solution where workers' data differ too; workers keep e_i alone.
There is no bias correction (the authors' code of FedCAMS has it). The worker halves are in
``clients/amsgrad.py``.

An absent, late or failed worker keeps what it owes (a lost packet is owed whole): FedCAMS is made
for sampling. A worker that loses its memory loses what it owed, nothing else. A new worker takes
part at once.
"""

from __future__ import annotations

import numpy as np

from flowerpress.protocol.rules import amsgrad
from flowerpress.server.ask import Ask, Steps
from flowerpress.server.options import fixed, number, option
from flowerpress.server.suitable import CONTRACTION, CONTRACTIVE, FEEDBACK, OWES_NOTHING
from flowerpress.strategies.adaptive import (
    BETA,
    Adaptive,
    require_finite_moment,
)


class CompAMS(Adaptive):
    """AMSGrad on the server, from gradients compressed with error feedback."""

    name = "comp-ams"
    summary_line = "gradients compressed with error feedback, AMSGrad on the server"
    citation = "Li, Karimi, Li 2022, arXiv:2205.05632"
    baseline = "amsgrad"
    contractive = True
    owing = True
    kept = ("m", "v", "w")

    compressor: str = option("topk:0.01", CONTRACTION, CONTRACTIVE)
    beta2: float = option(
        0.999, BETA, "Weight of the OLD average of the squared mean update.", letter="beta_2"
    )
    eps: float = option(1e-8, number("(0, inf)"), "Inside the square root.", letter="epsilon")
    feedback: str = FEEDBACK

    def check(self) -> None:
        super().check()
        self._floor, self._inside = 0.0, self.eps  # of w at first, and added to it

    def begin(self) -> None:
        self.m, self.v = self.zeros(), self.zeros()
        self.w = np.full_like(self.model.x, self._floor)

    def round(self, server_round: int) -> Steps:
        S, total = self.sample(server_round), self.zeros()
        S = yield Ask(S, into=total)  # 1-2
        d = total / self.mass(S)  # 3
        with np.errstate(over="ignore", invalid="ignore"):
            betas = self.beta1, self.beta2
            direction = amsgrad(d, self.m, self.v, self.w, *betas, self._inside)  # 4
        require_finite_moment(self.w, server_round)
        self.model.move(self.rate * direction, server_round, self.rate)  # 5


class FedCAMS(CompAMS):
    """FedAMS on the server, from the sums of local steps compressed with error feedback."""

    name = "fedcams"
    summary_line = "local steps compressed with error feedback, FedAMS on the server; for sampling"
    citation = "Wang, Lin, Chen 2022, arXiv:2205.02719"
    baseline = "fedams"

    lr: float = option(0.1, says="The server's step size.", letter="eta")
    local_lr: float = option(
        0.01, number("(0, inf)"), "Step size of the local steps.", letter="eta_l"
    )
    beta2: float = option(0.99)
    eps: float = option(1e-3, says="The least w may be: it starts from there.", letter="epsilon")

    def check(self) -> None:
        super().check()
        self._floor, self._inside = self.eps, 0.0


class AMSGrad(CompAMS):
    """Dense AMSGrad on the server: COMP-AMS with the identity, for every worker."""

    name = "amsgrad"
    summary_line = "dense AMSGrad on the server, the uncompressed baseline of its family"
    citation = "Reddi, Kale, Kumar 2018, arXiv:1904.09237"
    contractive = owing = False
    dense = True

    compressor: str = fixed("identity", "none: amsgrad is dense; see dsgd or ef21")
    client_compressors: bool = fixed(False, "false: amsgrad is dense")
    feedback: str = fixed("none", OWES_NOTHING)


class FedAMS(FedCAMS):
    """Dense FedAMS on the server: FedCAMS with the identity, for every worker."""

    name = "fedams"
    summary_line = "dense local steps, FedAMS on the server: what fedcams compresses"
    contractive = owing = False
    dense = True

    compressor: str = fixed("identity", "none: fedams is dense; see dsgd or ef21")
    client_compressors: bool = fixed(False, "false: fedams is dense")
    feedback: str = fixed("none", OWES_NOTHING)
