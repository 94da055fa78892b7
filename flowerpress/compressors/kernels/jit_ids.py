"""Varint and Rice codes of gaps, compiled. Decoders return False for a code that is not right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.jit import jit

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
    limit = 1 << (32 - p)
    # The bits are as good as random: a branch on each would be guessed wrong half of the time. So
    # the count is written for every bit, to a place that moves on after a one.
    found, skipped, most = np.int64(0), np.int64(0), np.int64(0)
    highs = np.empty(gaps.size + 8, dtype=np.int64)
    for at in range(unary.size):
        if found > gaps.size:
            return False
        byte = np.int64(unary[at])
        for bit in range(8):
            one = (byte >> bit) & 1
            highs[found] = skipped
            found += one
            skipped = (skipped + 1) & (one - 1)
    if found != gaps.size:
        return False
    for i in range(gaps.size):
        most = highs[i] if highs[i] > most else most
        gaps[i] |= np.uint32(highs[i] << p)
    return bool(most < limit)


@jit
def _read_low(low: U8, p: int, gaps: U32) -> None:
    """Read numbers of p bits, one after the other."""
    if p == 0:
        gaps[:] = np.uint32(0)
        return
    mask = np.uint32((1 << p) - 1)
    # Four bytes hold any number of up to 25 bits, wherever it starts.
    quick = min(gaps.size, max(0, (low.size - 4) * 8 // p)) if p <= 25 else 0
    for i in range(quick):
        bit = i * p
        at = bit >> 3
        word = np.uint32(low[at]) | (np.uint32(low[at + 1]) << np.uint32(8))
        word |= np.uint32(low[at + 2]) << np.uint32(16)
        word |= np.uint32(low[at + 3]) << np.uint32(24)
        gaps[i] = np.uint32(np.uint32(word >> np.uint32(bit & 7)) & mask)
    held, bits, at = np.uint64(0), 0, (quick * p) >> 3
    if quick * p & 7:
        held = np.uint64(low[at]) >> np.uint64(quick * p & 7)
        bits = 8 - (quick * p & 7)
        at += 1
    for i in range(quick, gaps.size):
        while bits < p:
            held |= np.uint64(low[at]) << np.uint64(bits)
            bits += 8
            at += 1
        gaps[i] = np.uint32(held & np.uint64(mask))
        held >>= np.uint64(p)
        bits -= p


@jit
def places(gaps: U32, ids: U32) -> np.uint64:
    """Set `ids` to the places that `gaps` lead to; return the last, in 64 bits."""
    place = np.uint64(0)
    for i in range(gaps.size):
        place += np.uint64(gaps[i]) + np.uint64(i > 0)
        ids[i] = np.uint32(place & np.uint64(0xFFFFFFFF))
    return place
