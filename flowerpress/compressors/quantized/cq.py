"""Correlated quantization: the senders of a cohort round against each other."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import real, require_one_of, require_whole, whole
from flowerpress.compressors.kernels import twin
from flowerpress.compressors.kernels.numpy.cq import Keys, fixed_digits
from flowerpress.compressors.kernels.packing import BLOCK, U8, U32, packed_bytes
from flowerpress.compressors.quantized import points, ranges
from flowerpress.compressors.quantized.points import Correlated
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.ids import RAW, decode_ids, encode_ids, expected_id_bits
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, Sparse, require_finite

MAX_LEVELS = 256
MAX_COHORT = 1 << 16
_OWN, _SHIFT, _ORDER, _GRID = 20, 21, 22, 23  # purposes of the keys
_GRID_WORK = 120_000  # steps of drawing a grid, however few its blocks
_RANGE_WORK = 15  # steps of a bucket's range

# Levels; the kind: 1 for a number as the range, 2 for independent rounding, 4 for what follows.
_HEAD = struct.Struct("<HH")
# The range's kind, the places' code and its parameter, a zero byte; the bucket, the number of
# values beyond the range; c, or the number that is the range.
_MORE = struct.Struct("<BBBBIId")
ROUNDINGS = ("correlated", "independent")
_KEY = struct.Struct("<II")
_KINDS = (*ranges.NAMES, "number")
_PAPERS = (ranges.L2, "number")  # ranges whose points are the paper's


@dataclass(frozen=True)
class CQ(Compressor):
    """Round to one of a few points over ``[-r, r]``, so that the errors of a cohort cancel.

    Each packet alone is unbiased; the cohort's random numbers are spread evenly over [0, 1), so
    that the mean over senders with like vectors is far better than with independent ones, and never
    worse (Suresh, Sun, Ro and Yu, "Correlated quantization for distributed mean estimation and
    optimization", ICML 2022, Algorithms 1 and 2, one for each coordinate). Where they are not
    alike, independent schemes such as `drive` are better: docs/correlated.md says when.

    The draw's `cohort` and `rank` must be those of the round. A decoder needs neither, and what
    arrives is unbiased whoever is missing.

    Parameters
    ----------
    levels : int, default 2
        The k of the paper, 2 to 256: two for one bit. With ``rms``, ``max`` and ``shared`` the
        points are evenly spaced and both ends are points; an odd k has a point at zero, and its
        codes are mostly that: ``cq:5,c=5+rans`` takes 1.24 bits after a rotation. With ``l2`` or a
        number the points of the paper are used: from three on they are ``(k + 1) / (k (k - 1))`` of
        the range apart, and shifted at random, alike for all senders and anew for every 1024
        coordinates.
    range : {"rms", "max", "l2", "shared"} or float, default "rms"
        The r. rms: `c` times the root mean square of the bucket; the few values beyond it are sent
        exactly, with their places. max: the largest magnitude. l2: the norm, as in Panferov et al.,
        "Correlated quantization for faster nonconvex distributed optimization", UAI 2025. shared:
        as rms, but that of the cohort's norm (`Draw.norm`) where it is 1 to 2 times the sender's
        own; only the server of a run with the quantizer alone, rotated or entropy-coded, knows one.
        A number: for all senders and rounds; values beyond it are sent exactly too.
    rounding : {"correlated", "independent"}, default "correlated"
        Independent is what correlation is measured against: the same points and the same law of
        each packet, but every sender for itself.
    c : float, default 3.0
        Of ``rms`` and ``shared``, at least 1. Of normal values 1 in 370 is beyond 3.
    bucket : int, optional
        Coordinates that share a range, a multiple of 1024; the last bucket is up to 1023 longer,
        the one before it shorter. 0 for one range, as by default; by rms and max after a rotation,
        by default, its blocks of 8192 have one each.

    Raises
    ------
    ValueError
        If a parameter is out of range; in `compress`, if the range overflows the dtype, or the
        cohort has more than 65536 senders.

    Notes
    -----
    With m the mean square of a bucket of n coordinates, c the range over sqrt(m), and a value at t
    sqrt(m), the points are ``s = 2 c / (k - 1)`` apart. Rounding t between two points with the
    shares that make it unbiased has the variance u (s - u), u the distance from the point below;
    values beyond the range have none. So for any vector:

    - k = 2: the variance is ``c^2 - t^2`` within the range. As a function of t^2, whose mean is 1,
      it lies below the line from c^2 at 0 to 0 at n, hence ``omega = c^2 (1 - 1 / n)``; where
      nothing can be beyond, as c is sqrt(n), it is ``c^2 - 1``.
    - k even: at most ``s^2 / 4``, which is ``c^2 / (k - 1)^2``.
    - k odd: zero is a point, so it is ``s t - t^2`` up to s, and at most s^2 / 4: a function of t^2
      below a concave one that is ``s t - t^2`` until t = s / 2. At a mean square of 1:
      ``omega = s - 1`` if s >= 2, else ``s^2 / 4``.

    None of these depends on d. With ``max`` and ``l2`` the range is at most the norm: c = sqrt(n).

    Examples
    --------
    >>> from flowerpress.compressors import Draw, add_to
    >>> total, x = np.zeros(1), np.array([0.6])
    >>> for rank in range(5):
    ...     add_to(CQ(range=1.0).compress(x, Draw(rank=rank, cohort=5)), total, 1 / 5)
    >>> total
    array([0.6])
    >>> CQ().traits(900).omega, CQ(5, c=5.0).traits(10**9).omega, CQ(range="l2").traits(9).omega
    (8.99, 1.5, 8.0)
    """

    levels: int = 2
    range: ranges.Range = ranges.RMS
    rounding: str = "correlated"
    c: float = 3.0
    bucket: int | None = None

    name: ClassVar[str] = "cq"
    codec: ClassVar[int] = 15
    reading_work: ClassVar[float] = 1.5
    finds_nonfinite: ClassVar[bool] = True
    torch_kernels: ClassVar[bool] = True
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {
        "levels": whole,
        "range": ranges.parse,
        "rounding": str,
        "c": real,
        "bucket": whole,
    }

    def __post_init__(self) -> None:
        require_whole("levels", self.levels, 2, MAX_LEVELS)
        ranges.require_range(self.range)
        require_one_of("rounding", self.rounding, ROUNDINGS)
        require_whole("bucket", self._bucket, 0, (1 << 32) - 1)
        if self._bucket % BLOCK:
            raise ValueError(f"bucket must be a multiple of {BLOCK}, got {self.bucket}")
        if self._bucket and (self.range == ranges.SHARED or not isinstance(self.range, str)):
            raise ValueError(f"range={self.range} is one range for all: bucket must be 0")
        if not 1 <= self.c < math.inf:
            raise ValueError(f"c must be a number of at least 1, got {self.c!r}")
        if self.c != CQ.c and not self._by_rms:
            raise ValueError(f"c is of range=rms and range=shared, not of range={self.range}")

    def after_rotation(self, block: int) -> CQ:
        """Return the compressor with a range for each block, unless that was given."""
        if self.bucket is not None or self.range not in (ranges.RMS, ranges.MAX):
            return self
        return replace(self, bucket=block)

    @property
    def _bucket(self) -> int:
        return 0 if self.bucket is None else self.bucket

    @property
    def correlates(self) -> bool:
        """Whether senders round against each other."""
        return self.rounding == "correlated"

    @property
    def _by_rms(self) -> bool:
        return self.range in (ranges.RMS, ranges.SHARED)

    @property
    def _papers(self) -> bool:
        """Whether the points are those of the paper."""
        return self._kind in _PAPERS

    @property
    def _shifted(self) -> bool:
        return self._papers and self.levels > 2

    @property
    def _kind(self) -> str:
        return self.range if isinstance(self.range, str) else "number"

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the head, the grid's key, the ranges, what is beyond them, and the codes."""
        if draw.cohort > MAX_COHORT:
            raise ValueError(f"cq: a cohort of {draw.cohort} is above {MAX_COHORT} senders")
        own = ranges.own(x, self.range, self.c, self._bucket)
        told = used = own
        if self.range == ranges.SHARED:
            used = ranges.agreed(own, self._reach(draw.norm, x.size))
            told = np.concatenate([used, own])
        key = draw.shared_key(_GRID) if self._shifted else None
        grid = points.Grid(used, self._bucket, self.levels, self._papers, key, x.size)
        with np.errstate(over="ignore"):
            require_finite(grid.ends(), "range")
        packed = self._round(x, grid, draw)
        beyond = self._beyond(x, grid)
        kind = (self._kind == "number") + 2 * ROUNDINGS.index(self.rounding)
        plain = self._papers and not self._bucket and not beyond.size
        shifts = [_KEY.pack(*key)] if key else []
        if plain:
            return [_HEAD.pack(self.levels, kind), *shifts, told, packed]
        tag, parameter, places = _places(beyond, x.size)
        number = self.range if isinstance(self.range, float | int) else self.c * self._by_rms
        which = _KINDS.index(self._kind)
        more = _MORE.pack(which, tag, parameter, 0, self._bucket, beyond.size, number)
        rest = grid.rest(x, beyond, packed)
        if beyond.size:
            require_finite(grid.largest(beyond, rest), "the sum")
        head = _HEAD.pack(self.levels, kind & 2 | 4)
        return [head, more, *shifts, told, rest, places, packed]

    def _reach(self, norm: float, dim: int) -> float:
        """Return the range of a vector of that norm."""
        return ranges.widest(self.c, dim) * norm / math.sqrt(dim)

    def _beyond(self, x: Vector, grid: points.Grid) -> U32:
        if self.range in (ranges.MAX, ranges.L2):
            return np.empty(0, dtype=np.uint32)
        found: U32 = twin("cq", x).beyond(x, grid.reaches)
        return found

    def _round(self, x: Vector, grid: points.Grid, draw: Draw) -> U8:
        top, width = self.levels - 1, (self.levels - 1).bit_length()
        if not grid.reaches.any():
            return np.zeros(packed_bytes(x.size, width), dtype=np.uint8)
        # Where the range is zero, so are all values but those beyond: the lowest code stands there.
        filled = grid.reaches > 0
        # Of the even points it must be exact: what is beyond the range has the outermost code.
        one = 2.0 ** fixed_digits(top)
        unit = one / grid.share if self._papers else one * top
        offsets = np.where(filled, unit * (0.5 + grid.turns / self.levels), 0)
        keys = Keys(draw.key(_OWN), draw.shared_key(_SHIFT), draw.shared_key(_ORDER))
        alone = self.rounding == "independent"
        with np.errstate(under="ignore"):
            packed: U8 = twin("cq", x).correlated_pack(
                x,
                np.where(filled, grid.reaches, x.dtype.type(1)),
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
        """Check the ranges, what is beyond them, and every code."""
        reader = Reader(packet, cls.name)
        head = _Head.read(reader)
        budget.charge(_GRID_WORK if head.key else 0)
        count = head.ranges(packet.dim)
        if count * packet.dtype.itemsize > reader.left:  # before they take memory
            raise reader.error(f"{count} ranges do not fit {reader.left} bytes")
        budget.charge(_RANGE_WORK * count)
        told = reader.scales(count, packet.dtype, "range")
        used = told[:1] if head.kind == ranges.SHARED else told
        if head.kind == ranges.SHARED and not told[1] <= told[0] <= ranges.NEAR * float(told[1]):
            raise reader.error(f"the range is {told[0]}, the sender's own {told[1]}")
        if head.beyond and head.kind in (ranges.MAX, ranges.L2):
            raise reader.error(f"values beyond a range that is the {head.kind}")
        values = reader.finite(head.beyond, packet.dtype, "value")
        top, width = head.levels - 1, (head.levels - 1).bit_length()
        size = reader.left - packed_bytes(packet.dim, width)
        places = reader.take(max(size, 0), "places")
        packed = reader.last_codes(packet.dim, width, top)
        papers = head.kind in _PAPERS
        grid = points.Grid(used, head.bucket, head.levels, papers, head.key, packet.dim)
        decoded, norm = grid.decoded(packed), head.norm(told, packet.dim)
        if not head.beyond:
            if places.size or head.tag or head.parameter:
                raise reader.error("there are places, but no values")
            return Correlated(decoded, norm)
        try:
            ids = decode_ids(head.tag, head.parameter, places, head.beyond, packet.dim)
        except ValueError as error:
            raise reader.error(str(error)) from error
        return Correlated(decoded, norm, Sparse(ids, values), grid.largest(ids, values))

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the points' codes."""
        head = _Head.read(Reader(packet, cls.name))
        return packet.dim, (head.levels - 1).bit_length()

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``cq`` with its fields."""
        reader = Reader(packet, cls.name)
        head = _Head.read(reader)
        if head.kind != "number":
            c = head.number if head.number else cls.c
            return cls(head.levels, head.kind, head.rounding, c, head.bucket or None).spec
        reach = head.number
        if not reach:
            reach = float(reader.scales(1, packet.dtype, "range")[0])
        if not reach > 0:
            raise reader.error("the shared range is zero")
        return cls(head.levels, reach, head.rounding).spec

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants, which hold for any vectors of a cohort; see `homogeneous`.

        Given the order, the numbers U of a cohort are negatively associated, and each code is a
        monotone function of one of them; so no two errors have a positive covariance, and A is at
        most omega / n.
        """
        bits = self._bits(dim)
        if self._kind == "number":
            return Traits(True, None, None, None, bits)
        omega = self._omega(dim)
        alpha = 1.0 if omega == 0 else None
        return Traits(True, omega, alpha, (omega / cohort, 0.0), bits)

    def homogeneous(self, dim: int, cohort: int) -> float | None:
        """Return A for equal vectors: ``E |mean C_i(x) - x|^2 <= A |x|^2``.

        None for a number, and for independent rounding, which gains nothing from likeness.

        n numbers that are spread evenly fall below y for n y senders, rounded up or down, so the
        mean of n codes errs by less than 1 / n of a step, with a variance of at most a quarter of
        its square: A is ``d (s / 2)^2 / n^2`` in units of the mean square, ``c^2 / ((k - 1) n)^2``.
        It is no bound for unlike vectors: a step size from it is not safe in general.

        Examples
        --------
        >>> CQ().homogeneous(10**6, 100), CQ(range="l2").homogeneous(100, 10)
        (0.0009, 1.0)
        """
        if self._kind == "number" or not self.correlates:
            return None
        alike = (self._widest(dim) * points.share(self.levels, self._papers) / cohort) ** 2
        return min(alike, self._omega(dim) / cohort)  # the latter holds for any vectors

    def _largest(self, dim: int) -> int:
        """Return the size of the largest bucket."""
        bucket = self._bucket
        return max(bucket, bucket + (dim - bucket) % BLOCK) if 0 < bucket < dim else dim

    def _widest(self, dim: int) -> float:
        """Return the widest range of a bucket, in its root mean squares."""
        size = self._largest(dim)
        if not self._by_rms:
            return math.sqrt(size)
        near = ranges.NEAR if self.range == ranges.SHARED else 1.0
        return near * ranges.widest(self.c, size)

    def _omega(self, dim: int) -> float:
        c, size = self._widest(dim), self._largest(dim)
        if self.levels == 2:
            return c * c * (1 - 1 / size) if c * c <= size else c * c - 1.0
        half = c * points.share(self.levels, self._papers)  # half the distance of two points
        if self._shifted:
            # A random shift by a part of a step keeps the mean variance from being a quarter.
            part = (self.levels - 1) / (self.levels + 1)
            return half**2 * (1 - part**2 / 3)
        return 2 * half - 1 if self.levels % 2 and half >= 1 else half**2

    def _bits(self, dim: int) -> float:
        """Return the bits of a vector of normal values."""
        bits = 8.0 * (_HEAD.size + packed_bytes(dim, (self.levels - 1).bit_length()))
        bits += 8 * _KEY.size * self._shifted + 32 * ranges.count(dim, self._bucket)
        if self._papers and not self._bucket:
            return bits
        bits += 8 * _MORE.size + 32 * (self.range == ranges.SHARED)
        size = self._largest(dim)
        if not self._by_rms or size <= self.c**2:
            return bits
        k = dim * math.erfc(self.c / math.sqrt(2))
        return bits + 32 * k + (expected_id_bits(max(1, round(k)), dim) if k else 0.0)


@dataclass(frozen=True)
class _Head:
    """What a packet begins with."""

    levels: int
    kind: str
    rounding: str
    key: tuple[int, int] | None
    tag: int = RAW
    parameter: int = 0
    bucket: int = 0
    beyond: int = 0
    number: float = 0.0

    @classmethod
    def read(cls, reader: Reader) -> _Head:
        """Read and check it."""
        levels, flags = reader.unpack(_HEAD)
        if not 2 <= levels <= MAX_LEVELS:
            raise reader.error(f"levels is {levels}, must be in [2, {MAX_LEVELS}]")
        if flags not in (0, 1, 2, 3, 4, 6):
            raise reader.error(f"a range of kind {flags} is not known; known are 0 to 4, and 6")
        rounding = ROUNDINGS[flags >> 1 & 1]
        if flags < 4:
            kind = "number" if flags & 1 else ranges.L2
            return cls(levels, kind, rounding, _read_key(reader, kind, levels))
        return cls._read_more(reader, levels, rounding)

    @classmethod
    def _read_more(cls, reader: Reader, levels: int, rounding: str) -> _Head:
        which, tag, parameter, spare, bucket, beyond, number = reader.unpack(_MORE)
        if spare:
            raise reader.error(f"byte 7 is {spare:#04x}, must be zero")
        if which >= len(_KINDS):
            raise reader.error(f"range {which} is not known; known are 0 to {len(_KINDS) - 1}")
        kind = _KINDS[which]
        try:
            fixed = kind == "number"
            c = number if kind in (ranges.RMS, ranges.SHARED) else CQ.c
            CQ(levels, number if fixed else kind, rounding, c, bucket)
        except ValueError as error:
            raise reader.error(str(error)) from None
        if number and kind in (ranges.MAX, ranges.L2):
            raise reader.error(f"the number of a range of {kind} is {number}, must be zero")
        key = _read_key(reader, kind, levels)
        return cls(levels, kind, rounding, key, tag, parameter, bucket, beyond, number)

    def norm(self, told: Vector, dim: int) -> float | None:
        """Return the vector's norm, which its ranges tell but for a maximum or a number."""
        if self.kind in (ranges.MAX, "number"):
            return None
        own = told[1:] if self.kind == ranges.SHARED else told
        sizes = np.diff(ranges.edges(dim, self.bucket)).astype(np.float64)
        wide = own.astype(np.float64)
        if self.kind != ranges.L2:
            with np.errstate(over="ignore"):
                wide *= np.sqrt(sizes) / np.minimum(self.number, np.sqrt(sizes))
        largest = float(wide.max())  # first, so that no square overflows
        if not largest or math.isinf(largest):
            return None if largest else 0.0
        # In one order everywhere: what is made of it is sent.
        norm = largest * math.sqrt(math.fsum((wide / largest) ** 2))
        return norm if math.isfinite(norm) else None

    def ranges(self, dim: int) -> int:
        """Return how many ranges follow."""
        if self.kind == ranges.SHARED:
            return 2
        return ranges.count(dim, self.bucket)


def _read_key(reader: Reader, kind: str, levels: int) -> tuple[int, int] | None:
    if levels == 2 or kind not in _PAPERS:
        return None
    k0, k1 = reader.unpack(_KEY)
    return k0, k1


def _places(ids: U32, dim: int) -> tuple[int, int, Buffer]:
    """Return the code of places, its parameter, and the bytes."""
    if not ids.size:
        return RAW, 0, b""
    return encode_ids(ids, dim)
