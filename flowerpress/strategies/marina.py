"""MARINA, VR-MARINA and PP-MARINA: server half.

Gorbunov, Burlachenko, Li, Richtarik 2021 (arXiv:2102.07845); with correlated compressors Szlendak,
Tyurin, Richtarik 2022 (arXiv:2110.03300) and Panferov et al. 2024 (arXiv:2401.05518).

    1. toss one coin for all: c = 1 with probability p (and in the first round)
    2. broadcast x
    3. c = 1: receive the gradients d_i whole;         g  = sum of w_i d_i
       c = 0: receive Q_i(d_i(x) - d_i(x_previous));   g += sum of w_i Q_i(.)
    4. x_previous = x;  x -= lr * g

d_i is the full gradient of f_i; for VR-MARINA, where c = 0, one batch's, the same at both points.
PP-MARINA asks a sample S where c = 0 and adds the mean over S, not over all: its workers keep
nothing that an absent one could be behind with. The worker half is in ``clients/marina.py``.

MARINA and VR-MARINA need every worker in every round: g would be wrong for ever after without one
worker's difference. A round that lacks an answer is void (the model stays), and the next one asks
for whole gradients; several void rounds in a row end the run and say who is missing. A worker that
lost its memory, or joins, makes the next round one of whole gradients. PP-MARINA needs everyone
where c = 1 only.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from flowerpress.compressors import Draw, Traits, make_compressor
from flowerpress.compressors.quantized.cq import CQ
from flowerpress.compressors.quantized.ranges import L2
from flowerpress.protocol import Hyper, ModelPart
from flowerpress.server.ask import Ask, FloatVector, Steps
from flowerpress.server.client import Client
from flowerpress.server.errors import RoundError
from flowerpress.server.options import Values, fixed, number, option, require, whole
from flowerpress.server.suitable import OF_GRADIENTS
from flowerpress.server.theoretical import TheoreticalStrategy
from flowerpress.server.theory import (
    best_p,
    marina_lr,
    pp_marina_lr,
    variance_constants,
    vr_marina_lr,
)

log = logging.getLogger("flowerpress")
_COIN_STREAM = 0xC0
_VARIANCES = {"alike": 1.0, "authors": 0.25}  # times the A of equal vectors
_NO_VARIANCE = "it left out: the theorem has none, marina's has"
_VOID_ROUNDS = 20  # in a row, until the run ends


class Marina(TheoreticalStrategy):
    """Whole gradients now and then, compressed differences in between."""

    name = "marina"
    summary_line = "whole gradients now and then, compressed differences in between"
    citation = "Gorbunov et al. 2021, arXiv:2102.07845; Szlendak et al. 2022, arXiv:2110.03300"
    kept = ("g", "coin", "_void", "_agreed", "_missing")

    compressor: str = option(
        "randk:0.01",
        OF_GRADIENTS,
        "Of the differences: independent (randk, qsgd), correlated (cq, permk), or contractive.",
        letter="Q",
    )
    p: float = option(
        0.0,
        number("[0, 1]"),
        "Probability of a round with whole gradients. 0: what a compressed packet takes of a dense "
        'one\'s bytes; with lr="theory" the p that sends the fewest bytes by theory.',
        letter="p",
    )
    variance: float | str = option(
        -1.0,
        Values(
            lambda v: v in _VARIANCES if isinstance(v, str) else number("[-1, inf)").held(v),
            f"a number >= -1, {' or '.join(_VARIANCES)}",
        ),
        'A of the compressors\' collection for lr="theory" (with B = 0), where more is known '
        "than they state. Negative: as stated, which is proven for any workers. For cq by name: "
        "alike, `Compressor.homogeneous`, (c / n)^2 for two levels, proven where all workers are "
        "alike; authors, for range=l2 a quarter of that, as in the code of Panferov et al., which "
        "is right for a range half as wide: not proven, for CQ's error is 2.7 times as large on "
        "average and 4 times at worst.",
        letter="A",
    )
    weights: str = option("uniform", says="What a worker counts for; (A, B) are of the plain mean.")
    fraction_train: float = fixed(1.0, "1.0: use pp-marina to sample workers")
    local_steps: int = fixed(1, "1: no local steps here")

    def check(self) -> None:
        super().check()
        if isinstance(self.variance, str):
            compressor = make_compressor(self.compressor)
            known = compressor.homogeneous(1, 1) is not None
            names = "a number: alike is of compressors that state it, correlated cq by rms, max, l2"
            if self.variance == "authors":
                known = known and isinstance(compressor, CQ) and compressor.range == L2
                names = "a number: authors is of correlated cq:range=l2"
            require(known, "variance", self.variance, names)

    def reset(self) -> None:
        super().reset()
        self.coin, self.sync, self._void = 0.0, True, 0
        self._agreed: set[int] = set()  # whose gradients g is made of
        self._missing: list[int] = []

    def begin(self) -> None:
        self.g = self.zeros()

    def round(self, server_round: int) -> Steps:
        self.sync = self._toss(server_round)  # 1
        everyone, d = self.sample(server_round, 1.0), self.zeros()
        self._expect(server_round)
        S = yield Ask(everyone, into=d)  # 2-3
        if self._all_there(S, server_round):
            self._move(d / self.population.total, server_round)  # 3-4

    def _toss(self, server_round: int) -> bool:
        """Toss the coin: whether gradients go whole, as in the first round."""
        rng = np.random.default_rng([self.seed, server_round, _COIN_STREAM])
        # In the first round p may not be known yet.
        return bool(rng.random() < self.coin) or not self._agreed

    def _expect(self, server_round: int) -> None:
        """Expect answers of all, whole gradients wherever differences would not add up."""
        if self._void >= _VOID_ROUNDS:
            raise RoundError(
                f"round {server_round}: {self.name} needs every client, and clients "
                f"{self._missing} have not answered for {self._void} rounds: restart them, or use "
                "pp-marina, dasha or ef21, which go on without"
            )
        self.sync = self.sync or self._agreed != set(self.population.clients)
        self._void += 1  # until all are found there
        self._missing = sorted(self.population.clients)
        self._agreed = set()  # likewise: if nobody answers, the round ends

    def settle(self, traits: Traits, n: int) -> None:
        """Settle p, and lr by theory."""
        share = self.asked(n) / n * self._share(n)
        if self.theory and not self.p:
            self.coin = best_p(lambda p: self.lr_for(traits, n, p), share)
        else:
            self.coin = self.p or share
        super().settle(traits, n)
        log.info("%s: p = %.3g", self.name, self.coin)

    def _share(self, n: int) -> float:
        """Return the length of a compressed packet over that of a dense one, of a normal vector."""
        layout = self.model.layout
        vector = np.random.default_rng(self.seed).standard_normal(layout.dim)
        vector = vector.astype(self.model.x.dtype)
        compressor = make_compressor(self.compressor).bind_shapes(layout.shapes)
        packet = compressor.compress(vector, Draw(self.seed, cohort=n))
        return min(1.0, packet.nbytes / make_compressor("identity").compress(vector).nbytes)

    def theory_lr(self, traits: Traits, n: int) -> float:
        return self.lr_for(traits, n, self.coin)

    def lr_for(self, traits: Traits, n: int, p: float) -> float:
        """Return the step size by theory for `n` workers and coin `p`."""
        a = self.variance
        if isinstance(a, str):
            alike = make_compressor(self.compressor).homogeneous(self.model.layout.dim, n)
            a = _VARIANCES[a] * (alike or 0.0)  # None was refused
        ab = (a, 0.0) if a >= 0 else variance_constants(traits, n)
        return marina_lr(self.constants, ab, p, unbiased=traits.unbiased)

    def _all_there(self, answered: list[Client], server_round: int) -> bool:
        """Whether all have answered; if not, the round is void."""
        self._missing = sorted(set(self.population.clients) - {client.id for client in answered})
        if self._missing:
            log.warning("round %d is void: no answer of clients %s", server_round, self._missing)
            return False
        self._void = 0
        self._agreed = set(self.population.clients)
        return True

    def _move(self, mean: FloatVector, server_round: int) -> None:
        """Update g by the mean received, and take the step."""
        self.g = mean if self.sync else self.g + mean  # 3
        g, rate = self.g, self.rate
        self.model.move(lambda part: rate * g[part], server_round, rate)  # 4

    def hyper(self) -> Hyper:
        return {**super().hyper(), "sync": self.sync}


class VRMarina(Marina):
    """MARINA on batches: differences of one batch's gradients at two models."""

    name = "vr-marina"
    summary_line = "MARINA on batches, the same batch at two models"
    citation = "Gorbunov et al. 2021, arXiv:2102.07845"

    variance: float | str = fixed(-1.0, _NO_VARIANCE)
    sync_batches: int = option(
        0,
        whole(0),
        "Batches averaged where gradients go whole; 0: all of a worker's data (finite sums).",
        letter="b",
        sent=True,
    )
    smoothness_batch: float = option(
        0.0,
        number("[0, inf)"),
        "The constant of one batch's differences, for lr=\"theory\" (the paper's L / sqrt(b')).",
    )

    def check(self) -> None:
        super().check()
        self.constants = replace(self.constants, L_batch=self.smoothness_batch)

    def lr_for(self, traits: Traits, n: int, p: float) -> float:
        if traits.omega is None or not traits.unbiased:
            raise ValueError(
                "vr-marina has a theory for unbiased compressors of known variance only: give lr"
            )
        return vr_marina_lr(self.constants, traits.omega, n, p)


class PPMarina(Marina):
    """MARINA with a sample of the workers in the rounds of differences."""

    name = "pp-marina"
    summary_line = "MARINA with sampled workers between rounds of whole gradients"
    citation = "Gorbunov et al. 2021, arXiv:2102.07845"
    rule = "pair"

    variance: float | str = fixed(-1.0, _NO_VARIANCE)
    fraction_train: float = option(
        0.5,
        number("(0, 1]"),
        "Share of the workers asked for differences; where gradients go whole, all are asked.",
        letter="r / n",
    )

    def round(self, server_round: int) -> Steps:
        # Who joined since must be in g: by whole gradients of all.
        joined = self._agreed != set(self.population.clients)
        self.sync = self._toss(server_round) or joined  # 1
        S = self.sample(server_round, 1.0 if self.sync else self.fraction_train)
        # Who joined just now, while differences are asked for, waits for the next round.
        if self.sync:
            self._expect(server_round)
        else:
            self._void, self._missing = 0, []
        d, previous = self.zeros(), self.model.x
        S = yield Ask(S, into=d, part_for=self._part_for)  # 2-3
        if not self.sync:
            self._move(d / self.mass(S), server_round)  # 3-4
        elif self._all_there(S, server_round):
            self._move(d / self.population.total, server_round)
        if self.model.x is not previous:
            self.model.replica.kept["previous"] = previous

    def lr_for(self, traits: Traits, n: int, p: float) -> float:
        if traits.omega is None or not traits.unbiased:
            raise ValueError(
                "pp-marina has a theory for unbiased compressors of known variance only: give lr"
            )
        return pp_marina_lr(self.constants, traits.omega, self.asked(n), p)

    def _part_for(self, client: Client) -> ModelPart:
        model = self.model
        knows = self.sync or client.held == model.version - 1
        return model.whole() if knows else model.snapshot()
