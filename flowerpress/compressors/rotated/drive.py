"""DRIVE: the signs of a rotated vector."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.composed.chain import Expanded
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import require_one_of
from flowerpress.compressors.kernels import kernels
from flowerpress.compressors.kernels.packing import packed_bytes
from flowerpress.compressors.quantized import blocks
from flowerpress.compressors.quantized.blocks import Blocks
from flowerpress.compressors.quantized.sign import Signs
from flowerpress.compressors.rotated.rotation import Rotation, edges
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, require_finite

SCALES = ("unbiased", "biased")
_SIGNS = 41  # purpose of the key

# Two words of the key, the scale, three zero bytes.
_HEAD = struct.Struct("<IIB3s")


@dataclass(frozen=True)
class Drive(Compressor):
    """Rotate at random, send the signs and one scale for each block of 8192.

    (Vargaftik et al., "DRIVE: one-bit distributed mean estimation", NeurIPS 2021). Each sender
    rotates its own way, so that errors average out over senders.

    Parameters
    ----------
    scale : {"unbiased", "biased"}, default "unbiased"
        With z a rotated block of n values. unbiased: ``|z|_2^2 / |z|_1``, which has no bias for
        rotations drawn uniformly, and a relative error of ``pi / 2 - 1 = 0.571`` in large blocks.
        The Hadamard rotation used here has a bias that vanishes as values even out in a block, but
        is not zero: no ``omega`` is stated. biased: ``|z|_1 / n``, the smallest error,
        ``1 - 2 / pi = 0.363`` in large blocks and on average at most 1/2 for every vector, since
        ``E |z_i| >= |x|_2 / sqrt(2 n)`` for random signs (Szarek, "On the best constants in the
        Khinchin inequality", 1976). So ``alpha = 1 / 2``.

    Raises
    ------
    ValueError
        If `scale` is neither, or a rotated value overflows the dtype in `compress`.

    Examples
    --------
    >>> from flowerpress.compressors import decompress
    >>> packet = Drive().compress(np.array([0.0, 5.0, 0.0, 0.0], dtype=np.float32))
    >>> packet.nbytes, decompress(packet)
    (41, array([0., 5., 0., 0.], dtype=float32))
    """

    scale: str = "unbiased"

    name: ClassVar[str] = "drive"
    codec: ClassVar[int] = 21
    reading_work: ClassVar[float] = 1.5
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {"scale": str}

    def __post_init__(self) -> None:
        require_one_of("scale", self.scale, SCALES)

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the key, the scales and the signs."""
        key = draw.key(_SIGNS)
        rotated = Rotation(key, x.size).apply(x)
        require_finite(rotated, "the rotated value")
        head = _HEAD.pack(*key, SCALES.index(self.scale), bytes(3))
        return [head, self._scales(rotated), kernels().sign_pack(rotated)]

    def _scales(self, rotated: Vector) -> Vector:
        offsets = edges(rotated.size)
        means = blocks.mean_magnitudes(rotated, offsets)
        if self.scale == "biased":
            return means
        roots = blocks.root_mean_squares(rotated, offsets)
        ratios = np.divide(roots, means, out=np.zeros_like(means), where=means > 0)
        with np.errstate(over="ignore", under="ignore"):
            scales: Vector = roots * ratios
        require_finite(scales, "the scale of block")
        return scales

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the scales and the length of the signs."""
        reader = Reader(packet, cls.name)
        key, _ = _read_head(reader)
        if packet.dim > 8 * reader.left:  # before the edges take memory
            raise reader.error(f"{packet.dim} codes do not fit {reader.left} bytes")
        offsets = edges(packet.dim)
        scales = reader.scales(offsets.size - 1, packet.dtype, "scale")
        packed = reader.codes(packet.dim, 1)
        reader.done()
        inner = Signs(packed, scales, Blocks(packet.dim, listed=offsets))
        return Expanded(inner, Rotation(key, packet.dim), packet.dtype, packet.dim)

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the signs."""
        return packet.dim, 1

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``drive`` with its scale."""
        _, scale = _read_head(Reader(packet, cls.name))
        return cls(scale).spec

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants: alpha, if the scale is the biased one."""
        # A single coordinate keeps its magnitude and its sign.
        alpha = (0.5 if dim > 1 else 1.0) if self.scale == "biased" or dim == 1 else None
        bits = 8.0 * (_HEAD.size + packed_bytes(dim, 1)) + 32 * (edges(dim).size - 1)
        return Traits(False, None, alpha, None, bits)


def _read_head(reader: Reader) -> tuple[tuple[int, int], str]:
    k0, k1, scale, spare = reader.unpack(_HEAD)
    if scale >= len(SCALES):
        raise reader.error(f"scale {scale} is not known; known are 0 (unbiased) and 1 (biased)")
    if spare != bytes(3):
        raise reader.error("bytes 9 to 11 must be zero")
    return (k0, k1), SCALES[scale]
