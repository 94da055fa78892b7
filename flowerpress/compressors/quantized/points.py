"""Evenly spaced points over ranges: how a correlated quantizer places them, and its packet's."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowerpress.compressors.base import Vector
from flowerpress.compressors.kernels.packing import BLOCK, U8, U32
from flowerpress.compressors.kernels.philox import block_keys
from flowerpress.compressors.kernels.sums import F64
from flowerpress.compressors.quantized import blocks, ranges
from flowerpress.compressors.quantized.uniform import Points
from flowerpress.compressors.wire.packet import PacketError
from flowerpress.compressors.wire.payload import Sparse, weighted
from flowerpress.compressors.wire.tensors import add_to_tensor


def share(levels: int, papers: bool) -> float:
    """Return half the distance of two points, as a share of the range.

    Parameters
    ----------
    levels : int
    papers : bool
        Whether the points are those of Suresh et al. 2022, else both ends of the range are points.

    Examples
    --------
    >>> share(2, True), share(3, True), share(3, False)
    (1.0, 0.6666666666666666, 0.5)
    """
    if papers and levels > 2:
        return (levels + 1) / (levels * (levels - 1))
    return 1 / (levels - 1)


class Grid:
    """The points of a packet.

    Parameters
    ----------
    used : Vector, shape (buckets,)
        The range of each bucket.
    bucket : int
        Coordinates of a bucket; 0 for one.
    levels : int
    papers : bool
        Whether the points are the paper's; see `share`.
    key : tuple of int, optional
        Of the paper's random shifts; they have none for two levels.
    dim : int

    Attributes
    ----------
    reaches : Vector, shape (blocks of 1024,)
        The range of each block.
    turns : ndarray of float64, shape (blocks of 1024,)
        How far the points of each block are shifted, in (0, 1); 0 for none.
    """

    def __init__(
        self,
        used: Vector,
        bucket: int,
        levels: int,
        papers: bool,
        key: tuple[int, int] | None,
        dim: int,
    ) -> None:
        self.used, self.bucket, self.dim = used, bucket, dim
        self.levels, self.papers = levels, papers
        self.reaches = ranges.of_blocks(used, ranges.edges(dim, bucket))
        self.turns: F64 = np.zeros(self.reaches.size)
        self.shifted = key is not None
        if key is not None:
            word, _ = block_keys(key, 0, self.reaches.size)
            self.turns = (word.astype(np.float64) + 0.5) * 2.0**-32
        self.share = share(levels, papers)

    def _middles(self) -> tuple[Vector, Vector]:
        """Return the middle of the points of each block, and half the distance of two."""
        wide = self.reaches.astype(np.float64)
        shifts = (1 - 2 * self.turns) / self.levels if self.shifted else self.turns
        dtype = self.reaches.dtype
        return (wide * shifts).astype(dtype), (wide * self.share).astype(dtype)

    def ends(self) -> Vector:
        """Return the largest magnitude of a point in each block; infinity where it overflows."""
        top = self.used.dtype.type(self.levels - 1)
        with np.errstate(over="ignore", under="ignore"):
            if not self.papers:  # rebuilt as it is decoded, which may round up
                return self.used / top * top
            mids, steps = self._middles()
            ends: Vector = np.abs(mids) + steps * top
        return ends

    def decoded(self, packed: U8) -> Points:
        """Return codes as vectors of points."""
        top = self.levels - 1
        if not self.papers:
            listed = ranges.edges(self.dim, self.bucket) if self.bucket else None
            return Points(packed, self.used, top, blocks.Blocks(self.dim, listed=listed), top)
        mids, steps = self._middles()
        return Points(packed, steps, 1, blocks.Blocks(self.dim, BLOCK), top, mids)

    def rest(self, x: Any, ids: U32, packed: U8) -> Vector:
        """Return what the values at `ids`, all beyond the range, are more than their points."""
        values: Vector = x[ids]
        if not ids.size:
            return values
        if self.papers:
            vector = np.zeros(self.dim, dtype=x.dtype)
            self.decoded(packed).add_to(vector, 1.0)
            return values - vector[ids]
        return values - np.copysign(self.reaches[ids // BLOCK], values)

    def largest(self, ids: U32, values: Vector) -> Vector:
        """Return the largest magnitude that points and `values` at `ids` add up to, as an array."""
        with np.errstate(over="ignore"):
            ends = self.ends() if self.papers else self.reaches
            sums = ends[ids // BLOCK] + np.abs(values)
        largest: Vector = sums.max(keepdims=True)
        return largest


class Correlated:
    """Points, what some values are more than theirs, and the vector's norm.

    Parameters
    ----------
    points : Points
    norm : float or None
        Of the vector that was compressed; None where it is not known.
    rest : Sparse, optional
    largest : Vector, shape (1,), optional
        The largest magnitude of a sum of a point and what is more.
    """

    def __init__(
        self,
        points: Points,
        norm: float | None,
        rest: Sparse | None = None,
        largest: Vector | None = None,
    ) -> None:
        if largest is not None and not np.isfinite(largest).all():
            raise PacketError("cq: a value beyond the range overflows")
        self.points, self.norm, self.rest, self.largest = points, norm, rest, largest

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * (points + rest)``."""
        if self.largest is not None:
            weighted(self.largest, weight, out.dtype)  # refuses what overflows
        self.points.add_to(out, weight)
        if self.rest is not None:
            self.rest.add_to(out, weight)

    def add_to_tensor(self, out: Any, weight: float) -> None:
        """Do that on a tensor."""
        add_to_tensor(self.points, out, weight)
        if self.rest is not None:
            self.rest.add_to_tensor(out, weight)

    def part(self, start: int, stop: int) -> Correlated:
        """Return the numbers from `start`, a multiple of 1024, to `stop`; their norm is unknown."""
        points = self.points.part(start, stop)
        if self.rest is None:
            return Correlated(points, None)
        first, last = np.searchsorted(self.rest.ids, (start, stop))
        ids = self.rest.ids[first:last] - np.uint32(start)
        return Correlated(points, None, Sparse(ids, self.rest.values[first:last]), self.largest)
