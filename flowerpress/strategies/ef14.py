"""Error feedback (EF14), one-way and two-way: server half.

Seide et al. 2014; Stich, Cordonnier, Jaggi 2018 (arXiv:1809.07599); Karimireddy et al. 2019
(arXiv:1901.09847). Two-way: Zheng, Huang, Kwok 2019 (dist-EF-SGD, arXiv:1905.10936), Tang et al.
2019 (DoubleSqueeze, arXiv:1905.05957).

    1. broadcast x
    2. receive w_i = C(e_i + lr * g_i) from the workers S that answer
    3. q = mean over S of w_i                             (weights renormalised over S: a heuristic
                                                           under partial participation)
    4. x -= q                                             (lr is inside w_i)

With ``downlink`` Q, instead of 1 and 4:

    4. p = q + e;  broadcast delta = Q(p);  e = p - delta;  everyone: x -= delta

With ``feedback="none"``, to compare: e_i = e = 0 throughout, which is compressed SGD (signSGD with
``sign``), both ways where there is a downlink.

At constant lr, x - (mean of e_i) - e follows uncompressed SGD exactly. The worker half is in
``clients/ef14.py``.

An absent, late or failed worker keeps what it owes (a lost packet is owed whole). A worker that
loses its memory loses what it owed, nothing else. A new worker takes part at once.
"""

from __future__ import annotations

from flowerpress.server.ask import Ask, Steps
from flowerpress.server.base import CompressedStrategy
from flowerpress.server.options import option
from flowerpress.server.suitable import (
    CONTRACTION,
    CONTRACTION_OR_DENSE,
    CONTRACTIVE,
    FEEDBACK,
)


class EF14(CompressedStrategy):
    """Error feedback."""

    name = "ef14"
    summary_line = "error feedback: what a compressor drops is sent later; two-way with downlink"
    citation = "Seide et al. 2014; Stich et al. 2018, arXiv:1809.07599; arXiv:1901.09847"
    contractive = True
    owing = True

    compressor: str = option("topk:0.01", CONTRACTION, CONTRACTIVE, letter="C")
    downlink: str = option(
        "",
        CONTRACTION_OR_DENSE,
        "Compressor of the server's step, with error feedback of its own; empty: the model is sent "
        "dense.",
    )
    feedback: str = FEEDBACK

    def round(self, server_round: int) -> Steps:
        S, w = self.sample(server_round), self.zeros()
        S = yield Ask(S, into=w)  # 1-2
        mass = self.mass(S)
        self.model.move(lambda part: w[part] / mass, server_round, self.rate)  # 3-4
