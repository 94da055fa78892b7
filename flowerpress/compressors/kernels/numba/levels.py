"""Kernels that round coordinates to levels of a norm at random, and add levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.blocks import chunk_sum, quick_norm
from flowerpress.compressors.kernels.numba.jit import (
    WEYL,
    block_keys,
    empty_words,
    first_word,
    jit,
    second_word,
    state,
)
from flowerpress.compressors.kernels.numba.packing import (
    pack_block,
    pack_rest,
    unpack_block,
    unpack_rest,
)
from flowerpress.compressors.kernels.rounding import SCALED_UP, TINY_NORM

Floats = npt.NDArray[np.floating[Any]]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]

BLOCK = 1024
LANES = 32
HALF = BLOCK // 2
SHORT = 32  # coordinates of a block below which a call for it takes longer than its work


@jit
def rounding_words(k0: np.uint32, k1: np.uint32, block: int, words: U32) -> None:
    """Set 1024 `words` to random words for roundings; see `philox.rounding_words`."""
    b0, b1 = block_keys(k0, k1, block)
    for i in range(HALF):
        x = state(WEYL[i], b0, b1)
        words[i], words[i + HALF] = first_word(x), second_word(x)


@jit
def _round_32(x: Floats, norm: Any, levels: int, digits: np.uint32, words: U32, codes: U32) -> None:
    """Round float32 coordinates of one norm; see `kernels.rounding`."""
    lift = np.float32(SCALED_UP) if norm < np.float32(TINY_NORM) else np.float32(1)
    middle = np.uint32(np.int64(levels) << np.int64(digits))
    top = np.float32(middle)
    factor = np.float32(top / np.float32(norm * lift))
    left = np.uint32(np.uint32(32) - digits)
    for i in range(x.size):
        scaled = np.float32(np.float32(x[i] * lift) * factor)
        scaled = scaled if scaled < top else top
        scaled = scaled if scaled > -top else -top
        # The masks show the compiler that the shifts may be done in 32 bits.
        dither = np.uint32(middle + np.uint32(words[i] >> (left & np.uint32(31))))
        fixed = np.uint32(np.uint32(np.int32(scaled)) + dither)
        codes[i] = np.uint32(fixed >> (digits & np.uint32(31)))


@jit
def _round_64(x: Floats, norm: Any, levels: int, words: U32, codes: U32) -> None:
    """Round float64 coordinates of one norm."""
    top, middle = np.float64(levels), np.int32(levels)
    for i in range(x.size):
        dither = (np.float64(words[i]) * 2.0 + 1.0) * 2.0**-33
        scaled = abs(x[i]) / norm * top
        scaled = scaled if scaled < top else top
        level = np.int32(scaled)
        up = np.int32(1) if dither < scaled - np.float64(level) else np.int32(0)
        level = np.int32(level + up)
        signed = np.int32(-level) if x[i] < 0 else level
        codes[i] = np.uint32(np.int32(signed + middle))


@jit
def _round_part(
    x: Floats, norm: Any, levels: int, digits: np.uint32, words: U32, codes: U32
) -> None:
    if not norm > 0:
        codes[:] = np.uint32(levels)
    elif x.itemsize == 4:
        _round_32(x, norm, levels, digits, words, codes)
    else:
        _round_64(x, norm, levels, words, codes)


@jit
def levels_pack(
    x: Floats,
    norms: Floats,
    offsets: I64,
    levels: int,
    width: int,
    digits: np.uint32,
    k0: np.uint32,
    k1: np.uint32,
    packed: U32,
    rest: U8,
) -> None:
    """Round each coordinate to a level of its block's norm and pack the codes."""
    codes, words = empty_words(BLOCK), empty_words(BLOCK)
    owner = 0
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        rounding_words(k0, k1, start // BLOCK, words)
        at = start
        while at < stop:
            end = min(stop, offsets[owner + 1])
            a, b = at - start, end - start
            _round_part(x[at:end], norms[owner], levels, digits, words[a:b], codes[a:b])
            at = end
            owner += at == offsets[owner + 1]
        _pack(codes, start, stop, width, packed, rest)


@jit
def norm_levels_pack(
    x: Floats,
    bucket: int,
    levels: int,
    width: int,
    digits: np.uint32,
    k0: np.uint32,
    k1: np.uint32,
    norms: Floats,
    packed: U32,
    rest: U8,
) -> None:
    """Find the norm of each bucket, whose size divides 1024, and round and pack as it passes."""
    codes, words = empty_words(BLOCK), empty_words(BLOCK)
    lanes = empty_words(2 * LANES).view(np.float64)
    lanes_32 = empty_words(LANES).view(np.float32)
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        first = start // bucket
        for at in range(start, stop, bucket):
            norms[at // bucket] = quick_norm(x[at : min(at + bucket, stop)], lanes, lanes_32)
        # In between, so that the processor has work while the last norm's additions finish.
        rounding_words(k0, k1, start // BLOCK, words)
        for a in range(0, stop - start, bucket):
            b = min(a + bucket, stop - start)
            norm = norms[first + a // bucket]
            _round_part(x[start + a : start + b], norm, levels, digits, words[a:b], codes[a:b])
        _pack(codes, start, stop, width, packed, rest)


@jit
def _pack(codes: U32, start: int, stop: int, width: int, packed: U32, rest: U8) -> None:
    if stop - start == BLOCK:
        first = start // LANES * width
        pack_block(codes, packed[first : first + LANES * width], width)
    else:
        pack_rest(codes, stop - start, width, rest)


@jit
def _unpack(packed: U32, rest: U8, start: int, stop: int, width: int, codes: U32) -> None:
    if stop - start == BLOCK:
        first = start // LANES * width
        unpack_block(packed[first : first + LANES * width], width, codes)
    else:
        unpack_rest(rest, stop - start, width, codes)


@jit
def _has_all_ones(words: U32, width: int) -> bool:
    """Return whether a code of 1, 2, 4, 8 or 16 bits has all its bits set."""
    lowest = np.uint32(0xFFFFFFFF) // np.uint32((1 << width) - 1)
    found = np.uint32(0)
    for i in range(words.size):
        word = words[i]
        if width > 1:
            word = np.uint32(word & np.uint32(word >> np.uint32(1)))
        if width > 2:
            word = np.uint32(word & np.uint32(word >> np.uint32(2)))
        if width > 4:
            word = np.uint32(word & np.uint32(word >> np.uint32(4)))
        if width > 8:
            word = np.uint32(word & np.uint32(word >> np.uint32(8)))
        found |= np.uint32(word & lowest)
    return bool(found != 0)


@jit
def code_above(packed: U32, rest: U8, count: int, width: int, top: np.uint32) -> int:
    """Return the place of the first code above `top`, or -1."""
    codes = empty_words(BLOCK)
    only_ones = 32 % width == 0 and width <= 16 and top == (1 << width) - 2
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        if only_ones and stop - start == BLOCK:
            first = start // LANES * width
            if not _has_all_ones(packed[first : first + LANES * width], width):
                continue
        _unpack(packed, rest, start, stop, width, codes)
        largest = np.uint32(0)
        for i in range(stop - start):
            largest = codes[i] if codes[i] > largest else largest
        if largest > top:
            for i in range(stop - start):
                if codes[i] > top:
                    return start + i
    return -1


@jit
def _add_short(
    codes: U32, place: int, step: Any, middle: np.int32, out: Floats, at: int, end: int
) -> None:
    """Do as `_add_levels` with the codes from `place` on and ``out[at:end]``, without views."""
    if out.itemsize == 4:
        for i in range(at, end):
            level = np.int32(np.int32(codes[place + i - at]) - middle)
            out[i] += step * np.float32(level)
    else:
        for i in range(at, end):
            level = np.int32(np.int32(codes[place + i - at]) - middle)
            out[i] += step * np.float64(level)


@jit
def _add_levels(codes: U32, step: Any, middle: np.int32, out: Floats) -> None:
    if out.itemsize == 4:
        for i in range(out.size):
            out[i] += step * np.float32(np.int32(np.int32(codes[i]) - middle))
    else:
        for i in range(out.size):
            out[i] += step * np.float64(np.int32(np.int32(codes[i]) - middle))


@jit
def levels_add(
    packed: U32, rest: U8, steps: Floats, offsets: I64, levels: int, width: int, out: Floats
) -> None:
    """Add the step of its block, times the signed level, to each coordinate."""
    codes = empty_words(BLOCK)
    owner = 0
    for start in range(0, out.size, BLOCK):
        stop = min(start + BLOCK, out.size)
        _unpack(packed, rest, start, stop, width, codes)
        at = start
        while at < stop:
            end = min(stop, offsets[owner + 1])
            if end - at < SHORT:
                _add_short(codes, at - start, steps[owner], np.int32(levels), out, at, end)
            else:
                part = codes[at - start : end - start]
                _add_levels(part, steps[owner], np.int32(levels), out[at:end])
            at = end
            owner += at == offsets[owner + 1]


@jit
def _set_levels(codes: U32, step: Any, middle: np.int32, values: Floats) -> None:
    if values.itemsize == 4:
        for i in range(values.size):
            values[i] = step * np.float32(np.int32(np.int32(codes[i]) - middle))
    else:
        for i in range(values.size):
            values[i] = step * np.float64(np.int32(np.int32(codes[i]) - middle))


@jit
def levels_squares(
    packed: U32, rest: U8, steps: Floats, offsets: I64, levels: int, width: int, sums: F64
) -> None:
    """Sum the squares of each 1024 of the numbers that `levels_add` adds to zeros."""
    codes = empty_words(BLOCK)
    values = empty_words(2 * BLOCK).view(steps.dtype)
    lanes = empty_words(2 * LANES).view(np.float64)
    count = offsets[-1]
    owner = 0
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        _unpack(packed, rest, start, stop, width, codes)
        at = start
        while at < stop:
            end = min(stop, offsets[owner + 1])
            part = slice(at - start, end - start)
            _set_levels(codes[part], steps[owner], np.int32(levels), values[part])
            at = end
            owner += at == offsets[owner + 1]
        sums[start // BLOCK] = chunk_sum(values[: stop - start], True, lanes)
