"""Uniform quantization: evenly spaced points over each bucket's range."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector, refuse_nonfinite
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import require_one_of, require_whole, whole
from flowerpress.compressors.kernels import twin
from flowerpress.compressors.kernels.packing import BLOCK, U8, cut, packed_bytes
from flowerpress.compressors.kernels.threads import in_threads
from flowerpress.compressors.quantized import blocks
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.packet import Buffer, Packet, PacketError
from flowerpress.compressors.wire.payload import Reader, require_finite, weighted

ROUNDINGS = ("stochastic", "nearest")
_DITHER = 6  # purpose of the key
_BLOCK_WORK = 14.5  # steps for a bucket, beside those for its coordinates

# Bits, rounding, two zero bytes; the bucket's size.
_HEAD = struct.Struct("<BBHI")


@dataclass(frozen=True)
class Points:
    """Codes of evenly spaced points, and each block's middle and half step.

    Parameters
    ----------
    packed : ndarray of uint8
    scales : Vector, shape (blocks,)
        Half the distance of two points, times `divisor`.
    divisor : int
    blocks : Blocks
    top : int
        The largest code.
    mids : Vector, shape (blocks,), optional
        The middles; zero by default.
    """

    packed: U8
    scales: Vector
    divisor: int
    blocks: blocks.Blocks
    top: int
    mids: Vector | None = None

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * (mid + (2 code - top) * step)``."""
        # Of middles there are few; without, the largest scale has the farthest point.
        some = self.scales if self.mids is not None else self.scales.max(keepdims=True)
        mids, steps = self._terms(self.mids, some, weight, out.dtype)
        if not np.isfinite(np.abs(mids) + np.abs(steps) * out.dtype.type(self.top)).all():
            raise PacketError(f"a block's points times {weight} overflow {out.dtype}")
        width = self.top.bit_length()

        def add(segment: blocks.Segment) -> None:
            start, stop, first, last, offsets = segment
            packed = cut(self.packed, start, stop, width)
            middles = None if self.mids is None else self.mids[first:last]
            terms = self._terms(middles, self.scales[first:last], weight, out.dtype)
            twin("affine").affine_add(packed, *terms, offsets, self.top, width, out[start:stop])

        in_threads(add, self.blocks.segments(), self.blocks.dim)

    def part(self, start: int, stop: int) -> Points:
        """Return the numbers from `start`, a multiple of 1024, to `stop`."""
        blocks, which = self.blocks.part(start, stop)
        packed = cut(self.packed, start, stop, self.top.bit_length())
        mids = None if self.mids is None else self.mids[which]
        return Points(packed, self.scales[which], self.divisor, blocks, self.top, mids)

    def _terms(
        self, mids: Vector | None, scales: Vector, weight: float, dtype: np.dtype[Any]
    ) -> tuple[Vector, Vector]:
        """Return the middles and the half steps of some blocks, times `weight`."""
        steps = weighted(_steps(scales, self.divisor), weight, dtype)
        return np.zeros_like(steps) if mids is None else weighted(mids, weight, dtype), steps


@dataclass(frozen=True)
class Uniform(Compressor):
    """Round to evenly spaced points between minus and plus the bucket's largest magnitude M.

    Stochastic rounding is unbiased, with ``2**bits`` points and
    ``omega = (n - 1) / (2**bits - 1)**2`` for buckets of n coordinates; the worst case is a one-hot
    vector, since zero lies between two points (Suresh et al., "Distributed mean estimation with
    limited communication", ICML 2017). Rounding to the nearest uses one point less, so that zero is
    a point (for 1 bit: signs), with ``alpha = 1 / (1 + (n - 1) / (2**bits - 2)**2)``.

    Parameters
    ----------
    bits : int, default 4
        Bits of a code, 1 to 8.
    bucket : int, default 1024
        Coordinates that share a range; 0 for one range.
    rounding : {"stochastic", "nearest"}, default "stochastic"

    Raises
    ------
    ValueError
        If a parameter is out of range, or a point overflows the dtype in `compress`.

    Examples
    --------
    >>> packet = Uniform(bits=2, rounding="nearest").compress(np.array([0.1, -2.0, 2.0]))
    >>> packet.payload.hex(" ", -4)
    '02010000 00040000 00000000 00000040 21'
    """

    bits: int = 4
    bucket: int = 1024
    rounding: str = "stochastic"

    name: ClassVar[str] = "uniform"
    codec: ClassVar[int] = 6
    reading_work: ClassVar[float] = 1.5
    finds_nonfinite: ClassVar[bool] = True
    torch_kernels: ClassVar[bool] = True
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {
        "bits": whole,
        "bucket": whole,
        "rounding": str,
    }

    def __post_init__(self) -> None:
        require_whole("bits", self.bits, 1, 8)
        require_whole("bucket", self.bucket, 0, (1 << 32) - 1)
        require_one_of("rounding", self.rounding, ROUNDINGS)

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the maxima and the codes."""
        nearest = self.rounding == "nearest"
        top, width = _top(self.bits, nearest), self.bits
        key = None if nearest else draw.key(_DITHER)
        if x.dtype == np.float32 and self.bucket and BLOCK % self.bucket == 0:  # in one pass
            maxima, packed = twin("affine", x).max_uniform_pack(x, self.bucket, top, width, key)
            _require_maxima(maxima, top, x)
        else:
            offsets = blocks.equal_blocks(x.size, self.bucket)
            maxima = twin("affine", x).block_maxima(x, offsets)
            _require_maxima(maxima, top, x)
            packed = twin("affine", x).uniform_pack(x, maxima, offsets, top, width, key)
        return [_HEAD.pack(self.bits, nearest, 0, self.bucket), maxima, packed]

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the maxima and every code."""
        reader = Reader(packet, cls.name)
        width, nearest, bucket = _read_head(reader)
        count = -(-packet.dim // bucket) if bucket else 1
        # Before the buckets' edges take memory.
        if count * packet.dtype.itemsize > reader.left:
            raise reader.error(f"{count} maxima do not fit {reader.left} bytes")
        budget.charge(_BLOCK_WORK * count)
        maxima = reader.scales(count, packet.dtype, "maximum")
        top = _top(width, nearest)
        packed = reader.last_codes(packet.dim, width, top)
        return Points(packed, maxima, top, blocks.Blocks(packet.dim, bucket), top)

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the levels' codes."""
        width, _, _ = _read_head(Reader(packet, cls.name))
        return packet.dim, width

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``uniform`` with its fields."""
        bits, nearest, bucket = _read_head(Reader(packet, cls.name))
        return cls(bits, bucket, ROUNDINGS[nearest]).spec

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants; roundings of different ranks are independent."""
        offsets = blocks.equal_blocks(dim, self.bucket)
        n, count = int(np.diff(offsets).max()), offsets.size - 1
        bits = 8.0 * (_HEAD.size + packed_bytes(dim, self.bits)) + 32 * count
        top = _top(self.bits, self.rounding == "nearest")
        # Half a step, squared, in units of M: a coordinate's largest variance and nearest error.
        worst = (n - 1) / top**2
        if self.rounding == "stochastic":
            return Traits(True, worst, None, (worst / cohort, 0.0), bits)
        if self.bits == 1:
            return Traits(False, None, 1 - worst if n == 1 else None, None, bits)
        # Zero is a point, so no coordinate errs by more than itself either.
        return Traits(False, None, 1 / (1 + worst), None, bits)


def _top(bits: int, nearest: bool) -> int:
    """Return the largest code."""
    return (1 << bits) - (2 if nearest and bits > 1 else 1)


def _require_maxima(maxima: Vector, top: int, x: Vector) -> None:
    """Raise ValueError if `x` is not finite or a point overflows."""
    if not np.isfinite(maxima).all():
        refuse_nonfinite(x)
    # The outermost point is rebuilt as step * top, which may round up past the largest number.
    with np.errstate(over="ignore"):
        require_finite(_steps(maxima, top) * x.dtype.type(top), "bucket")


def _steps(maxima: Vector, top: int) -> Vector:
    """Return half the distance between two points of each bucket."""
    steps: Vector = maxima / maxima.dtype.type(top)
    return steps


def _read_head(reader: Reader) -> tuple[int, bool, int]:
    bits, rounding, spare, bucket = reader.unpack(_HEAD)
    if not 1 <= bits <= 8:
        raise reader.error(f"bits is {bits}, must be in [1, 8]")
    if rounding >= len(ROUNDINGS):
        raise reader.error(f"rounding {rounding} is not known; known are 0 and 1")
    if spare:
        raise reader.error("bytes 2 and 3 must be zero")
    return bits, bool(rounding), bucket
