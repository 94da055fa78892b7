"""Efficient-Adam: server half.

Chen, Shen, Liu, Luo 2023 (IEEE Transactions on Signal Processing 71, arXiv:2205.14473).

    1. receive w_i = C(a_t m_i / (sqrt(v_i) + eps) + e_i) from the workers S that answer
    2. q = mean over S of w_i + e                    (weights renormalised over S)
    3. broadcast delta = Q(q);  e = q - delta;  everyone: x -= delta

The moments m_i and v_i live on the workers, and so does a replica of x. The step size a_t is inside
the compressor, so errors are in units of x and need no rescaling when it changes: x - (mean of
e_i) - e follows the uncompressed method exactly. a_t is ``lr`` (the paper's theory has
lr / sqrt(t): ``decay="sqrt"``), the weight beta2 constant, as in practice. The worker half is in
``clients/efficient_adam.py``.

With ``feedback="none"``, the paper's comparison: e_i = e = 0 throughout, both ways.

**Where workers' data differ this method does not find the solution.** It rests where the workers'
normalised steps cancel, not where their gradients do: with two workers and identity compressors it
may not move at all. A warning at the start says so.

An absent, late or failed worker keeps its moments and what it owes (a lost packet is owed whole). A
worker that loses its memory loses its moments and what it owed, and is sent the model whole. A new
worker takes part at once, with moments from zero.
"""

from __future__ import annotations

from flowerpress.server.ask import Ask, Steps
from flowerpress.server.options import SWITCH, number, option
from flowerpress.server.suitable import (
    CONTRACTION,
    CONTRACTION_OF_STEPS,
    CONTRACTIVE,
    FEEDBACK,
)
from flowerpress.strategies.adaptive import (
    BETA,
    Adaptive,
    warn_where_workers_differ,
)


class EfficientAdam(Adaptive):
    """Adam on every worker; steps are compressed both ways, with error feedback both ways."""

    name = "efficient-adam"
    summary_line = "Adam on the workers, steps compressed with error feedback both ways; IID shards"
    citation = "Chen, Shen, Liu, Luo 2023, arXiv:2205.14473"
    baseline = "adam"
    contractive = True
    owing = True

    compressor: str = option("loggrid:3", CONTRACTION, CONTRACTIVE)
    downlink: str = option(
        "loggrid:3",
        CONTRACTION_OF_STEPS,
        "Compressor of the mean step, of the same class; identity: uncompressed.",
    )
    beta2: float = option(
        0.999,
        BETA,
        "Weight of the OLD average of the squared gradients.",
        letter="theta",
        sent=True,
    )
    eps: float = option(
        1e-8,
        number("[0, inf)"),
        "Added to sqrt(v); where both are 0 the step is 0.",
        letter="epsilon",
        sent=True,
    )
    bias_correction: bool = option(
        False,
        SWITCH,
        "Divide the moments by 1 - beta^t, t the worker's number of gradients, as Adam does and "
        "the paper does not.",
        sent=True,
    )
    feedback: str = FEEDBACK

    def begin(self) -> None:
        warn_where_workers_differ(self.name)

    def round(self, server_round: int) -> Steps:
        S, w = self.sample(server_round), self.zeros()
        S = yield Ask(S, into=w)  # 1
        mass = self.mass(S)
        self.model.move(lambda part: w[part] / mass, server_round, self.rate)  # 2-3
