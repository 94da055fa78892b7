"""TernGrad: minus, zero or plus the largest magnitude."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector, refuse_nonfinite
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.kernels import twin
from flowerpress.compressors.kernels.packing import packed_bytes
from flowerpress.compressors.quantized import blocks
from flowerpress.compressors.quantized.uniform import Points
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader

_DITHER = 8  # purpose of the key
_TOP, _BITS = 2, 2


@dataclass(frozen=True)
class TernGrad(Compressor):
    """Send minus, zero or plus the largest magnitude M, at random so that the mean is right.

    A coordinate is kept with chance ``|x_j| / M``, so ``E |C(x)|^2 = M |x|_1`` and ``omega =
    (sqrt(d) - 1) / 2`` (Wen et al., "TernGrad: ternary gradients to reduce communication in
    distributed deep learning", NeurIPS 2017).

    Examples
    --------
    >>> packet = TernGrad().compress(np.array([0.0, -3.0, 3.0], dtype=np.float32))
    >>> packet.payload.hex(" ", -4)
    '00004040 21'
    """

    name: ClassVar[str] = "terngrad"
    codec: ClassVar[int] = 8
    finds_nonfinite: ClassVar[bool] = True

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the largest magnitude and the codes."""
        offsets = blocks.equal_blocks(x.size, 0)
        largest = np.array([twin("natural").largest_magnitude(x)]).astype(x.dtype)
        if not np.isfinite(largest[0]):
            refuse_nonfinite(x)
        key = draw.key(_DITHER)
        return [largest, twin("affine").uniform_pack(x, largest, offsets, _TOP, _BITS, key)]

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the magnitude and every code."""
        reader = Reader(packet, cls.name)
        largest = reader.scales(1, packet.dtype, "magnitude")
        packed = reader.last_codes(packet.dim, _BITS, _TOP)
        return Points(packed, largest, 2, blocks.Blocks(packet.dim), _TOP)

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the codes of two bits."""
        return packet.dim, _BITS

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``terngrad``."""
        del packet
        return cls.name

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants; roundings of different ranks are independent."""
        omega = (math.sqrt(dim) - 1) / 2
        alpha = 1.0 if dim == 1 else None
        bits = 32.0 + 8 * packed_bytes(dim, _BITS)
        return Traits(True, omega, alpha, (omega / cohort, 0.0), bits)
