"""fp16 and bf16: numbers of 16 bits under one power of two."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector, refuse_nonfinite
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.kernels import twin
from flowerpress.compressors.kernels.packing import pieces
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, require_finite, weighted

U16 = npt.NDArray[np.uint16]

# The common exponent, two zero bytes.
_HEAD = struct.Struct("<hH")

# Magnitudes below 2**15 leave room for rounding up in fp16, whose largest number is 65504.
_TOP = 15


@dataclass(frozen=True)
class Halves:
    """Codes of 16 bits, the largest without its sign, and the exponent that they share."""

    codes: U16
    top: int
    exponent: int
    format: str
    dtype: np.dtype[Any]

    def largest(self) -> Vector:
        """Return the largest magnitude, decoded, as an array of one number."""
        value: Vector = np.zeros(1, dtype=self.dtype)
        with np.errstate(over="ignore"):
            self._add(np.array([self.top], dtype=np.uint16), 1.0, value)
        return value

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * 2**exponent * number``."""
        weighted(self.largest(), weight, out.dtype)
        self._add(self.codes, weight, out)

    def part(self, start: int, stop: int) -> Halves:
        """Return the numbers from `start` to `stop`."""
        return replace(self, codes=self.codes[start:stop])

    def _add(self, codes: U16, weight: float, out: Vector) -> None:
        wide = np.promote_types(self.dtype, out.dtype).type(weight)
        add = getattr(twin("halves"), f"{self.format}_add")
        add(codes, *_factors(self.exponent, self.dtype), wide, out)


def _factors(exponent: int, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return ``2**exponent`` as two numbers of the dtype, neither of which over- or underflows."""
    first = exponent // 2
    return dtype.type(2.0**first), dtype.type(2.0 ** (exponent - first))


class _Half(Compressor):
    """What both formats share."""

    finds_nonfinite: ClassVar[bool] = True
    torch_kernels: ClassVar[bool] = True
    infinite: ClassVar[int]  # the first code that is no finite number
    rounding: ClassVar[float]  # the largest relative error of a number that is not tiny

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the exponent and the numbers; the largest magnitude lies in [2**14, 2**15)."""
        del draw
        largest = twin("natural", x).largest_magnitude(x)
        if not np.isfinite(largest):
            refuse_nonfinite(x)
        exponent = int(np.frexp(largest)[1]) - _TOP if largest else 0
        pack = getattr(twin("halves", x), f"{self.name}_pack")
        # What is far below the largest may underflow: that is the format's rounding to zero.
        with np.errstate(under="ignore"):
            codes: U16 = pack(x, *_factors(-exponent, x.dtype))
        halves = Halves(codes, _top(codes), exponent, self.name, x.dtype)
        require_finite(halves.largest(), "value")
        return [_HEAD.pack(exponent, 0), codes]

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the exponent and that every number is finite."""
        reader = Reader(packet, cls.name)
        exponent, spare = reader.unpack(_HEAD)
        if spare:
            raise reader.error("bytes 2 and 3 must be zero")
        low, high = _exponents(packet.dtype)
        if not low <= exponent <= high:
            raise reader.error(f"the exponent is {exponent}, must be in [{low}, {high}]")
        codes: U16 = reader.array(packet.dim, np.dtype("<u2"), "number")
        reader.done()
        top = _top(codes)
        if top >= cls.infinite:
            position = int(np.argmax((codes & 0x7FFF) >= cls.infinite))
            raise reader.error(f"number {position} is not finite")
        halves = Halves(codes, top, exponent, cls.name, packet.dtype)
        if not np.isfinite(halves.largest()).all():
            raise reader.error(f"the numbers overflow {packet.dtype}")
        return halves

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return the name."""
        del packet
        return cls.name

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants: relative rounding, and what underflows far below the largest."""
        del cohort
        # In units of the largest magnitude, at least 2**14, a tiny number errs by at most 2**-25.
        alpha = 1 - self.rounding**2 - dim * 2.0**-78
        return Traits(False, None, alpha, None, 8.0 * _HEAD.size + 16 * dim)


def _top(codes: U16) -> int:
    """Return the largest code without its sign."""
    return max(int((codes[start:stop] & 0x7FFF).max()) for start, stop in pieces(codes.size))


def _exponents(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the range of the exponents that vectors of this dtype have."""
    # From whole numbers: the smallest subnormal itself is zero where such numbers are flushed.
    limits = np.finfo(dtype)
    return limits.minexp - limits.nmant + 1 - _TOP, limits.maxexp - _TOP


@dataclass(frozen=True)
class FP16(_Half):
    """Send IEEE half-precision numbers, under a power of two that fits them to the vector.

    The largest magnitude is brought to [2**14, 2**15), so neither large nor tiny gradients leave
    the range (the loss scaling of Micikevicius et al., "Mixed precision training", ICLR 2018, for
    each vector). 11 significant bits: ``alpha = 1 - 2**-22``, less ``d 2**-78`` for numbers that
    are tiny beside the largest.

    Raises
    ------
    ValueError
        If a number rounds up beyond the dtype, in `compress`.

    Examples
    --------
    >>> packet = FP16().compress(np.array([1.0, -0.1], dtype=np.float32))
    >>> packet.payload.hex(" ", -4)
    'f2ff0000 007466e6'
    """

    name: ClassVar[str] = "fp16"
    codec: ClassVar[int] = 12
    infinite: ClassVar[int] = 0x7C00
    rounding: ClassVar[float] = 2.0**-11


@dataclass(frozen=True)
class BF16(_Half):
    """Send bfloat16 numbers: the upper half of a float32, rounded to the nearest.

    Eight significant bits: ``alpha = 1 - 2**-16``, less ``d 2**-78`` (Kalamkar et al., "A study of
    BFLOAT16 for deep learning training", 2019). The power of two, as in fp16, keeps the bound for
    vectors of any magnitude and for float64.

    Raises
    ------
    ValueError
        If a number rounds up beyond the dtype, in `compress`.

    Examples
    --------
    >>> packet = BF16().compress(np.array([1.0, -0.1], dtype=np.float32))
    >>> packet.payload.hex(" ", -4)
    'f2ff0000 8046cdc4'
    """

    name: ClassVar[str] = "bf16"
    codec: ClassVar[int] = 13
    infinite: ClassVar[int] = 0x7F80
    rounding: ClassVar[float] = 2.0**-8
