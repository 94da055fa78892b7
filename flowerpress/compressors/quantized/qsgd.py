"""QSGD: random rounding to a few levels of the norm."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector, refuse_nonfinite
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import require_whole, whole
from flowerpress.compressors.kernels import kernels, kernels_of
from flowerpress.compressors.kernels.packing import BLOCK, U8, cut, packed_bytes
from flowerpress.compressors.kernels.sums import F64
from flowerpress.compressors.kernels.threads import in_threads
from flowerpress.compressors.quantized import blocks
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.packet import Buffer, Packet, PacketError
from flowerpress.compressors.wire.payload import Reader, require_finite, weighted

MAX_LEVELS = (1 << 15) - 1
_DITHER = 2  # purpose of the key
# Steps for a bucket, beside those for its coordinates; for a code of more than eight bits.
_BLOCK_WORK, _WIDE_WORK = 15.0, 1.5

# Levels, two zero bytes, the bucket's size.
_HEAD = struct.Struct("<HHI")


@dataclass(frozen=True)
class Levels:
    """Signed levels and the norm of each bucket."""

    packed: U8
    norms: Vector
    blocks: blocks.Blocks
    levels: int

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * norm * level / levels``."""
        width, levels = _width(self.levels), self.levels
        self._require(weight, out.dtype)

        def add(segment: blocks.Segment) -> None:
            start, stop, first, last, offsets = segment
            packed = cut(self.packed, start, stop, width)
            steps = weighted(_steps(self.norms[first:last], levels), weight, out.dtype)
            kernels().levels_add(packed, steps, offsets, levels, width, out[start:stop])

        in_threads(add, self.blocks.segments(), self.blocks.dim)

    def squares(self) -> list[F64]:
        """Return the sums of squares of each 1024 numbers, in order, without making the numbers."""
        width, levels = _width(self.levels), self.levels
        self._require(1.0, self.norms.dtype)

        def square(segment: blocks.Segment) -> F64:
            start, stop, first, last, offsets = segment
            packed = cut(self.packed, start, stop, width)
            steps = _steps(self.norms[first:last], levels)
            sums: F64 = kernels().levels_squares(packed, steps, offsets, levels, width)
            return sums

        return in_threads(square, self.blocks.segments(), self.blocks.dim)

    def part(self, start: int, stop: int) -> Levels:
        """Return the numbers from `start`, a multiple of 1024, to `stop`."""
        blocks, which = self.blocks.part(start, stop)
        packed = cut(self.packed, start, stop, _width(self.levels))
        return Levels(packed, self.norms[which], blocks, self.levels)

    def _require(self, weight: float, dtype: np.dtype[Any]) -> None:
        """Raise `PacketError` if a number times `weight` overflows."""
        largest = self.norms if self.norms.size < 64 else self.norms.max(keepdims=True)
        most = weighted(_steps(largest, self.levels), weight, dtype)
        if not np.isfinite(most * dtype.type(self.levels)).all():
            raise PacketError(f"qsgd: a norm times {weight} overflows {dtype}")


def _steps(norms: Vector, levels: int) -> Vector:
    """Return the distance between two levels of each bucket."""
    steps: Vector = norms / norms.dtype.type(levels)
    return steps


def _width(levels: int) -> int:
    """Return ``ceil(log2(2 s + 1))``, the bits of a code."""
    return (2 * levels).bit_length()


@dataclass(frozen=True)
class QSGD(Compressor):
    """Round ``s |x| / |x|_2`` to an integer at random, so that the mean is right. Unbiased.

    ``omega = min(n / s^2, sqrt(n) / s)`` for buckets of n coordinates (Alistarh et al., "QSGD:
    communication-efficient SGD via gradient quantization and encoding", NeurIPS 2017, Lemma 3.1).
    Codes have ``ceil(log2(2 s + 1))`` bits, so s = 1, 3, 7, ..., 127 waste the least.

    Parameters
    ----------
    levels : int, default 7
        The s of the paper: levels on each side of zero, 1 to 32767.
    bucket : int, default 512
        Coordinates that share a norm; 0 for one norm.

    Raises
    ------
    ValueError
        If a parameter is out of range, or a norm overflows the dtype in `compress`.

    Examples
    --------
    >>> packet = QSGD(levels=1).compress(np.array([0.0, -2.0], dtype=np.float32))
    >>> packet.payload.hex(" ", -4)
    '01000000 00020000 00000040 01'
    """

    levels: int = 7
    bucket: int = 512

    name: ClassVar[str] = "qsgd"
    codec: ClassVar[int] = 5
    finds_nonfinite: ClassVar[bool] = True
    torch_kernels: ClassVar[bool] = True
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {"levels": whole, "bucket": whole}

    def __post_init__(self) -> None:
        require_whole("levels", self.levels, 1, MAX_LEVELS)
        require_whole("bucket", self.bucket, 0, (1 << 32) - 1)

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the norms and the codes ``s + sign * level``."""
        width, key, kernel = _width(self.levels), draw.key(_DITHER), kernels_of(x)
        if x.dtype == np.float32 and self.bucket and BLOCK % self.bucket == 0:  # in one pass
            norms, packed = kernel.norm_levels_pack(x, self.bucket, self.levels, width, key)
            self._require_norms(norms, x)
        else:
            if x.dtype != np.float32:  # a float32 shows in its bucket's norm
                refuse_nonfinite(x)
            offsets = blocks.equal_blocks(x.size, self.bucket)
            norms = blocks.norms(x, offsets)
            self._require_norms(norms, x)
            packed = kernel.levels_pack(x, norms, offsets, self.levels, width, key)
        return [_HEAD.pack(self.levels, 0, self.bucket), norms, packed]

    def _require_norms(self, norms: Vector, x: Vector) -> None:
        """Raise ValueError if `x` is not finite or a norm overflows."""
        if not np.isfinite(norms).all():
            refuse_nonfinite(x)
        # The top level is rebuilt as step * levels, which may round up past the largest number.
        with np.errstate(over="ignore"):
            require_finite(_steps(norms, self.levels) * x.dtype.type(self.levels), "bucket")

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the norms and every code."""
        reader = Reader(packet, cls.name)
        levels, bucket = _read_head(reader)
        width = _width(levels)
        count = -(-packet.dim // bucket) if bucket else 1
        # Before the buckets' edges take memory.
        if count * packet.dtype.itemsize > reader.left:
            raise reader.error(f"{count} norms do not fit {reader.left} bytes")
        budget.charge(_BLOCK_WORK * count + _WIDE_WORK * packet.dim * (width > 8))
        norms = reader.scales(count, packet.dtype, "norm")
        packed = reader.last_codes(packet.dim, width, 2 * levels)
        return Levels(packed, norms, blocks.Blocks(packet.dim, bucket), levels)

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the levels' codes."""
        levels, _ = _read_head(Reader(packet, cls.name))
        return packet.dim, _width(levels)

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``qsgd`` with its levels and bucket."""
        return cls(*_read_head(Reader(packet, cls.name))).spec

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants; roundings of different ranks are independent."""
        offsets = blocks.equal_blocks(dim, self.bucket)
        n = int(np.diff(offsets).max())
        omega = min(n / self.levels**2, math.sqrt(n) / self.levels)
        count = offsets.size - 1
        bits = 8.0 * (_HEAD.size + packed_bytes(dim, _width(self.levels))) + 32 * count
        return Traits(True, omega, None, (omega / cohort, 0.0), bits)


def _read_head(reader: Reader) -> tuple[int, int]:
    levels, spare, bucket = reader.unpack(_HEAD)
    if not 1 <= levels <= MAX_LEVELS:
        raise reader.error(f"levels is {levels}, must be in [1, {MAX_LEVELS}]")
    if spare:
        raise reader.error("bytes 2 and 3 must be zero")
    return levels, bucket
