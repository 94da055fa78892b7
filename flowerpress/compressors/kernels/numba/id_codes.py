"""Varint and Rice codes of gaps, compiled. Decoders return False for a code that is not right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.intrinsics import eight_bytes, ones, trailing_zeros
from flowerpress.compressors.kernels.numba.jit import jit

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
    if unary.size and unary[-1] == 0:
        return False
    _read_low(low, p, gaps)
    limit = np.int64(1) << np.int64(32 - p)
    found, last, most = np.int64(0), np.int64(-1), np.int64(0)
    for first in range(0, unary.size, 8):
        word = _eight_or_fewer(unary, first)
        count = np.int64(ones(word))
        if found + count > gaps.size:
            return False
        # The bits are as good as random: a branch on each would be guessed wrong half of the time.
        for i in range(found, found + count):
            at = np.int64(8) * first + np.int64(trailing_zeros(word))
            high = at - last - np.int64(1)
            most = high if high > most else most
            gaps[i] |= np.uint32(high << np.int64(p))
            word &= word - np.uint64(1)
            last = at
        found += count
    return bool(found == gaps.size and most < limit)


@jit
def _eight_or_fewer(data: U8, first: int) -> np.uint64:
    """Return eight bytes as one number, or those that are left."""
    if first + 8 <= data.size:
        return np.uint64(eight_bytes(data, first))
    word = np.uint64(0)
    for i in range(data.size - first):
        word |= np.uint64(data[first + i]) << np.uint64(8 * i)
    return word


@jit
def _read_low(low: U8, p: int, gaps: U32) -> None:
    """Read numbers of p bits, one after the other."""
    if p == 0:
        gaps[:] = np.uint32(0)
        return
    mask = np.uint64((1 << p) - 1)
    for i in range(gaps.size):
        bit = i * p  # eight bytes hold a number of up to 32 bits, wherever it starts
        word = _eight_or_fewer(low, bit >> 3)
        gaps[i] = np.uint32(np.uint64(word >> np.uint64(bit & 7)) & mask)


@jit
def places(gaps: U32, ids: U32) -> np.uint64:
    """Set `ids` to the places that `gaps` lead to; return the last, in 64 bits."""
    place = np.uint64(0)
    for i in range(gaps.size):
        place += np.uint64(gaps[i]) + np.uint64(i > 0)
        ids[i] = np.uint32(place & np.uint64(0xFFFFFFFF))
    return place
