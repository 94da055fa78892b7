"""The nearest of a few powers of two below the largest magnitude."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector, refuse_nonfinite
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import require_whole, whole
from flowerpress.compressors.kernels import twin
from flowerpress.compressors.kernels.packing import U8, cut, packed_bytes
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, weighted

MAX_K = 63

# Powers on each side, three zero bytes.
_HEAD = struct.Struct("<B3s")


@dataclass(frozen=True)
class Grid:
    """Codes, and the number that each of them stands for."""

    packed: U8
    table: Vector

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * table[code]``."""
        terms = weighted(self.table, weight, out.dtype)
        twin("loggrid").grid_add(self.packed, terms, self._width, out)

    def part(self, start: int, stop: int) -> Grid:
        """Return the numbers from `start`, a multiple of 1024, to `stop`."""
        return Grid(cut(self.packed, start, stop, self._width), self.table)

    @property
    def _width(self) -> int:
        return (self.table.size - 1).bit_length()


@dataclass(frozen=True)
class LogGrid(Compressor):
    """Round to the nearest of 0 and ``+-M 2**-j``, j < k, with M the largest magnitude.

    Deterministic. The largest coordinate is exact; others err by at most a third of themselves, but
    those below ``M 2**-k`` become zero. So ``1 - alpha = max(t / (1 + t), u / (16 + 9 u))`` with
    ``u = d - 1`` and ``t = u 4**-k``, the second only for k > 1: many coordinates just too small,
    or midway between the two highest powers (the quantizer of Chen et al., "Quantized Adam with
    error feedback", TIST 2021).

    Parameters
    ----------
    k : int, default 3
        Powers on each side of zero, 1 to 63; k = 1, 3, 7, ... waste the fewest bits.

    Raises
    ------
    ValueError
        If k is out of range.

    Examples
    --------
    >>> packet = LogGrid(3).compress(np.array([1.0, -0.3, 0.1, 0.0], dtype=np.float32))
    >>> packet.payload.hex(" ", -4)
    '03000000 0000803f d606'
    """

    k: int = 3

    name: ClassVar[str] = "loggrid"
    codec: ClassVar[int] = 9
    reading_work: ClassVar[float] = 1.5
    finds_nonfinite: ClassVar[bool] = True
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {"k": whole}

    def __post_init__(self) -> None:
        require_whole("k", self.k, 1, MAX_K)

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return k, the largest magnitude and the codes."""
        del draw
        largest = np.array([twin("natural").largest_magnitude(x)]).astype(x.dtype)
        if not np.isfinite(largest[0]):
            refuse_nonfinite(x)
        # Zeros are zero whatever they are divided by.
        divisor = largest[0] if largest[0] > 0 else x.dtype.type(1)
        bounds = (0.75 * 2.0 ** np.arange(1 - self.k, 1)).astype(x.dtype)
        bounds[0] = 2.0**-self.k
        packed = twin("loggrid").grid_pack(x, divisor, bounds, _width(self.k))
        return [_HEAD.pack(self.k, bytes(3)), largest, packed]

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the magnitude and every code."""
        reader = Reader(packet, cls.name)
        k = _read_head(reader)
        (largest,) = reader.scales(1, packet.dtype, "magnitude")
        packed = reader.last_codes(packet.dim, _width(k), 2 * k)
        with np.errstate(under="ignore"):
            powers = np.ldexp(largest, np.arange(1 - k, 1)).astype(packet.dtype)
        zero = np.zeros(1, dtype=packet.dtype)
        return Grid(packed, np.concatenate([-powers[::-1], zero, powers]))

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the powers' codes."""
        return packet.dim, _width(_read_head(Reader(packet, cls.name)))

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``loggrid`` with its k."""
        return cls(_read_head(Reader(packet, cls.name))).spec

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants; see the class."""
        del cohort
        u = dim - 1
        t = u * 4.0**-self.k
        loss = max(t / (1 + t), u / (16 + 9 * u) if self.k > 1 else 0.0)
        bits = 8.0 * (_HEAD.size + packed_bytes(dim, _width(self.k))) + 32
        return Traits(False, None, 1 - loss, None, bits)


def _width(k: int) -> int:
    """Return ``ceil(log2(2 k + 1))``, the bits of a code."""
    return (2 * k).bit_length()


def _read_head(reader: Reader) -> int:
    k, spare = reader.unpack(_HEAD)
    if not 1 <= k <= MAX_K:
        raise reader.error(f"k is {k}, must be in [1, {MAX_K}]")
    if spare != bytes(3):
        raise reader.error("bytes 1 to 3 must be zero")
    return int(k)
