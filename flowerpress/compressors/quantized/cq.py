"""Correlated quantization: the senders of a cohort round against each other."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector, refuse_nonfinite
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import real, require_one_of, require_whole, whole
from flowerpress.compressors.kernels import kernels, twin
from flowerpress.compressors.kernels.numpy.cq import Keys, fixed_digits
from flowerpress.compressors.kernels.packing import BLOCK, packed_bytes
from flowerpress.compressors.kernels.philox import block_keys
from flowerpress.compressors.kernels.sums import F64
from flowerpress.compressors.quantized import blocks
from flowerpress.compressors.quantized.uniform import Points
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, require_finite

MAX_LEVELS = 256
MAX_COHORT = 1 << 16
_OWN, _SHIFT, _ORDER, _GRID = 20, 21, 22, 23  # purposes of the keys
_GRID_WORK = 120_000  # steps of drawing a grid, however few its blocks

# Levels; the range: the vector's own norm (0) or shared (1), plus 2 for independent rounding.
_HEAD = struct.Struct("<HH")
ROUNDINGS = ("correlated", "independent")
_KEY = struct.Struct("<II")


@dataclass(frozen=True)
class CQ(Compressor):
    """Round to one of a few points over ``[-r, r]``, so that the errors of a cohort cancel.

    Each packet alone is unbiased; the cohort's random numbers are spread evenly over [0, 1), so
    that the mean over senders with like vectors is far better than with independent ones, and never
    worse (Suresh, Sun, Ro and Yu, "Correlated quantization for distributed mean estimation and
    optimization", ICML 2022, Algorithms 1 and 2, one for each coordinate). r is the norm of the
    vector as in Panferov et al., "Correlated quantization for faster nonconvex distributed
    optimization", UAI 2025; with it ``omega = d - 1`` for two levels, and d senders of any vectors
    have ``A = (d - 1) / n, B = 0``. See :meth:`homogeneous` for equal vectors.

    The draw's `cohort` and `rank` must be those of the round. A decoder needs neither, and what
    arrives is unbiased whoever is missing.

    Parameters
    ----------
    levels : int, default 2
        The k of the paper, 2 to 256: two for one bit. From three on, the points are
        ``(k + 1) / (k (k - 1))`` of the range apart, and shifted at random, alike for all senders
        and anew for every 1024 coordinates. Three are hardly better than two.
    range : float, optional
        The r that all senders use; nothing in the vector may exceed it. Best where a bound is
        known, but then the error does not shrink with the vector: there is no omega, and zeros
        are rounded like any other number. By default each uses its own norm.
    rounding : {"correlated", "independent"}, default "correlated"
        Independent is what correlation is measured against: the same points and the same law of
        each packet, but every sender for itself.

    Raises
    ------
    ValueError
        If a parameter is out of range; in `compress`, if a number lies outside the range, the norm
        overflows the dtype, or the cohort has more than 65536 senders.

    Examples
    --------
    >>> from flowerpress.compressors import Draw, add_to
    >>> total, x = np.zeros(1), np.array([0.6])
    >>> for rank in range(5):
    ...     add_to(CQ(range=1.0).compress(x, Draw(rank=rank, cohort=5)), total, 1 / 5)
    >>> total
    array([0.6])
    """

    levels: int = 2
    range: float | None = None
    rounding: str = "correlated"

    name: ClassVar[str] = "cq"
    codec: ClassVar[int] = 15
    finds_nonfinite: ClassVar[bool] = True
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {
        "levels": whole,
        "range": real,
        "rounding": str,
    }

    @property
    def correlates(self) -> bool:
        """Whether senders round against each other."""
        return self.rounding == "correlated"

    def __post_init__(self) -> None:
        require_whole("levels", self.levels, 2, MAX_LEVELS)
        if self.range is not None and not 0 < self.range < math.inf:
            raise ValueError(f"range must be a positive number, got {self.range!r}")
        require_one_of("rounding", self.rounding, ROUNDINGS)

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the levels, the grid's key, the range, and the codes."""
        if draw.cohort > MAX_COHORT:
            raise ValueError(f"cq: a cohort of {draw.cohort} is above {MAX_COHORT} senders")
        key = draw.shared_key(_GRID) if self.levels > 2 else None
        reach = self._reach(x)
        mids, step = _grid(reach, self.levels, key, x.size)
        top = self.levels - 1
        with np.errstate(over="ignore"):
            require_finite(np.abs(mids) + step * x.dtype.type(top), "range")
        kind = (self.range is not None) + 2 * ROUNDINGS.index(self.rounding)
        head = _HEAD.pack(self.levels, kind)
        if key:
            head += _KEY.pack(*key)
        return [head, reach, self._round(x, reach[0], key, draw)]

    def _reach(self, x: Vector) -> Vector:
        """Return the range as an array of one number."""
        if self.range is None:
            reach = blocks.norms(x, blocks.equal_blocks(x.size, 0))
            if not np.isfinite(reach[0]):
                refuse_nonfinite(x)
            require_finite(reach, "norm")
            return reach
        refuse_nonfinite(x)
        with np.errstate(over="ignore"):
            reach = np.array([self.range]).astype(x.dtype)
        require_finite(reach, "range")
        outside = np.flatnonzero(np.abs(x) > reach[0])
        if outside.size:
            position = int(outside[0])
            raise ValueError(
                f"compress: x[{position}] is {x[position]}, outside of the range {reach[0]}"
            )
        return reach

    def _round(self, x: Vector, reach: Any, key: tuple[int, int] | None, draw: Draw) -> Buffer:
        top, width = self.levels - 1, (self.levels - 1).bit_length()
        if not reach > 0:
            return np.zeros(packed_bytes(x.size, width), dtype=np.uint8)
        unit = 2.0 ** fixed_digits(top) / _step(self.levels)
        offsets = unit * (0.5 + _turns(key, x.size) / self.levels)
        keys = Keys(draw.key(_OWN), draw.shared_key(_SHIFT), draw.shared_key(_ORDER))
        alone = self.rounding == "independent"
        with np.errstate(under="ignore"):
            packed: Buffer = twin("cq").correlated_pack(
                x,
                reach,
                x.dtype.type(unit / 2),
                offsets.astype(np.int64),
                top,
                width,
                1 if alone else draw.cohort,
                0 if alone else draw.rank,
                keys,
            )
        return packed

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the range and every code."""
        reader = Reader(packet, cls.name)
        levels, _ = _read_head(reader)
        key = reader.unpack(_KEY) if levels > 2 else None
        budget.charge(_GRID_WORK if key else 0)
        reach = reader.scales(1, packet.dtype, "range")
        top, width = levels - 1, (levels - 1).bit_length()
        packed = reader.codes(packet.dim, width)
        reader.done()
        if top != (1 << width) - 1:
            position = kernels().code_above(packed, packet.dim, width, top)
            if position >= 0:
                raise reader.error(f"code {position} is above {top}")
        mids, step = _grid(reach, levels, key, packet.dim)
        steps = np.full_like(mids, step)
        return Points(packed, steps, 1, blocks.Blocks(packet.dim, BLOCK), top, mids)

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the points' codes."""
        levels, _ = _read_head(Reader(packet, cls.name))
        return packet.dim, (levels - 1).bit_length()

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``cq`` with its levels, and the range if it was shared."""
        reader = Reader(packet, cls.name)
        levels, kind = _read_head(reader)
        rounding = ROUNDINGS[kind >> 1]
        if not kind & 1:
            return cls(levels, rounding=rounding).spec
        if levels > 2:
            reader.unpack(_KEY)
        reach = float(reader.scales(1, packet.dtype, "range")[0])
        if not reach > 0:
            raise reader.error("the shared range is zero")
        return cls(levels, reach, rounding).spec

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants, which hold for any vectors of a cohort; see `homogeneous`.

        Given the order, the numbers U of a cohort are negatively associated, and each code is a
        monotone function of one of them; so no two errors have a positive covariance, and A is at
        most omega / n.
        """
        width = (self.levels - 1).bit_length()
        key = 8 * _KEY.size if self.levels > 2 else 0
        bits = 8.0 * (_HEAD.size + packed_bytes(dim, width)) + key + 32
        if self.range is not None:
            return Traits(True, None, None, None, bits)
        omega = dim - 1.0
        if self.levels > 2:
            # A random shift by `share` of a step keeps the mean variance from being a quarter.
            share = (self.levels - 1) / (self.levels + 1)
            omega = dim * _step(self.levels) ** 2 * (1 - share**2 / 3)
        alpha = 1.0 if omega == 0 else None
        return Traits(True, omega, alpha, (omega / cohort, 0.0), bits)

    def homogeneous(self, dim: int, cohort: int) -> float:
        """Return A for equal vectors: ``E |mean C_i(x) - x|^2 <= A |x|^2``.

        A is d / n^2 for two levels. It is no bound for unlike vectors: a step size that is derived
        from it is not safe in general.

        Examples
        --------
        >>> CQ().homogeneous(100, 10), CQ().traits(100, 10).ab
        (1.0, (9.9, 0.0))
        """
        if self.range is not None:
            raise ValueError("cq with a shared range has no constants relative to the vector")
        if self.rounding == "independent":
            return (self.traits(dim).omega or 0.0) / cohort
        return dim * _step(self.levels) ** 2 / cohort**2


def _step(levels: int) -> float:
    """Return the distance of two points, as a share of the range."""
    return 1.0 if levels == 2 else (levels + 1) / (levels * (levels - 1))


def _turns(key: tuple[int, int] | None, dim: int) -> F64:
    """Return how far the points of each block of 1024 are shifted, in (0, 1); 0 for two levels."""
    count = -(-dim // BLOCK)
    if key is None:
        return np.zeros(count)
    word, _ = block_keys(key, 0, count)
    return (word.astype(np.float64) + 0.5) * 2.0**-32


def _grid(
    reach: Vector, levels: int, key: tuple[int, int] | None, dim: int
) -> tuple[Vector, np.floating[Any]]:
    """Return the middle of the points of each block, and half the distance of two points."""
    shifts = (1 - 2 * _turns(key, dim)) / levels if key else np.zeros(-(-dim // BLOCK))
    wide = reach.astype(np.float64)
    mids: Vector = (wide * shifts).astype(reach.dtype)
    return mids, (wide * _step(levels)).astype(reach.dtype)[0]


def _read_head(reader: Reader) -> tuple[int, int]:
    levels, kind = reader.unpack(_HEAD)
    if not 2 <= levels <= MAX_LEVELS:
        raise reader.error(f"levels is {levels}, must be in [2, {MAX_LEVELS}]")
    if kind > 3:
        raise reader.error(f"a range of kind {kind} is not known; known are 0 to 3")
    return levels, kind
