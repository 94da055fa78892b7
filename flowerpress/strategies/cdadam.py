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

from typing import Any

from flowerpress.protocol import Hyper
from flowerpress.server.ask import Ask, FloatVector, Steps
from flowerpress.server.options import require, require_contraction, require_positive
from flowerpress.strategies.adaptive import (
    Adaptive,
    require_beta,
    require_downlink,
)


class CDAdam(Adaptive):
    """Compressed differences of gradients both ways; AMSGrad on every worker's replica.

    Parameters
    ----------
    compressor : str (default: "sign:block=tensor")
        Contractive, or unbiased with known variance (then scaled by 1/(1 + omega)). With one scale
        for all tensors, "sign", a tensor without a gradient drifts.
    downlink : str (default: "sign:block=tensor")
        Compressor of the server's gradient estimate, of the same class; "identity": uncompressed.
    beta2 : float (default: 0.99)
        Weight in [0, 1) of the OLD average of the squared gradient estimates.
    eps : float (default: 1e-8)
        The paper's nu > 0, inside the square root.
    init_all : bool (default: True)
        With sampling, which the paper does not have, whether all workers are asked in the round in
        which they are met: who was never heard counts with h_i = 0.
    **options
        As in `Adaptive`.
    """

    name = "cdadam"
    summary_line = "compressed differences of gradients both ways, AMSGrad on every replica"
    citation = "Wang, Lin, Chen 2022, arXiv:2111.00705"
    baseline = "amsgrad"
    contractive = True
    kept = ("_sum",)
    rule = "amsgrad"
    shared = True

    def __init__(
        self,
        *,
        compressor: str = "sign:block=tensor",
        downlink: str = "sign:block=tensor",
        beta2: float = 0.99,
        eps: float = 1e-8,
        init_all: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(compressor=compressor, **options)
        require(type(init_all) is bool, "init_all", init_all, "true or false")
        require_contraction(self.compressor)
        require_beta("beta2", beta2)
        require_positive("eps", eps)
        self.downlink = require_downlink(self.name, downlink)
        self.beta2, self.eps, self.init_all = beta2, eps, init_all

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

    def hyper(self) -> Hyper:
        return {**super().hyper(), "beta2": self.beta2, "eps": self.eps}
