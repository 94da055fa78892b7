"""Birder: server half.

Peng et al. 2023 ("Birder: communication-efficient 1-bit adaptive optimizer for practical
distributed DNN training", NeurIPS 2023).

    1. receive w_i = R(m_i / b_i) from the workers S that answer;  R: +1 or -1 at random, unbiased
    2. q = R(mean over S of w_i)                     (weights renormalised over S)
    3. broadcast q;  everyone: x -= lr q

No error feedback: R is unbiased, since |m_i| <= b_i, and one bit a coordinate needs no scale. Every
coordinate moves by lr in every step, so noise of that size stays unless lr decays
(``decay="sqrt"``); one whose gradient is always zero walks at random. The worker half is in
``clients/birder.py``.

**Where workers' data differ this method does not find the solution.** It rests where the workers'
normalised steps cancel, not where their gradients do. A warning at the start says so.

An absent, late or failed worker keeps m_i and b_i; a lost message is gone. A worker that loses its
memory starts its averages anew and is sent the model whole. A new worker takes part at once.
"""

from __future__ import annotations

import numpy as np

from flowerpress.compressors import make_compressor
from flowerpress.compressors.identity import Identity
from flowerpress.compressors.quantized.randsign import RandSign
from flowerpress.server.ask import Ask, Steps
from flowerpress.server.options import Values, option
from flowerpress.server.suitable import normalised
from flowerpress.strategies.adaptive import Adaptive, warn_where_workers_differ


def _usable(spec: object) -> bool:
    compressor = make_compressor(spec) if isinstance(spec, str) and spec else None
    return compressor == RandSign() or isinstance(compressor, Identity)


_SIGNS = Values(
    _usable,
    "randsign, or identity: birder is made for random signs in [-1, 1]",
    normalised,
)


class Birder(Adaptive):
    """Random signs of gradient averages over their magnitudes, both ways."""

    name = "birder"
    summary_line = "random signs of normalised momenta both ways, no warm-up, no scale; IID shards"
    citation = "Peng et al. 2023, NeurIPS (Birder: 1-bit adaptive optimizer)"
    baseline = "adam"
    rule = "plain"

    compressor: str = option(
        "randsign", _SIGNS, "Of the ratios; identity: uncompressed.", letter="Q"
    )
    downlink: str = option("randsign", _SIGNS, "The same of their mean.")
    beta1: float = option(
        0.95,
        says="Weight of the OLD averages, of the gradients and of their magnitudes alike: else "
        "their ratio could leave [-1, 1].",
        letter="beta",
    )
    client_compressors: bool = option(
        False,
        says="Whether a worker may choose its own compressor. What it sends counts as a number in "
        "[-1, 1].",
    )

    def begin(self) -> None:
        warn_where_workers_differ(self.name)

    def round(self, server_round: int) -> Steps:
        S, w = self.sample(server_round), self.zeros()
        S = yield Ask(S, into=w)  # 1
        # A mean of numbers in [-1, 1] is one; a sum's roundings and hostile workers leave it.
        mean = np.clip(w / self.mass(S), -1, 1)
        self.model.move(mean, server_round, self.rate)  # 2-3
