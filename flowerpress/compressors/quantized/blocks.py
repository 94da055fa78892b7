"""Blocks of coordinates that share a scale, and their scales."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flowerpress.compressors.base import Vector
from flowerpress.compressors.kernels import kernels_of, twin
from flowerpress.compressors.kernels.device import on_device
from flowerpress.compressors.kernels.packing import BLOCK
from flowerpress.compressors.kernels.sums import Offsets

_FEW = 1 << 12  # edges, 32 kB


class Segment(NamedTuple):
    """Some neighbouring blocks, or parts of them.

    From coordinate `start` to `stop`, and from block `first` to `last`; `offsets` are the blocks'
    edges, counted from `start`.
    """

    start: int
    stop: int
    first: int
    last: int
    offsets: Offsets


@dataclass(frozen=True)
class Blocks:
    """The blocks of a vector: of one size, or listed.

    Parameters
    ----------
    dim : int
        Length of the vector.
    size : int, default 0
        Of each block but the last; 0 makes one block of all.
    listed : ndarray of int64, optional
        The blocks' edges, where they are not of one size.

    Examples
    --------
    >>> Blocks(10, 4).count, [segment.offsets.tolist() for segment in Blocks(10, 4).segments()]
    (3, [[0, 4, 8, 10]])
    """

    dim: int
    size: int = 0
    listed: Offsets | None = None

    @property
    def count(self) -> int:
        """The number of blocks."""
        if self.listed is not None:
            return self.listed.size - 1
        return -(-self.dim // self.size) if self.size else 1

    def segments(self) -> Iterable[Segment]:
        """Split the vector at multiples of 1024, so that there are few edges at a time.

        Edges take eight bytes each: more than the vector, where blocks are of one coordinate.
        """
        if self.listed is not None:
            return [Segment(0, self.dim, 0, self.count, self.listed)]
        if self.count <= _FEW:
            return [Segment(0, self.dim, 0, self.count, equal_blocks(self.dim, self.size))]
        return self._pieces()

    def part(self, start: int, stop: int) -> tuple[Blocks, slice]:
        """Return the blocks between two coordinates, some of them cut off, and which they are.

        >>> part, which = Blocks(10, 4).part(6, 10)
        >>> part.listed, which
        (array([0, 2, 4]), slice(1, 3, None))
        """
        if self.listed is None and not self.size:
            return Blocks(stop - start), slice(0, 1)
        if self.listed is not None:
            first = int(np.searchsorted(self.listed, start, side="right")) - 1
            last = int(np.searchsorted(self.listed, stop, side="left"))
            edges = self.listed[first : last + 1]
        else:
            first, last = start // self.size, -(-stop // self.size)
            if start % self.size == 0:
                return Blocks(stop - start, self.size), slice(first, last)
            edges = np.arange(first, last + 1, dtype=np.int64) * self.size
        return Blocks(stop - start, listed=np.clip(edges, start, stop) - start), slice(first, last)

    def _pieces(self) -> Iterator[Segment]:
        step = max(BLOCK, self.size * _FEW // BLOCK * BLOCK)
        for start in range(0, self.dim, step):
            stop = min(start + step, self.dim)
            first, last = start // self.size, -(-stop // self.size)
            offsets = np.arange(first, last + 1, dtype=np.int64) * self.size - start
            offsets[0], offsets[-1] = 0, stop - start
            yield Segment(start, stop, first, last, offsets)


def equal_blocks(dim: int, size: int) -> Offsets:
    """Return the edges of blocks of `size` coordinates; 0 makes one block of all.

    >>> equal_blocks(5, 2)
    array([0, 2, 4, 5])
    >>> equal_blocks(5, 0)
    array([0, 5])
    """
    step = size if 0 < size < dim else dim
    edges = np.arange(0, dim + step, step, dtype=np.int64)
    edges[-1] = dim
    return edges


def start_aligned(offsets: Offsets) -> bool:
    """Return whether every block starts at a multiple of 1024 coordinates."""
    return offsets.size == 2 or not (offsets[:-1] % BLOCK).any()


def mean_magnitudes(x: Vector, offsets: Offsets) -> Vector:
    """Return ``|x_b|_1 / n_b`` of each block, summed in float64, in the dtype of `x`."""
    scaled, exponents = _without_overflow(x, offsets)
    means = kernels_of(x).block_sums(scaled, offsets, False) / np.diff(offsets)
    return _restore(means, exponents, x)


def root_mean_squares(x: Vector, offsets: Offsets) -> Vector:
    """Return ``|x_b|_2 / sqrt(n_b)`` of each block, in the dtype of `x`."""
    scaled, exponents = _without_overflow(x, offsets)
    means = kernels_of(x).block_sums(scaled, offsets, True) / np.diff(offsets)
    return _restore(np.sqrt(means), exponents, x)


def norms(x: Vector, offsets: Offsets) -> Vector:
    """Return ``|x_b|_2`` of each block; infinity where it overflows the dtype of `x`."""
    scaled, exponents = _without_overflow(x, offsets)
    roots = np.sqrt(kernels_of(x).block_sums(scaled, offsets, True))
    return _restore(roots, exponents, x)


def _without_overflow(x: Vector, offsets: Offsets) -> tuple[Vector, Offsets | None]:
    """Return `x` with each block scaled by a power of two to magnitudes below one.

    Sums of squares of float32 numbers neither overflow nor vanish in float64, so float32 stays as
    it is and the exponents are None.
    """
    if x.dtype == np.float32:
        return x, None
    _, exponents = np.frexp(twin("affine", x).block_maxima(x, offsets))
    if on_device(x):
        return kernels_of(x).scaled_blocks(x, -exponents, offsets), exponents.astype(np.int64)
    # Numbers far below the block's largest may underflow here; they are lost in the sum anyway.
    with np.errstate(under="ignore"):
        scaled = np.ldexp(x, -np.repeat(exponents, np.diff(offsets)))
    return scaled, exponents.astype(np.int64)


def _restore(values: Vector, exponents: Offsets | None, x: Vector) -> Vector:
    with np.errstate(over="ignore", under="ignore"):
        if exponents is not None:
            values = np.ldexp(values, exponents)
        return values.astype(x.dtype)
