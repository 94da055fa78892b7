"""EDEN: a few bits for each coordinate of a rotated vector."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.composed.chain import Expanded
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import require_one_of, require_whole, whole
from flowerpress.compressors.kernels import kernels, twin
from flowerpress.compressors.kernels.numpy.eden import CENTROIDS, spread, tables
from flowerpress.compressors.kernels.packing import U8, cut, packed_bytes
from flowerpress.compressors.kernels.sums import Offsets
from flowerpress.compressors.quantized import blocks
from flowerpress.compressors.rotated.rotation import Rotation, edges
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, require_finite, weighted
from flowerpress.compressors.wire.tensors import add_whole

SCALES = ("unbiased", "biased")
MAX_BITS = max(CENTROIDS)
_SIGNS = 42  # purpose of the key

# Two words of the key, the bits, the scale, two zero bytes.
_HEAD = struct.Struct("<IIBBH")


@dataclass(frozen=True)
class Centroids:
    """The code of each coordinate's centroid, and the scale of each block."""

    packed: U8
    scales: Vector
    offsets: Offsets
    bits: int

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * scale * centroid``."""
        centroids, _ = tables(self.bits, out.dtype)
        terms = weighted(self.scales, weight, out.dtype)
        weighted(terms, float(centroids[-1]), out.dtype)  # refuses what overflows
        add = twin("eden").centroids_add
        add(self.packed, terms, self.offsets, centroids, self.bits, out)

    def add_to_tensor(self, out: Any, weight: float) -> None:
        """Do that on a tensor; a centroid above 1 may overflow, so not in pieces."""
        add_whole(self, out, weight)

    def part(self, start: int, stop: int) -> Centroids:
        """Return the numbers from `start`, a multiple of 1024, to `stop`."""
        count = int(self.offsets[-1])
        part, which = blocks.Blocks(count, listed=self.offsets).part(start, stop)
        edges = self.offsets if part.listed is None else part.listed
        packed = cut(self.packed, start, stop, self.bits)
        return Centroids(packed, self.scales[which], edges, self.bits)


@dataclass(frozen=True)
class Eden(Compressor):
    """Rotate at random, send the nearest of 2^b fixed centroids of a normal distribution.

    (Vargaftik et al., "EDEN: communication-efficient and robust distributed mean estimation for
    federated learning", ICML 2022). Each sender rotates its own way, so errors average out. One
    scale for each block of 8192 goes along.

    Parameters
    ----------
    bits : int, default 2
        Bits of a coordinate, 1 to 6. The relative error in large blocks is near 0.571, 0.133,
        0.0358, 0.00959, 0.00251, 0.000645 with the unbiased scale.
    scale : {"unbiased", "biased"}, default "unbiased"
        With z a rotated block and q its centroids. unbiased: ``|z|_2^2 / <z, q>``, which has no
        bias for rotations drawn uniformly; that of the Hadamard rotation used here is small but not
        zero, so no ``omega`` is stated. biased: ``<z, q> / |q|_2^2``, the smallest error; with c
        and C the smallest and the largest centroid,
        ``<z, q>^2 / |q|^2 >= (c / C)^2 |z|_1^2 / n``, hence ``alpha = (c / C)^2 / 2`` as for
        ``drive``; far from what is usual.

    Raises
    ------
    ValueError
        If a parameter is out of range, or a scaled value overflows the dtype in `compress`.

    Examples
    --------
    >>> from flowerpress.compressors import decompress
    >>> packet = Eden(bits=3).compress(np.array([0.0, 5.0, 0.0, 0.0]))
    >>> packet.nbytes, decompress(packet)
    (46, array([0., 5., 0., 0.]))
    """

    bits: int = 2
    scale: str = "unbiased"

    name: ClassVar[str] = "eden"
    codec: ClassVar[int] = 22
    reading_work: ClassVar[float] = 1.5
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {"bits": whole, "scale": str}

    def __post_init__(self) -> None:
        require_whole("bits", self.bits, 1, MAX_BITS)
        require_one_of("scale", self.scale, SCALES)

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the key, the scales and the codes."""
        key = draw.key(_SIGNS)
        z = Rotation(key, x.size).apply(x)
        require_finite(z, "the rotated value")
        offsets = edges(x.size)
        roots = blocks.root_mean_squares(z, offsets)
        centroids, between = tables(self.bits, x.dtype)
        codes = twin("eden").nearest(z, roots, offsets, between)
        scales = self._scales(z, centroids[codes], roots, offsets)
        with np.errstate(over="ignore"):
            require_finite(scales * centroids[-1], "the scale of block")
        head = _HEAD.pack(*key, self.bits, SCALES.index(self.scale), 0)
        return [head, scales, twin("symbols").pack(codes, self.bits)]

    def _scales(self, z: Vector, q: Vector, roots: Vector, offsets: Offsets) -> Vector:
        """Return the scale of each block; all sums are of magnitudes, as z and q agree in sign."""
        root = spread(roots, offsets, 0, z.size)
        share = np.divide(z, root, out=np.zeros_like(z), where=root > 0)
        products = kernels().block_sums(share * q, offsets, False)
        if self.scale == "unbiased":
            squares = kernels().block_sums(share, offsets, True)
            factors = np.divide(squares, products, out=np.zeros_like(products), where=products > 0)
        else:
            factors = products / kernels().block_sums(q, offsets, True)
        with np.errstate(over="ignore", under="ignore"):
            scales: Vector = (roots * factors).astype(z.dtype)
        return scales

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the scales and the length of the codes."""
        reader = Reader(packet, cls.name)
        key, bits, _ = _read_head(reader)
        if packet.dim > 8 * reader.left:  # before the edges take memory
            raise reader.error(f"{packet.dim} codes do not fit {reader.left} bytes")
        offsets = edges(packet.dim)
        scales = reader.scales(offsets.size - 1, packet.dtype, "scale")
        packed = reader.codes(packet.dim, bits)
        reader.done()
        inner = Centroids(packed, scales, offsets, bits)
        return Expanded(inner, Rotation(key, packet.dim), packet.dtype, packet.dim)

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the centroids' codes."""
        _, bits, _ = _read_head(Reader(packet, cls.name))
        return packet.dim, bits

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``eden`` with its bits and scale."""
        _, bits, scale = _read_head(Reader(packet, cls.name))
        return cls(bits, scale).spec

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants: alpha, if the scale is the biased one."""
        half = CENTROIDS[self.bits]
        alpha = (half[0] / half[-1]) ** 2 / 2 if self.scale == "biased" else None
        count = edges(dim).size - 1
        bits = 8.0 * (_HEAD.size + packed_bytes(dim, self.bits)) + 32 * count
        return Traits(False, None, alpha, None, bits)


def _read_head(reader: Reader) -> tuple[tuple[int, int], int, str]:
    k0, k1, bits, scale, spare = reader.unpack(_HEAD)
    if not 1 <= bits <= MAX_BITS:
        raise reader.error(f"bits is {bits}, must be in [1, {MAX_BITS}]")
    if scale >= len(SCALES):
        raise reader.error(f"scale {scale} is not known; known are 0 (unbiased) and 1 (biased)")
    if spare:
        raise reader.error("bytes 10 and 11 must be zero")
    return (k0, k1), bits, SCALES[scale]
