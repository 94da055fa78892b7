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
from flowerpress.simulations.reproduce.arms import Options, smoothness
from flowerpress.simulations.reproduce.claims import Arm

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
        p; 0: the one with the fewest bits, as in the paper: floats of 32 bits, one for the norm,
        and a bit a coordinate.
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

    def _marina(self, by: Theory) -> Callable[[int], Experiment]:
        def make(seed: int) -> Experiment:
            s, ab = self._constants(seed), (by.variance, 0.0)
            if by.variance < 0:
                traits = make_compressor(by.spec).traits(self.dim, self.n)
                ab = variance_constants(traits, self.n)
            share = (32 + self.dim) / (32 * self.dim)
            p = by.coin or best_p(lambda p: marina_lr(s, ab, p), share)
            rounds = math.ceil(self.base / (s.L * marina_lr(s, ab, p)))
            steps = {"smoothness": s.L, "smoothness_plus": s.plus, "smoothness_pm": s.pm}
            own: dict[str, Option] = {"lr": "theory", "p": p, "variance": by.variance, **steps}
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
