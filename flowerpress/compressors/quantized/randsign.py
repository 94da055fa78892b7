"""Random signs of numbers that are known to lie in a range."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import real
from flowerpress.compressors.kernels import twin
from flowerpress.compressors.kernels.packing import packed_bytes
from flowerpress.compressors.quantized import blocks
from flowerpress.compressors.quantized.uniform import Points
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, require_finite

_DITHER = 10  # purpose of the key


@dataclass(frozen=True)
class RandSign(Compressor):
    """Send ``+r`` with chance ``(1 + x_j / r) / 2``, else ``-r``. Unbiased, for ``|x_j| <= r``.

    Made for ratios such as Adam's, which lie in [-1, 1] (Peng et al., "Birder: communication-
    efficient 1-bit adaptive optimizer for practical distributed DNN training", NeurIPS 2023). The
    error, ``d r^2 - |x|^2``, does not shrink with the vector, so there is no omega; zeros too
    become minus or plus r.

    Parameters
    ----------
    range : float, default 1.0
        The r. A number may exceed it by a few roundings, and then counts as r.

    Raises
    ------
    ValueError
        If the range is not a positive number; in `compress`, if a number lies outside of it.

    Examples
    --------
    >>> packet = RandSign().compress(np.array([1.0, -1.0, 1.0], dtype=np.float32))
    >>> packet.payload.hex(" ", -4)
    '0000803f 05'
    """

    range: float = 1.0

    name: ClassVar[str] = "randsign"
    codec: ClassVar[int] = 10
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {"range": real}

    def __post_init__(self) -> None:
        if not 0 < self.range < math.inf:
            raise ValueError(f"range must be a positive number, got {self.range!r}")

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the range and the signs."""
        with np.errstate(over="ignore"):
            reach = np.array([self.range]).astype(x.dtype)
        require_finite(reach, "range")
        few_roundings = 1 + 8 * np.finfo(x.dtype).eps
        if not twin("natural").largest_magnitude(x) <= float(reach[0]) * few_roundings:
            position = int(np.argmax(np.abs(x) > reach[0] * few_roundings))
            raise ValueError(
                f"compress: x[{position}] is {x[position]}, outside of the range {reach[0]}"
            )
        offsets = blocks.equal_blocks(x.size, 0)
        clipped, key = np.clip(x, -reach[0], reach[0]), draw.key(_DITHER)
        return [reach, twin("affine").uniform_pack(clipped, reach, offsets, 1, 1, key)]

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the range and that there is a sign for every coordinate."""
        reader = Reader(packet, cls.name)
        reach = reader.scales(1, packet.dtype, "range")
        packed = reader.codes(packet.dim, 1)
        reader.done()
        return Points(packed, reach, 1, blocks.Blocks(packet.dim), 1)

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the signs."""
        return packet.dim, 1

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``randsign`` with its range."""
        reader = Reader(packet, cls.name)
        reach = float(reader.scales(1, packet.dtype, "range")[0])
        if not reach > 0:
            raise reader.error("the range is zero")
        return cls(reach).spec

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return that it is unbiased, and its bits; the error is absolute."""
        del cohort
        return Traits(True, None, None, None, 32.0 + 8 * packed_bytes(dim, 1))
