"""The methods of the paper on MARINA and correlated quantization, with the theorems' steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from flowerpress.compressors import make_compressor
from flowerpress.server.theory import Smoothness, best_p, marina_lr, variance_constants
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.options import Option
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.reproduce.arms import Options, smoothness
from flowerpress.simulations.reproduce.claims import Arm, Column
from flowerpress.simulations.reproduce.figures import first_at_most

GD, PERMK, RANDK, DSGD = "gradient descent", "PermK", "RandK", "DSGD with CQ"
CQ, ALIKE, AUTHORS = "CQ, any workers", "CQ, alike workers", "CQ, authors"
IQ, IQ_AUTHORS = "independent", "independent, authors"
_SPEC = "cq:range=l2"


class Theory(NamedTuple):
    """A compressor, the constants of its collection, and MARINA's coin.

    Attributes
    ----------
    variance : float
        A, where it is another than the stated one; with B = 0. Negative: the stated one.
    coin : float
        p; 0: that of `coin`.
    """

    spec: str
    variance: float = -1.0
    coin: float = 0.0


def theory(method: str, dim: int, n: int) -> Theory:
    """Return what a method of MARINA has for n workers and d coordinates."""
    k = max(1, dim // n)
    independent = f"{_SPEC},rounding=independent"
    return {
        GD: Theory("identity", coin=1.0),
        PERMK: Theory("permk", coin=1 / n),
        RANDK: Theory(f"randk:k={k}", coin=k / dim),
        CQ: Theory(_SPEC),
        ALIKE: Theory(_SPEC, dim / n**2),
        AUTHORS: Theory(_SPEC, dim / (4 * n**2)),
        IQ: Theory(independent),
        IQ_AUTHORS: Theory(independent, dim / (4 * n)),
    }[method]


def share(dim: int) -> float:
    """Return bits of a quantized vector over those of a dense one, as in the paper.

    Floats of 32 bits, one for the norm, and a bit a coordinate.
    """
    return (32 + dim) / (32 * dim)


def coin(s: Smoothness, ab: tuple[float, float], dim: int) -> float:
    """Return MARINA's coin with the fewest bits for a unit of progress, as in the paper."""
    return best_p(lambda p: marina_lr(s, ab, p), share(dim))


def paper_bits(dim: int, name: str, target: float) -> Column:
    """Return the column of bits that one worker sent until a metric was at most a target.

    They are counted as in the paper: floats of 32 bits, no places, no headers. With so few
    coordinates headers are most of a packet.
    """

    def of(run: Outcome) -> float:
        reached = first_at_most(run, name, target)
        if reached is None:
            return math.inf
        n = run.experiment.clients
        rows = [row for row in run.ledger_rounds if 1 <= row.round <= reached.round]
        dense = sum(row.up_payload >= 8 * dim * n for row in rows)  # in float64
        kind = (run.experiment.compressor or "identity").partition(":")[0]
        k = max(1, dim // n)
        bits = {"identity": 32 * dim, "cq": 32 + dim}.get(kind, 32 * k)
        return (32 * dim * dense + bits * (len(rows) - dense)) / 1e3

    return Column("kbit, paper", of)


@dataclass(frozen=True)
class Problem:
    """A task with known constants.

    Attributes
    ----------
    base : int
        Rounds that gradient descent is given; others get more by as much as their step is smaller.
    """

    task: str
    options: Options
    dim: int
    n: int
    base: int

    def arm(self, method: str, label: str = "") -> Arm:
        """Return a method's row; `label` is put behind its name."""
        make = self._dsgd if method == DSGD else self._marina(theory(method, self.dim, self.n))
        return Arm(method + label, make)

    def cost(self, method: str, seed: int = 0) -> float:
        """Return bits for a unit of progress by theory: of a round, over the step size."""
        p, lr = self._coin(theory(method, self.dim, self.n), self._constants(seed))
        return (p + (1 - p) * share(self.dim)) / lr

    def _coin(self, by: Theory, s: Smoothness) -> tuple[float, float]:
        """Return MARINA's coin and its step size."""
        ab = (by.variance, 0.0)
        if by.variance < 0:
            ab = variance_constants(make_compressor(by.spec).traits(self.dim, self.n), self.n)
        p = by.coin or coin(s, ab, self.dim)
        return p, marina_lr(s, ab, p)

    def _marina(self, by: Theory) -> Callable[[int], Experiment]:
        def make(seed: int) -> Experiment:
            s = self._constants(seed)
            p, lr = self._coin(by, s)
            rounds = math.ceil(self.base / (s.L * lr))
            own: dict[str, Option] = {"lr": "theory", "p": p, "variance": by.variance}
            return self._experiment("marina", by.spec, rounds, seed, own)

        return make

    def _dsgd(self, seed: int) -> Experiment:
        """Compressed gradient descent, 1 / (L + A L_plus^2 / L) with the A of workers alike."""
        s = self._constants(seed)
        lr = 1 / (s.L + self.dim / self.n**2 * s.plus**2 / s.L)
        return self._experiment(
            "dsgd", _SPEC, math.ceil(2 * self.base / (s.L * lr)), seed, {"lr": lr}
        )

    def _constants(self, seed: int) -> Smoothness:
        return smoothness(self.task, tuple(self.options.items()), self.n, seed)

    def _experiment(
        self, strategy: str, spec: str, rounds: int, seed: int, own: dict[str, Option]
    ) -> Experiment:
        return Experiment(
            task=self.task,
            strategy=strategy,
            compressor=spec,
            clients=self.n,
            rounds=rounds,
            seed=seed,
            task_options=dict(self.options),
            strategy_options={"weights": "uniform", **own},
        )
