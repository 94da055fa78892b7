"""CDAdam: server half.

Wang, Lin, Chen 2022 (AISTATS, arXiv:2111.00705).

    1. receive c_i = C(g_i(x) - h_i) from the workers S that answer;  h_i += c_i
    2. h += sum over S of w_i c_i                    (w_i of the WHOLE population: / n, not / |S|)
    3. broadcast c = Q(h - g)
    4. everyone: g += c;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
                 w = max(w, v);  x -= lr m / sqrt(w + eps)

All estimates start from zero, with compressed messages. What is compressed, both ways, is the
difference to what the receiver has (Markov compression, as in EF21), so errors vanish and no floor
is left where workers' data differ; AMSGrad runs alike on every replica. h is the weighted mean of
the workers' h_i at every moment. The worker half is in ``clients/cdadam.py``.

An absent, late or failed worker keeps h_i, and so does h; a lost packet is as if it had been
absent. A worker that missed steps is sent them, or x, g, m, v and w if these are smaller, as a new
worker is; a new worker starts from h_i = 0. If a worker's h_i is lost, h cannot be corrected
without it: all workers start over from h_i = 0, while the model, g and the moments stay.
"""

from __future__ import annotations

from flowerpress.server.ask import Ask, FloatVector, Steps
from flowerpress.server.options import SWITCH, number, option
from flowerpress.server.suitable import CONTRACTION, CONTRACTION_OF_STEPS, CONTRACTIVE
from flowerpress.strategies.adaptive import BETA, Adaptive


class CDAdam(Adaptive):
    """Compressed differences of gradients both ways; AMSGrad on every worker's replica."""

    name = "cdadam"
    summary_line = "compressed differences of gradients both ways, AMSGrad on every replica"
    citation = "Wang, Lin, Chen 2022, arXiv:2111.00705"
    baseline = "amsgrad"
    contractive = True
    kept = ("_sum",)
    rule = "amsgrad"
    shared = True

    compressor: str = option(
        "sign:block=tensor",
        CONTRACTION,
        CONTRACTIVE + " With one scale for all tensors, sign, a tensor without a gradient drifts.",
        letter="C_w",
    )
    downlink: str = option(
        "sign:block=tensor",
        CONTRACTION_OF_STEPS,
        "Compressor of the server's gradient estimate, of the same class; identity: uncompressed.",
        letter="C_s",
    )
    beta2: float = option(
        0.99,
        BETA,
        "Weight of the OLD average of the squared gradient estimates.",
        letter="beta_2",
        sent=True,
    )
    eps: float = option(1e-8, number("(0, inf)"), "Inside the square root.", letter="nu", sent=True)
    init_all: bool = option(
        True,
        SWITCH,
        "With sampling, which the paper does not have, whether all workers are asked in the "
        "round in which they are met: who was never heard counts with h_i = 0.",
    )

    def begin(self) -> None:
        self._sum = self.zeros()

    def forget(self) -> None:
        self._sum[:] = 0

    @property
    def h(self) -> FloatVector:
        """The server's estimate of the gradient: the weighted mean of the workers' h_i."""
        return self._sum / self.population.total

    def round(self, server_round: int) -> Steps:
        yield Ask(self.sample(server_round), into=self._sum)  # 1-2
        self.model.move(self.h, server_round, self.rate)  # 3-4
