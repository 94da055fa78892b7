"""Random rotations that sender and receiver draw from a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowerpress.compressors.base import Decoded, Vector
from flowerpress.compressors.front import require_finite_values
from flowerpress.compressors.identity import Dense
from flowerpress.compressors.kernels import twin
from flowerpress.compressors.kernels.sums import Offsets
from flowerpress.compressors.wire import budget

BLOCK = 8192
"""Coordinates that are mixed with each other: 32 kB of float32 stay in the first cache."""
_WORK = 1.5  # of turning a vector back, in vectors


def block_size(dim: int) -> int:
    """Return the size of the blocks: at most `BLOCK`, a power of two, not above `dim`.

    >>> block_size(100_000), block_size(1000), block_size(1)
    (8192, 512, 1)
    """
    return min(BLOCK, 1 << (dim.bit_length() - 1))


def edges(dim: int) -> Offsets:
    """Return the edges of the parts of a rotated vector that were mixed alike.

    All but the last two have the block's size; the last block overlaps the one before it.

    >>> edges(10).tolist()
    [0, 2, 10]
    """
    size = block_size(dim)
    starts = np.arange(0, dim - size, size, dtype=np.int64)
    return np.concatenate([starts, np.array([dim - size, dim], dtype=np.int64)])


@dataclass(frozen=True)
class Rotation:
    """A randomised Hadamard transform in blocks, orthogonal; see ``kernels.numpy.hadamard``.

    Parameters
    ----------
    key : tuple of int
        Two 32-bit words, for the signs.
    dim : int
        The length of the vectors.
    """

    key: tuple[int, int]
    dim: int

    keeps_norm: ClassVar[bool] = True

    @property
    def size(self) -> int:
        """The number of values: as many as coordinates."""
        return self.dim

    def apply(self, x: Vector) -> Vector:
        """Return the rotated vector; numbers that overflow are infinite."""
        rotated: Vector = twin("hadamard").rotate(x, block_size(self.dim), self.key)
        return rotated

    def expand(self, values: Vector) -> Decoded:
        """Return the vector whose rotation is `values`, a new one."""
        budget.charge(_WORK * self.dim)
        with budget.released():
            budget.hold(values.nbytes)
            vector: Vector = twin("hadamard").unrotate(values, block_size(self.dim), self.key)
        require_finite_values(vector)
        return Dense(vector)
