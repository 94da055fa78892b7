"""Packing of codes inside compiled kernels; the layout is that of `kernels.packing`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.generated import pack_lanes, unpack_lanes
from flowerpress.compressors.kernels.numba.jit import jit

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]

LANES = 32


@jit
def pack_block(codes: U32, packed: U32, width: int) -> None:
    """Pack 1024 codes into ``32 * width`` words."""
    if width == 1:
        pack_lanes.pack_1(codes, packed)
    elif width == 2:
        pack_lanes.pack_2(codes, packed)
    elif width == 3:
        pack_lanes.pack_3(codes, packed)
    elif width == 4:
        pack_lanes.pack_4(codes, packed)
    elif width == 5:
        pack_lanes.pack_5(codes, packed)
    elif width == 6:
        pack_lanes.pack_6(codes, packed)
    elif width == 7:
        pack_lanes.pack_7(codes, packed)
    elif width == 8:
        pack_lanes.pack_8(codes, packed)
    else:
        _pack_wide(codes, packed, width)


@jit
def _pack_wide(codes: U32, packed: U32, width: int) -> None:
    packed[:] = np.uint32(0)
    for row in range(LANES):
        word, shift = row * width // 32, np.uint32(row * width % 32)
        source = codes[row * LANES : (row + 1) * LANES]
        target = packed[word * LANES : (word + 1) * LANES]
        for lane in range(LANES):
            target[lane] |= np.uint32(source[lane] << shift)
        if shift + width > 32:
            target = packed[(word + 1) * LANES : (word + 2) * LANES]
            spill = np.uint32(np.uint32(32) - shift)
            for lane in range(LANES):
                target[lane] |= np.uint32(source[lane] >> spill)


@jit
def unpack_block(packed: U32, width: int, codes: U32) -> None:
    """Unpack ``32 * width`` words into 1024 codes."""
    if width == 1:
        unpack_lanes.unpack_1(packed, codes)
    elif width == 2:
        unpack_lanes.unpack_2(packed, codes)
    elif width == 3:
        unpack_lanes.unpack_3(packed, codes)
    elif width == 4:
        unpack_lanes.unpack_4(packed, codes)
    elif width == 5:
        unpack_lanes.unpack_5(packed, codes)
    elif width == 6:
        unpack_lanes.unpack_6(packed, codes)
    elif width == 7:
        unpack_lanes.unpack_7(packed, codes)
    elif width == 8:
        unpack_lanes.unpack_8(packed, codes)
    else:
        _unpack_wide(packed, width, codes)


@jit
def _unpack_wide(packed: U32, width: int, codes: U32) -> None:
    mask = np.uint32((1 << width) - 1)
    for row in range(LANES):
        word, shift = row * width // 32, np.uint32(row * width % 32)
        source = packed[word * LANES : (word + 1) * LANES]
        target = codes[row * LANES : (row + 1) * LANES]
        if shift + width > 32:
            beyond = packed[(word + 1) * LANES : (word + 2) * LANES]
            spill = np.uint32(np.uint32(32) - shift)
            for lane in range(LANES):
                code = np.uint32(source[lane] >> shift) | np.uint32(beyond[lane] << spill)
                target[lane] = np.uint32(code & mask)
        else:
            for lane in range(LANES):
                target[lane] = np.uint32(np.uint32(source[lane] >> shift) & mask)


@jit
def pack_rest(codes: U32, count: int, width: int, packed: U8) -> None:
    """Pack `count` codes as one bit stream, lowest bit first."""
    held, bits, at = np.uint64(0), 0, 0
    for i in range(count):
        held |= np.uint64(codes[i]) << np.uint64(bits)
        bits += width
        while bits >= 8:
            packed[at] = np.uint8(held & np.uint64(0xFF))
            held >>= np.uint64(8)
            bits -= 8
            at += 1
    if bits:
        packed[at] = np.uint8(held & np.uint64(0xFF))


@jit
def unpack_rest(packed: U8, count: int, width: int, codes: U32) -> None:
    """Unpack `count` codes of a bit stream."""
    mask = np.uint64((1 << width) - 1)
    held, bits, at = np.uint64(0), 0, 0
    for i in range(count):
        while bits < width:
            held |= np.uint64(packed[at]) << np.uint64(bits)
            bits += 8
            at += 1
        codes[i] = np.uint32(held & mask)
        held >>= np.uint64(width)
        bits -= width
