"""Varint and Rice codes of gaps, compiled. Decoders return False for a code that is not right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.jit import jit
from flowerpress.compressors.kernels.jit_packing import unpack_rest

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]


@jit
def varint_encode(gaps: U32, code: U8) -> int:
    """Write groups of seven bits; return the number of bytes."""
    at = 0
    for i in range(gaps.size):
        gap = gaps[i]
        while gap >= np.uint32(0x80):
            code[at] = np.uint8((gap & np.uint32(0x7F)) | np.uint32(0x80))
            gap = np.uint32(gap >> np.uint32(7))
            at += 1
        code[at] = np.uint8(gap)
        at += 1
    return at


@jit
def varint_decode(code: U8, gaps: U32) -> bool:
    """Read all of `gaps` from all of `code`."""
    at = 0
    for i in range(gaps.size):
        value, shift = np.uint64(0), np.uint64(0)
        while True:
            if at == code.size or shift > 28:
                return False
            byte = np.uint64(code[at])
            value |= (byte & np.uint64(0x7F)) << shift
            shift += np.uint64(7)
            at += 1
            if byte < 0x80:
                break
        # A last group of zeros would be a longer form of the same value.
        if value > 0xFFFFFFFF or (shift > 7 and byte == 0):
            return False
        gaps[i] = np.uint32(value)
    return at == code.size


@jit
def rice_encode(gaps: U32, p: int, low: U8, unary: U8) -> None:
    """Write the low bits and the unary parts over zeros."""
    mask = np.uint64((1 << p) - 1)
    held, bits, at, end = np.uint64(0), 0, 0, -1
    for i in range(gaps.size):
        held |= (np.uint64(gaps[i]) & mask) << np.uint64(bits)
        bits += p
        while bits >= 8:
            low[at] = np.uint8(held & np.uint64(0xFF))
            held >>= np.uint64(8)
            bits -= 8
            at += 1
        end += 1 + int(gaps[i] >> np.uint32(p))
        unary[end >> 3] |= np.uint8(1 << (end & 7))
    if bits:
        low[at] = np.uint8(held & np.uint64(0xFF))


@jit
def rice_decode(low: U8, unary: U8, p: int, gaps: U32) -> bool:
    """Read all of `gaps` from all of `low` and `unary`."""
    spare = gaps.size * p % 8
    if spare and low[-1] >> spare:
        return False
    if p:
        unpack_rest(low, gaps.size, p, gaps)
    else:
        gaps[:] = np.uint32(0)
    limit = 1 << (32 - p)
    found, skipped = 0, 0
    for at in range(unary.size):
        byte = unary[at]
        if byte == 0 and at == unary.size - 1:
            return False
        for bit in range(8):
            if (byte >> bit) & 1:
                if found == gaps.size or skipped >= limit:
                    return False
                gaps[found] |= np.uint32(skipped << p)
                found += 1
                skipped = 0
            else:
                skipped += 1
    return found == gaps.size
