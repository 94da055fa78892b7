"""Codes on evenly spaced points: the compiled half; `kernels.numpy.affine` says what each does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.jit import empty_words, jit
from flowerpress.compressors.kernels.numba.levels import rounding_words
from flowerpress.compressors.kernels.numba.packing import (
    pack_block,
    pack_rest,
    unpack_block,
    unpack_rest,
)
from flowerpress.compressors.kernels.numpy import affine
from flowerpress.compressors.kernels.packing import packed_bytes
from flowerpress.compressors.kernels.scratch import scratch

Floats = npt.NDArray[np.floating[Any]]
Bits = npt.NDArray[np.unsignedinteger[Any]]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]

BLOCK = 1024
LANES = 32
TINY = np.float32(affine.TINY)
SCALED_UP = np.float32(affine.SCALED_UP)
HALF = np.uint32(affine.HALF)
FIVE_BITS = np.uint32(31)
SHORT = 32  # coordinates of a block below which a view of it takes longer than its work


@jit
def store(codes: U32, start: int, stop: int, width: int, packed: U32, rest: U8) -> None:
    """Pack the codes of one block, or of the rest."""
    if stop - start == BLOCK:
        first = start // LANES * width
        pack_block(codes, packed[first : first + LANES * width], width)
    else:
        pack_rest(codes, stop - start, width, rest)


@jit
def load(packed: U32, rest: U8, start: int, stop: int, width: int, codes: U32) -> None:
    """Unpack the codes of one block, or of the rest."""
    if stop - start == BLOCK:
        first = start // LANES * width
        unpack_block(packed[first : first + LANES * width], width, codes)
    else:
        unpack_rest(rest, stop - start, width, codes)


@jit
def largest_bits(bits: U32) -> np.uint32:
    """Return the bits of the largest magnitude; at least those of infinity if one is not finite."""
    largest = np.uint32(0)
    for i in range(bits.size):
        value = np.uint32(bits[i] & np.uint32(0x7FFFFFFF))
        largest = value if value > largest else largest
    return largest


@jit
def _round_32(x: Floats, largest: Any, top: int, digits: int, words: U32, codes: U32) -> None:
    if not largest > 0:
        codes[:] = np.uint32(0)
        return
    reach, middle = np.float32(top << (digits - 1)), np.uint32(top << (digits - 1))
    lift = SCALED_UP if largest < TINY else np.float32(1)
    factor = np.float32(reach / np.float32(largest * lift))
    left, right = np.uint32(32 - digits), np.uint32(digits)
    for i in range(x.size):
        place = np.float32(np.float32(x[i] * lift) * factor)
        place = place if place < reach else reach
        place = place if place > -reach else -reach
        # The masks show the compiler that the shifts may be done in 32 bits.
        dither = np.uint32(middle + np.uint32(words[i] >> (left & FIVE_BITS)))
        fixed = np.uint32(np.uint32(np.int32(place)) + dither)
        codes[i] = np.uint32(fixed >> (right & FIVE_BITS))


@jit
def _round_64(x: Floats, largest: Any, top: int, words: U32, codes: U32) -> None:
    if not largest > 0:
        codes[:] = np.uint32(0)
        return
    half = np.float64(top) / 2
    for i in range(x.size):
        place = x[i] / largest * half + half
        codes[i] = np.uint32(place + (np.float64(words[i]) + 0.5) * 2.0**-32)


@jit
def _uniform_pack(
    x: Floats,
    maxima: Floats,
    offsets: I64,
    top: int,
    digits: int,
    width: int,
    nearest: bool,
    k0: np.uint32,
    k1: np.uint32,
    packed: U32,
    rest: U8,
) -> None:
    codes, words = empty_words(BLOCK), empty_words(BLOCK)
    words[:] = HALF
    owner = 0
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        if not nearest:
            rounding_words(k0, k1, start // BLOCK, words)
        at = start
        while at < stop:
            end = min(stop, offsets[owner + 1])
            a, b = at - start, end - start
            if x.itemsize == 4:
                _round_32(x[at:end], maxima[owner], top, digits, words[a:b], codes[a:b])
            else:
                _round_64(x[at:end], maxima[owner], top, words[a:b], codes[a:b])
            at = end
            owner += at == offsets[owner + 1]
        store(codes, start, stop, width, packed, rest)


@jit
def _max_uniform_pack(
    x: Floats,
    bits: U32,
    bucket: int,
    top: int,
    digits: int,
    width: int,
    nearest: bool,
    k0: np.uint32,
    k1: np.uint32,
    maxima: Floats,
    maxima_bits: U32,
    packed: U32,
    rest: U8,
) -> None:
    codes, words = empty_words(BLOCK), empty_words(BLOCK)
    words[:] = HALF
    owner = 0
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        if not nearest:
            rounding_words(k0, k1, start // BLOCK, words)
        for at in range(start, stop, bucket):
            end = min(at + bucket, stop)
            maxima_bits[owner] = largest_bits(bits[at:end])
            a, b = at - start, end - start
            _round_32(x[at:end], maxima[owner], top, digits, words[a:b], codes[a:b])
            owner += 1
        store(codes, start, stop, width, packed, rest)


@jit
def _affine_add(
    packed: U32,
    rest: U8,
    mids: Floats,
    steps: Floats,
    offsets: I64,
    top: np.int32,
    width: int,
    out: Floats,
) -> None:
    codes, points = empty_words(BLOCK), empty_words(2 * BLOCK).view(out.dtype)
    owner = 0
    for start in range(0, out.size, BLOCK):
        stop = min(start + BLOCK, out.size)
        load(packed, rest, start, stop, width, codes)
        for i in range(stop - start):
            points[i] = np.int32(np.int32(np.int32(codes[i]) << np.int32(1)) - top)
        at = start
        while at < stop:
            end = min(stop, offsets[owner + 1])
            mid, step = mids[owner], steps[owner]
            if end - at < SHORT:
                for i in range(at, end):
                    out[i] += mid + step * points[i - start]
            else:
                part, target = points[at - start : end - start], out[at:end]
                for i in range(target.size):
                    target[i] += mid + step * part[i]
            at = end
            owner += at == offsets[owner + 1]


def block_maxima(x: Floats, offsets: I64) -> Floats:
    """Return the largest magnitude of each block; numpy's reduction is as fast as memory."""
    return affine.block_maxima(x, offsets)


def uniform_pack(
    x: Floats, maxima: Floats, offsets: I64, top: int, width: int, key: tuple[int, int] | None
) -> U8:
    """Round each coordinate to a code over its block's range, and pack the codes."""
    packed = scratch.empty(packed_bytes(x.size, width))
    digits, parts = affine.fixed_digits(top), split(packed, x.size, width)
    _uniform_pack(x, maxima, offsets, top, digits, width, *_rounding(key), *parts)
    return packed


def max_uniform_pack(
    x: Floats, bucket: int, top: int, width: int, key: tuple[int, int] | None
) -> tuple[Floats, U8]:
    """Return the float32 maximum of each bucket and the packed codes, in one pass."""
    packed = scratch.empty(packed_bytes(x.size, width))
    maxima = np.empty(-(-x.size // bucket), dtype=np.float32)
    digits, parts = affine.fixed_digits(top), split(packed, x.size, width)
    views = maxima, maxima.view(np.uint32)
    bits = x.view(np.uint32)
    _max_uniform_pack(x, bits, bucket, top, digits, width, *_rounding(key), *views, *parts)
    return maxima, packed


def affine_add(
    packed: U8, mids: Floats, steps: Floats, offsets: I64, top: int, width: int, out: Floats
) -> None:
    """Add ``mids[b] + steps[b] * (2 code - top)`` to each coordinate of block b."""
    parts = split(packed, out.size, width)
    _affine_add(*parts, mids, steps, offsets, np.int32(top), width, out)


def _rounding(key: tuple[int, int] | None) -> tuple[bool, np.uint32, np.uint32]:
    k0, k1 = key or (0, 0)
    return key is None, np.uint32(k0), np.uint32(k1)


def split(packed: U8, count: int, width: int) -> tuple[U32, U8]:
    """Return the words of the whole blocks, aligned, and the bytes of the rest."""
    cut = packed_bytes(count // BLOCK * BLOCK, width)
    return np.require(packed[:cut].view(np.uint32), requirements="A"), packed[cut:]
