"""Scaled sign: one bit for each coordinate, one scale for each block."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector, refuse_nonfinite
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import require_one_of, require_whole, whole
from flowerpress.compressors.kernels import kernels, kernels_of
from flowerpress.compressors.kernels.packing import U8, packed_bytes
from flowerpress.compressors.kernels.sums import Offsets
from flowerpress.compressors.kernels.threads import in_threads
from flowerpress.compressors.quantized import blocks
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, require_weighted, weighted

SCALES = ("l1", "l2")
_EQUAL, _LISTED = range(2)
# Steps for a block, beside those for its coordinates; more where its size is listed.
_BLOCK_WORK, _LISTED_WORK = 13.0, 2.0

# Scale, kind of blocks, two zero bytes; the blocks' size, or their number when sizes are listed.
_HEAD = struct.Struct("<BBHI")


@dataclass(frozen=True)
class Signs:
    """Signs and the scale of each block."""

    packed: U8
    scales: Vector
    blocks: blocks.Blocks

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * scale * sign``."""
        require_weighted(self.scales, weight, out.dtype)

        def add(segment: blocks.Segment) -> None:
            start, stop, first, last, offsets = segment
            packed = self.packed[packed_bytes(start, 1) : packed_bytes(stop, 1)]
            terms = weighted(self.scales[first:last], weight, out.dtype)
            kernels().sign_add(packed, terms, offsets, out[start:stop])

        in_threads(add, self.blocks.segments(), self.blocks.dim)


def _block(text: str) -> int | str:
    return text if text == "tensor" else whole(text)


@dataclass(frozen=True)
class Sign(Compressor):
    """Send the sign of each coordinate and one scale for each block; the sign of zero is +.

    Parameters
    ----------
    scale : {"l1", "l2"}, default "l1"
        l1: ``|x|_1 / n``, the best scale, with error ``|x|^2 - |x|_1^2 / n`` and so
        ``alpha = 1 / n`` (Karimireddy et al., "Error feedback fixes SignSGD", ICML 2019).
        l2: ``|x|_2 / sqrt(n)``, which keeps the norm (Tang et al., "1-bit Adam", ICML 2021), with
        error ``2 |x|^2 - 2 |x|_2 |x|_1 / sqrt(n)``: contractive only for blocks of n < 4.
    block : int or "tensor", default 0
        Coordinates that share a scale: 0 for all, a size, or one block for each tensor; the last
        needs the tensors' sizes from :meth:`bind`.
    sizes : tuple of int
        The tensors' sizes, set by :meth:`bind`; not part of the spec.

    Raises
    ------
    ValueError
        If a parameter is not one of these.

    Examples
    --------
    >>> packet = Sign().compress(np.array([1.0, -3.0], dtype=np.float32))
    >>> packet.payload.hex(" ", -4)
    '00000000 00000000 00000040 01'
    """

    scale: str = "l1"
    block: int | str = 0
    sizes: tuple[int, ...] = ()

    name: ClassVar[str] = "sign"
    codec: ClassVar[int] = 4
    finds_nonfinite: ClassVar[bool] = True
    torch_kernels: ClassVar[bool] = True
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {"scale": str, "block": _block}

    def __post_init__(self) -> None:
        require_one_of("scale", self.scale, SCALES)
        if self.block != "tensor":
            if isinstance(self.block, str):
                raise ValueError(f"block must be 0, a size or 'tensor', got {self.block!r}")
            require_whole("block", self.block, 0, (1 << 32) - 1)
        for size in self.sizes:
            require_whole("a tensor's size", size, 1)

    def bind(self, sizes: Sequence[int]) -> Compressor:
        """Return the compressor with the tensors' sizes, if blocks are tensors; empty ones go."""
        if self.block != "tensor":
            return self
        return Sign(self.scale, self.block, tuple(int(size) for size in sizes if size))

    def _offsets(self, dim: int) -> Offsets:
        if isinstance(self.block, int):
            return blocks.equal_blocks(dim, self.block)
        if not self.sizes:
            raise ValueError("sign:block=tensor needs the tensors' sizes: call bind(sizes) first")
        if sum(self.sizes) != dim:
            raise ValueError(f"bound to tensors of {sum(self.sizes)} coordinates, got {dim}")
        return np.cumsum((0, *self.sizes), dtype=np.int64)

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the blocks, their scales and the signs."""
        del draw
        offsets = self._offsets(x.size)
        scales, packed = self._scales_and_signs(x, offsets)
        scale = SCALES.index(self.scale)
        if isinstance(self.block, int):
            head = [_HEAD.pack(scale, _EQUAL, 0, self.block)]
        else:
            listed = np.diff(offsets).astype("<u4").tobytes()
            head = [_HEAD.pack(scale, _LISTED, 0, len(self.sizes)), listed]
        return [*head, scales, packed]

    def _scales_and_signs(self, x: Vector, offsets: Offsets) -> tuple[Vector, U8]:
        square = self.scale == "l2"
        if x.dtype == np.float32 and blocks.start_aligned(offsets):  # one pass does both
            sums, packed = kernels_of(x).sign_pack_with_sums(x, offsets, square)
            means = sums / (offsets[1:] - offsets[:-1])
            scales = (np.sqrt(means) if square else means).astype(x.dtype)
        else:
            measure = blocks.root_mean_squares if square else blocks.mean_magnitudes
            if x.dtype != np.float32:  # a float32 shows in its block's sum
                refuse_nonfinite(x)
            scales, packed = measure(x, offsets), kernels_of(x).sign_pack(x)
        if not np.isfinite(scales).all():
            refuse_nonfinite(x)
        return scales, packed

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the blocks, the scales and the length of the signs."""
        reader = Reader(packet, cls.name)
        _, kind, size = _read_head(reader)
        # Blocks of one coordinate are the most there can be; more would take unsent memory.
        if kind == _EQUAL:
            count = -(-packet.dim // size) if size else 1
            if count * packet.dtype.itemsize > reader.left:
                raise reader.error(f"{count} scales do not fit {reader.left} bytes")
            listed = None
        else:
            count, size = size, 0
            listed = _edges(reader, count, packet.dim)
        budget.charge(_BLOCK_WORK * count)
        scales = reader.scales(count, packet.dtype, "scale")
        packed = reader.codes(packet.dim, 1)
        reader.done()
        return Signs(packed, scales, blocks.Blocks(packet.dim, size, listed))

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return the spec; sizes that are listed read ``block=tensor``."""
        scale, kind, size = _read_head(Reader(packet, cls.name))
        return cls(scale, size if kind == _EQUAL else "tensor").spec

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants, those of the largest block."""
        del cohort
        offsets = self._offsets(dim)
        n = int(np.diff(offsets).max())
        # The worst case is a one-hot block, for both scales.
        alpha = 1 / n if self.scale == "l1" else 2 / math.sqrt(n) - 1
        count = offsets.size - 1
        listed = 0 if isinstance(self.block, int) else 32 * count
        bits = 8.0 * (_HEAD.size + packed_bytes(dim, 1)) + 32 * count + listed
        return Traits(False, None, alpha if alpha > 0 else None, None, bits)


def _edges(reader: Reader, count: int, dim: int) -> Offsets:
    """Read the sizes of listed blocks."""
    sizes = reader.array(count, np.dtype("<u4"), "sizes")
    budget.charge(_LISTED_WORK * count)
    budget.hold(8 * (count + 1))
    edges = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(sizes, dtype=np.int64, out=edges[1:])
    if not count or not sizes.all() or edges[-1] != dim:
        raise reader.error(f"the blocks' sizes do not make up {dim} coordinates")
    return edges


def _read_head(reader: Reader) -> tuple[str, int, int]:
    scale, kind, spare, size = reader.unpack(_HEAD)
    if scale >= len(SCALES):
        raise reader.error(f"scale {scale} is not known; known are 0 (l1) and 1 (l2)")
    if kind not in (_EQUAL, _LISTED):
        raise reader.error(f"blocks of kind {kind} are not known; known are 0 and 1")
    if spare:
        raise reader.error("bytes 2 and 3 must be zero")
    return SCALES[scale], kind, size
