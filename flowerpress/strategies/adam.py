"""Dense Adam on the server: what the compressed methods of its family are measured against.

Kingma, Ba 2015 (arXiv:1412.6980); with local steps, FedAdam: Reddi et al. 2021 (arXiv:2003.00295).

    1. broadcast x
    2. receive g_i from the workers S that answer, dense
    3. g = mean over S of g_i                             (weights renormalised over S)
    4. m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
    5. x -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps), t the number of the step

which is PyTorch's Adam on the mean gradient; without ``bias_correction`` both denominators of t are
1, as in the warm-up of 1-bit Adam. g_i is the pseudo-gradient (x - x_K) / local_lr of K local steps
where there are some: FedAdam's, whose scale lr does not depend on. The worker half is that of
`dsgd`, in ``clients/dsgd.py``.

An absent, late or failed worker is left out of that round's mean. A new worker takes part at once.
Dense AMSGrad is in ``strategies/amsgrad.py``.
"""

from __future__ import annotations

import numpy as np

from flowerpress.protocol.rules import ratio
from flowerpress.server.ask import Ask, Steps
from flowerpress.server.options import SWITCH, fixed, number, option
from flowerpress.strategies.adaptive import BETA, Adaptive, require_finite_moment


class Adam(Adaptive):
    """Adam on the server, from dense gradients."""

    name = "adam"
    summary_line = "dense Adam on the server, the uncompressed baseline of its family"
    citation = "Kingma, Ba 2015, arXiv:1412.6980; Reddi et al. 2021, arXiv:2003.00295"
    baseline = "adam"
    dense = True
    kept = ("m", "v")

    compressor: str = fixed("identity", "none: adam is dense; see dsgd or ef21")
    client_compressors: bool = fixed(False, "false: adam is dense")
    beta2: float = option(
        0.999, BETA, "Weight of the OLD average of the squared mean gradient.", letter="beta_2"
    )
    eps: float = option(
        1e-8,
        number("[0, inf)"),
        "Added to sqrt(v); where both are 0 the step is 0.",
        letter="epsilon",
    )
    bias_correction: bool = option(
        True,
        SWITCH,
        "Divide the moments by 1 - beta^t, as Adam does and most methods that compress it do not.",
    )

    def begin(self) -> None:
        self.m, self.v = self.zeros(), self.zeros()

    def round(self, server_round: int) -> Steps:
        S, total = self.sample(server_round), self.zeros()
        S = yield Ask(S, into=total)  # 1-2
        g = total / self.mass(S)  # 3
        real, t = g.dtype.type, self.taken + 1
        with np.errstate(over="ignore", invalid="ignore"):
            self.m = real(self.beta1) * self.m + real(1 - self.beta1) * g  # 4
            self.v = real(self.beta2) * self.v + real(1 - self.beta2) * g * g
            m, v = self.m, self.v
            if self.bias_correction:
                m, v = m / real(1 - self.beta1**t), v / real(1 - self.beta2**t)
            direction = ratio(m, np.sqrt(v) + real(self.eps))
        require_finite_moment(self.v, server_round)
        self.model.move(self.rate * direction, server_round, self.rate)  # 5
