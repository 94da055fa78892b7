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

from typing import Any

import numpy as np

from flowerpress.compressors import make_compressor
from flowerpress.compressors.identity import Identity
from flowerpress.compressors.quantized.randsign import RandSign
from flowerpress.server.ask import Ask, Steps
from flowerpress.server.options import check_options, require
from flowerpress.strategies.adaptive import Adaptive, warn_where_workers_differ


class Birder(Adaptive):
    """Random signs of gradient averages over their magnitudes, both ways.

    Parameters
    ----------
    compressor : {"randsign", "identity"} (default: "randsign")
        "identity": uncompressed.
    downlink : {"randsign", "identity"} (default: "randsign")
        The same of the mean.
    beta1 : float (default: 0.95)
        The paper's beta, the weight in [0, 1) of the OLD averages, of the gradients and of their
        magnitudes alike: else their ratio could leave [-1, 1].
    client_compressors : bool (default: False)
        Whether a worker may choose its own compressor. What it sends counts as a number in
        [-1, 1].
    **options
        As in `Adaptive`.
    """

    name = "birder"
    summary_line = "random signs of normalised momenta both ways, no warm-up, no scale; IID shards"
    citation = "Peng et al. 2023, NeurIPS (Birder: 1-bit adaptive optimizer)"
    baseline = "adam"
    rule = "plain"

    def __init__(
        self,
        *,
        compressor: str = "randsign",
        downlink: str = "randsign",
        beta1: float = 0.95,
        client_compressors: bool = False,
        **options: Any,
    ) -> None:
        own = client_compressors
        super().__init__(compressor=compressor, beta1=beta1, client_compressors=own, **options)
        check_options({"downlink": downlink})
        self.compressor = _require_signs("compressor", compressor)
        self.downlink = _require_signs("downlink", downlink)

    def begin(self) -> None:
        warn_where_workers_differ(self.name)

    def round(self, server_round: int) -> Steps:
        S, w = self.sample(server_round), self.zeros()
        S = yield Ask(S, into=w)  # 1
        # A mean of numbers in [-1, 1] is one; a sum's roundings and hostile workers leave it.
        mean = np.clip(w / self.mass(S), -1, 1)
        self.model.move(mean, server_round, self.rate)  # 2-3


def _require_signs(name: str, spec: str) -> str:
    """Return `spec`, normalised; `ValueError` unless birder can use it."""
    compressor = make_compressor(spec) if spec else None
    held = compressor == RandSign() or isinstance(compressor, Identity)
    require(held, name, spec, "randsign, or identity: birder is made for random signs in [-1, 1]")
    return make_compressor(spec).spec
