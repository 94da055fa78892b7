"""What PowerSGD loses without the warm start: ``python -m benchmarks.warm_start``.

Error feedback in the plain: each round a gradient is added to what is owed, and a low-rank part of
the sum is sent. The start of the power iteration is random in each round (as `powersgd` does), or
the last round's Q (as Vogels et al. 2019 do, with a state); beside both, the best part there is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels import lowrank

Matrix = npt.NDArray[np.float64]

SHAPE = (256, 512)
# Noise of each round, as a share of the gradient that all rounds have in common.
NOISES = (0.0, 0.5, 2.0)


def gradients(rounds: int, noise: float) -> list[Matrix]:
    """Return one matrix of singular values 1, 1/2, 1/3, ... and fresh noise for each round."""
    rng = np.random.default_rng(0)
    sides = [np.linalg.qr(rng.standard_normal((size, SHAPE[0])))[0] for size in SHAPE]
    common = sides[0] / np.arange(1, SHAPE[0] + 1) @ sides[1].T
    spread = noise * np.linalg.norm(common) / np.sqrt(common.size)
    return [common + spread * rng.standard_normal(SHAPE) for _ in range(rounds)]


class Approximation:
    """The part of a matrix that is sent, by one step of power iteration."""

    def __init__(self, rank: int, *, warm: bool) -> None:
        self.rank, self.warm = rank, warm
        self.rounds = 0
        self.last: Matrix | None = None

    def __call__(self, matrix: Matrix) -> Matrix:
        start = lowrank.start((self.rounds, 0), 0, self.rank, min(SHAPE))
        if self.warm and self.last is not None:
            start = self.last
        left, right = lowrank.factors(matrix, start)
        self.rounds, self.last = self.rounds + 1, left  # the shorter side's
        return left.T @ right


def best(rank: int) -> Callable[[Matrix], Matrix]:
    """Return what finds the nearest matrix of that rank."""

    def nearest(matrix: Matrix) -> Matrix:
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        return u[:, :rank] * s[:rank] @ v[:rank]

    return nearest


def owed(inputs: list[Matrix], part: Callable[[Matrix], Matrix]) -> float:
    """Return the squared norm of what is owed over a gradient's, in the second half of rounds."""
    memory = np.zeros(SHAPE)
    rest = []
    for gradient in inputs:
        memory = gradient + memory
        memory = memory - part(memory)
        rest.append((memory**2).sum() / (gradient**2).sum())
    return float(np.mean(rest[len(inputs) // 2 :]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    print("rank noise   owed: fresh   warm   best")
    for rank in (1, 2, 4):
        for noise in NOISES:
            inputs = gradients(options.rounds, noise)
            ways = [Approximation(rank, warm=warm) for warm in (False, True)]
            row = " ".join(f"{owed(inputs, way):6.1f}" for way in (*ways, best(rank)))
            print(f"{rank:4} {noise:5.1f}        {row}")


if __name__ == "__main__":
    main()
