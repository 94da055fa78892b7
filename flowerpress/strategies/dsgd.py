"""Distributed SGD with compressed gradients, and dense federated averaging: server half.

    1. broadcast x
    2. receive C(g_i) from the workers S that answer
    3. x -= lr * (mean over S of C(g_i))                  (weights renormalised over S)

QSGD (Alistarh et al. 2017, arXiv:1610.02132) with ``qsgd``; FedPAQ (Reisizadeh et al. 2020,
arXiv:1909.13014) with K local steps; FedAvg (McMahan et al. 2017, arXiv:1602.05629) with the
identity: the mean of the workers' models is x minus lr times the mean of their pseudo-gradients
when ``lr`` is also the local step size. The worker half is in ``clients/dsgd.py``.

An absent, late or failed worker is left out of that round's mean. A new worker takes part at once.
"""

from __future__ import annotations

import logging
from typing import ClassVar

from flowerpress.compressors import Traits, make_compressor
from flowerpress.server.ask import Ask, Steps
from flowerpress.server.options import fixed, option
from flowerpress.server.suitable import OF_GRADIENTS
from flowerpress.server.theoretical import TheoreticalStrategy
from flowerpress.server.theory import dsgd_lr, variance_constants

log = logging.getLogger("flowerpress")


class DSGD(TheoreticalStrategy):
    """Distributed SGD with compressed gradients and no error feedback."""

    name = "dsgd"
    summary_line = "distributed SGD, compressed gradients without memory"
    citation = "Alistarh et al. 2017, arXiv:1610.02132; Reisizadeh et al. 2020, arXiv:1909.13014"

    compressor: str = option(
        "qsgd:7",
        OF_GRADIENTS,
        "Unbiased ones converge to a neighbourhood; with a biased one (topk, sign) the method may "
        "diverge however small `lr` is: use ef14 or ef21.",
        letter="Q",
    )
    plus_is_largest: ClassVar[bool] = True
    smoothness_plus: float = option(
        0.0,
        says='For lr="theory": the largest of the workers\' L_i, which this theorem needs; not '
        "their mean.",
    )

    def begin(self) -> None:
        layout = self.model.layout
        traits = make_compressor(self.compressor).bind_shapes(layout.shapes).traits(layout.dim)
        if not traits.unbiased:
            log.warning(
                "%s with %s, which is biased: it may diverge; ef14 and ef21 correct the bias",
                self.name,
                self.compressor,
            )

    def round(self, server_round: int) -> Steps:
        S, g = self.sample(server_round), self.zeros()
        S = yield Ask(S, into=g)  # 1-2
        rate = self.rate / self.mass(S)
        self.model.move(lambda part: rate * g[part], server_round, self.rate)  # 3

    def theory_lr(self, traits: Traits, n: int) -> float:
        if not traits.unbiased:
            raise ValueError(f"{self.name} has a theory for unbiased compressors only: give lr")
        asked = self.asked(n)
        return dsgd_lr(self.constants, variance_constants(traits, asked)[0], n, asked)


class FedAvg(DSGD):
    """Dense federated averaging: `DSGD` with the identity, for every worker."""

    name = "fedavg"
    summary_line = "dense federated averaging, the uncompressed baseline"
    citation = "McMahan et al. 2017, arXiv:1602.05629"

    dense = True

    compressor: str = fixed("identity", "none: fedavg is dense; see dsgd or ef21")
    client_compressors: bool = fixed(False, "false: fedavg is dense")
