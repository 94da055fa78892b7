"""Natural compression: random rounding to powers of two."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector, refuse_nonfinite
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.kernels import twin
from flowerpress.compressors.kernels.numpy.natural import TOP_EXPONENT
from flowerpress.compressors.kernels.packing import U8
from flowerpress.compressors.wire.inputs import TooLargeError
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, weighted

_DITHER = 7  # purpose of the key

# The exponent of code 127, two zero bytes.
_HEAD = struct.Struct("<hH")


@dataclass(frozen=True)
class Powers:
    """Codes of 8 bits, and the power of two of code 127 as an array of one number."""

    codes: U8
    highest: Vector

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * power``."""
        unit = weighted(self.highest, weight, out.dtype)[0]
        twin("natural").natural_add(self.codes, unit, out)

    def part(self, start: int, stop: int) -> Powers:
        """Return the numbers from `start` to `stop`."""
        return Powers(self.codes[start:stop], self.highest)


@dataclass(frozen=True)
class Natural(Compressor):
    """Round to one of the two nearest powers of two at random, so that the mean is right.

    ``omega = 1 / 8``, reached at ``4/3 * 2**k`` (Horváth et al., "Natural compression for
    distributed deep learning", MSML 2022). A code is a sign and 7 bits: zero, or one of 127
    exponents, the highest of which fits the vector's largest magnitude. Numbers below the lowest,
    ``2**-126`` of the highest, become zero or the lowest power at random, so the mean is right
    there too, and their error adds nothing that a double can tell from 1 / 8.

    Raises
    ------
    ValueError
        If a number may round up beyond the dtype, in `compress`.

    Examples
    --------
    >>> packet = Natural().compress(np.array([1.0, -0.25, 0.0], dtype=np.float32))
    >>> packet.payload.hex(" ", -4)
    '00000000 7ffd00'
    """

    name: ClassVar[str] = "natural"
    codec: ClassVar[int] = 7
    finds_nonfinite: ClassVar[bool] = True
    torch_kernels: ClassVar[bool] = True

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the highest exponent and the codes."""
        largest = twin("natural", x).largest_magnitude(x)
        if not np.isfinite(largest):
            refuse_nonfinite(x)
        mantissa, exponent = np.frexp(largest)
        top = int(exponent) - (1 if mantissa == 0.5 else 0) if largest else 0
        if top >= np.finfo(x.dtype).maxexp:
            raise TooLargeError(f"2**{top}, to which the largest magnitude may round,")
        shift = TOP_EXPONENT[x.dtype] - top
        factors = [x.dtype.type(2.0**part) for part in (shift // 2, shift - shift // 2)]
        with np.errstate(under="ignore"):
            codes = twin("natural", x).natural_pack(x, *factors, draw.key(_DITHER))
        return [_HEAD.pack(top, 0), codes]

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the exponent and that there is a code for every coordinate."""
        reader = Reader(packet, cls.name)
        top, spare = reader.unpack(_HEAD)
        if spare:
            raise reader.error("bytes 2 and 3 must be zero")
        low, high = _exponents(packet.dtype)
        if not low <= top <= high:
            raise reader.error(f"the highest exponent is {top}, must be in [{low}, {high}]")
        codes = reader.take(packet.dim, "codes")
        reader.done()
        return Powers(codes, np.ldexp(np.ones(1, dtype=packet.dtype), top))

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the codes of a byte."""
        return packet.dim, 8

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``natural``."""
        del packet
        return cls.name

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants; roundings of different ranks are independent."""
        return Traits(True, 1 / 8, None, (1 / 8 / cohort, 0.0), 8.0 * _HEAD.size + 8 * dim)


def _exponents(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the least and the greatest exponent of a power of two in this dtype."""
    limits = np.finfo(dtype)
    return limits.minexp - limits.nmant, limits.maxexp - 1
