"""Codes of b bits in 1024-blocks: numpy's half of the packing kernels.

A block holds 1024 codes in 32 lanes: code ``32 r + w`` is the r-th of lane w. A lane is a stream
of 32 b bits in b words of 32 bits, filled from the lowest bit; word j of lane w is word
``32 j + w`` of the block. So 32 lanes are packed at once with the same shifts, by vector
instructions on a CPU or by plain array operations. The codes left after the last whole block follow
as one bit stream, lowest bit first, padded with zeros to a byte.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]

BLOCK = 1024
LANES = 32
# Blocks worked on at once: temporaries stay in the cache.
PIECE = 64


def packed_bytes(count: int, width: int) -> int:
    """Return the bytes that `count` codes of `width` bits take.

    >>> packed_bytes(1024, 3), packed_bytes(1025, 3), packed_bytes(5, 4)
    (384, 385, 3)
    """
    blocks, rest = divmod(count, BLOCK)
    return blocks * LANES * 4 * width + (rest * width + 7) // 8


def cut(packed: U8, start: int, stop: int, width: int) -> U8:
    """Return the packed codes from `start`, a multiple of 1024, to `stop`: another, or the end.

    >>> cut(pack(np.arange(1030, dtype=np.uint32) % 4, 2), 1024, 1030, 2)
    array([228,   4], dtype=uint8)
    """
    return packed[packed_bytes(start, width) : packed_bytes(stop, width)]


def pieces(count: int) -> Iterable[tuple[int, int]]:
    """Split `count` coordinates into ranges of `PIECE` blocks; the last may be shorter."""
    step = PIECE * BLOCK
    if count <= step:  # mostly: a generator would take longer than what is done with it
        return ((0, count),) if count else ()
    return ((start, min(start + step, count)) for start in range(0, count, step))


def pack(codes: U32, width: int) -> U8:
    """Pack codes below ``2**width``, ``1 <= width <= 32``.

    >>> pack(np.array([1, 0, 3], dtype=np.uint32), 2)
    array([49], dtype=uint8)
    """
    whole = codes.size // BLOCK * BLOCK
    rows = codes[:whole].reshape(-1, LANES, LANES)
    packed = np.zeros((rows.shape[0], width, LANES), dtype=np.uint32)
    for row in range(LANES):
        word, shift = divmod(row * width, 32)
        packed[:, word] |= rows[:, row] << np.uint32(shift)
        if shift + width > 32:
            packed[:, word + 1] |= rows[:, row] >> np.uint32(32 - shift)
    return np.concatenate([packed.reshape(-1).view(np.uint8), pack_stream(codes[whole:], width)])


def unpack(packed: U8, count: int, width: int) -> U32:
    """Return the `count` codes that `pack` packed."""
    blocks = count // BLOCK
    cut = blocks * LANES * 4 * width
    lanes = packed[:cut].view(np.uint32).reshape(blocks, width, LANES)
    codes = np.empty((blocks, LANES, LANES), dtype=np.uint32)
    mask = np.uint32((1 << width) - 1)
    for row in range(LANES):
        word, shift = divmod(row * width, 32)
        code: U32 = lanes[:, word] >> np.uint32(shift)
        if shift + width > 32:
            code |= lanes[:, word + 1] << np.uint32(32 - shift)
        codes[:, row] = code & mask
    rest = unpack_stream(packed[cut:], count - blocks * BLOCK, width)
    return np.concatenate([codes.reshape(-1), rest])


def pack_stream(codes: U32, width: int) -> U8:
    """Pack codes one after the other, lowest bit first, padded with zeros to a byte."""
    shifts = np.arange(width, dtype=np.uint32)
    bits = (codes[:, None] >> shifts) & np.uint32(1)
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little")


def unpack_stream(packed: U8, count: int, width: int) -> U32:
    """Return the `count` codes that `pack_stream` packed."""
    bits = np.unpackbits(packed, bitorder="little", count=count * width).astype(np.uint32)
    shifts = np.arange(width, dtype=np.uint32)
    # Summing distinct powers of two is a bitwise or; the dtype keeps the sum in 32 bits.
    codes: U32 = (bits.reshape(count, width) << shifts).sum(axis=1, dtype=np.uint32)
    return codes
