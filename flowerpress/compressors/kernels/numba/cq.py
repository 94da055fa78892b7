"""Correlated rounding: the compiled half; see `kernels.numpy.cq`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.affine import split, store
from flowerpress.compressors.kernels.numba.jit import block_keys, empty_words, jit, mix
from flowerpress.compressors.kernels.numba.levels import rounding_words
from flowerpress.compressors.kernels.numpy import cq
from flowerpress.compressors.kernels.packing import packed_bytes
from flowerpress.compressors.kernels.scratch import scratch

Floats = npt.NDArray[np.floating[Any]]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

BLOCK = 1024
FIVE_BITS = np.uint32(31)


@jit
def _order(cohort: int, rank: int, b0: np.uint32, b1: np.uint32) -> int:
    """Return the place of `rank` after a shuffle."""
    place = np.int64(rank)
    for i in range(cohort - 1, 0, -1):
        word = np.uint64(mix(np.uint32(i), b0, b1))
        other = np.int64((word * np.uint64(i + 1)) >> np.uint64(32))
        if place == i:
            place = other
        elif place == other:
            return i  # no later swap reaches it
    return int(place)


@jit
def _places(words: U32, cohort: np.uint32, order: np.uint32) -> None:
    """Turn the random words of the shifts into the sender's places at the coordinates."""
    for i in range(words.size):
        product = np.uint64(words[i]) * np.uint64(cohort)
        place = np.uint32(np.uint32(product >> np.uint64(32)) + order)
        wrapped = np.uint32(place - cohort)
        words[i] = wrapped if place >= cohort else place


@jit
def _fixed(
    x: Floats, reach: Any, scale: Any, offset: np.int32, largest: np.int32, out: I32
) -> None:
    one = np.float32(1)
    for i in range(x.size):
        share = x[i] / reach
        share = share if share < one else one
        share = share if share > -one else -one
        place = np.int32(np.int32(share * scale) + offset)
        place = place if place > np.int32(0) else np.int32(0)
        out[i] = place if place < largest else largest


@jit
def _codes(fixed: I32, places: U32, own: U32, cohort: np.uint32, digits: int, codes: U32) -> None:
    mask, up, down = np.uint32((1 << digits) - 1), np.uint64(32 - digits), np.uint32(digits)
    for i in range(fixed.size):
        value = np.uint32(fixed[i])
        # Of 32 by 32 bits: a product of 64-bit numbers takes three times as long.
        rest = (np.uint64(np.uint32(value & mask)) * np.uint64(cohort)) << up
        spread = (np.uint64(places[i]) << np.uint64(32)) | np.uint64(own[i])
        level = np.uint32(value >> (down & FIVE_BITS))
        codes[i] = np.uint32(level + np.uint32(1)) if spread < rest else level


@jit
def _flag(x: Floats, reach: Any, flags: U8) -> None:
    for i in range(x.size):  # without a branch, so that many are compared at once
        flags[i] = np.uint8(abs(x[i]) > reach)


@jit
def _beyond(x: Floats, reaches: Floats, flags: U8, words: U64, places: U32) -> int:
    """List the places as long as there is room; returns how many there are."""
    count = 0
    for block in range(reaches.size):
        start = block * BLOCK
        stop = min(start + BLOCK, x.size)
        flags[stop - start :] = 0
        _flag(x[start:stop], reaches[block], flags)
        for w in range(words.size):
            if words[w]:
                for i in range(8 * w, 8 * w + 8):
                    if flags[i]:
                        if count < places.size:
                            places[count] = start + i
                        count += 1
    return count


def beyond(x: Floats, reaches: Floats) -> U32:
    """Return the places of the coordinates whose magnitude is above their block's reach."""
    flags = np.zeros(BLOCK, dtype=np.uint8)
    places = np.empty(x.size // 256 + 64, dtype=np.uint32)  # of normal values, 1 in 370 at c = 3
    count = _beyond(x, reaches, flags, flags.view(np.uint64), places)
    if count > places.size:
        places = np.empty(count, dtype=np.uint32)
        _beyond(x, reaches, flags, flags.view(np.uint64), places)
    return places[:count]


@jit
def _correlated_pack(
    x: Floats,
    reaches: Floats,
    scale: Any,
    offsets: I64,
    top: int,
    width: int,
    digits: int,
    cohort: int,
    rank: int,
    group: int,
    keys: U32,
    packed: U32,
    rest: U8,
) -> None:
    places, own, codes = empty_words(BLOCK), empty_words(BLOCK), empty_words(BLOCK)
    fixed = empty_words(BLOCK).view(np.int32)
    largest, order = np.int32(top << digits), rank
    for start in range(0, x.size, BLOCK):
        stop, block = min(start + BLOCK, x.size), start // BLOCK
        if block % group == 0:
            b0, b1 = block_keys(keys[4], keys[5], block // group)
            order = _order(cohort, rank, b0, b1)
        rounding_words(keys[0], keys[1], block, own)
        rounding_words(keys[2], keys[3], block, places)
        _places(places, np.uint32(cohort), np.uint32(order))
        size = stop - start
        _fixed(x[start:stop], reaches[block], scale, np.int32(offsets[block]), largest, fixed)
        _codes(fixed[:size], places, own, np.uint32(cohort), digits, codes)
        store(codes, start, stop, width, packed, rest)


def correlated_pack(
    x: Floats,
    reaches: Floats,
    scale: Any,
    offsets: I64,
    top: int,
    width: int,
    cohort: int,
    rank: int,
    keys: cq.Keys,
) -> U8:
    """Round each coordinate to a code from 0 to `top` with the cohort's shared order, and pack."""
    packed = scratch.empty(packed_bytes(x.size, width))
    parts = split(packed, x.size, width)
    words = np.array([*keys.own, *keys.shift, *keys.order], dtype=np.uint32)
    law = cq.fixed_digits(top), cohort, rank, cq.group_blocks(cohort)
    _correlated_pack(x, reaches, scale, offsets, top, width, *law, words, *parts)
    return packed
