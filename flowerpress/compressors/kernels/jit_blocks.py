"""Kernels over every coordinate: sums, signs and levels, in blocks of 1024."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.jit import block_keys, jit, mix
from flowerpress.compressors.kernels.jit_packing import (
    pack_block,
    pack_rest,
    unpack_block,
    unpack_rest,
)
from flowerpress.compressors.kernels.sum_lanes import add_magnitudes, add_squares

Floats = npt.NDArray[np.floating[Any]]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
Bits = npt.NDArray[np.unsignedinteger[Any]]

BLOCK = 1024
LANES = 32
EIGHT_ROWS = 8 * LANES


@jit
def first_nonfinite(bits: Bits, magnitude: Any, infinity: Any) -> int:
    """Return the first place whose magnitude bits reach those of infinity, or -1."""
    for start in range(0, bits.size, BLOCK):
        piece = bits[start : start + BLOCK]
        largest = bits[start] & magnitude
        for i in range(piece.size):
            value = piece[i] & magnitude
            largest = value if value > largest else largest
        if largest >= infinity:
            for i in range(piece.size):
                if piece[i] & magnitude >= infinity:
                    return start + i
    return -1


@jit
def _chunk_sum(x: Floats, square: bool, lanes: F64) -> float:
    """Return the sum over at most 1024 coordinates, in the order of `kernels.sums`."""
    lanes[:] = 0.0
    whole = x.size // EIGHT_ROWS * EIGHT_ROWS
    for at in range(0, whole, EIGHT_ROWS):
        if square:
            add_squares(x[at : at + EIGHT_ROWS], lanes)
        else:
            add_magnitudes(x[at : at + EIGHT_ROWS], lanes)
    for i in range(whole, x.size):
        value = np.float64(x[i])
        lanes[i % LANES] += value * value if square else abs(value)
    half = LANES // 2
    while half:
        for lane in range(half):
            lanes[lane] += lanes[lane + half]
        half //= 2
    return float(lanes[0])


@jit
def block_sums(x: Floats, offsets: I64, square: bool) -> F64:
    """Return the sum of magnitudes or squares of each block."""
    sums = np.empty(offsets.size - 1, dtype=np.float64)
    lanes = np.empty(LANES, dtype=np.float64)
    for block in range(sums.size):
        start, stop = offsets[block], offsets[block + 1]
        total = _chunk_sum(x[start : min(start + BLOCK, stop)], square, lanes)
        for at in range(start + BLOCK, stop, BLOCK):
            total += _chunk_sum(x[at : min(at + BLOCK, stop)], square, lanes)
        sums[block] = total
    return sums


@jit
def _sign_codes(x: Floats, codes: U32) -> None:
    for i in range(x.size):
        codes[i] = np.uint32(1) if x[i] >= 0 else np.uint32(0)


@jit
def sign_pack(x: Floats, packed: U32, rest: U8) -> None:
    """Pack the signs of whole blocks into words and of the rest into bytes."""
    codes = np.empty(BLOCK, dtype=np.uint32)
    blocks = x.size // BLOCK
    for block in range(blocks):
        _sign_codes(x[block * BLOCK : (block + 1) * BLOCK], codes)
        pack_block(codes, packed[block * LANES : (block + 1) * LANES], 1)
    _sign_codes(x[blocks * BLOCK :], codes)
    pack_rest(codes, x.size - blocks * BLOCK, 1, rest)


@jit
def _add_signs(codes: U32, term: Any, out: Floats) -> None:
    for i in range(out.size):
        out[i] += term if codes[i] else -term


@jit
def sign_add(packed: U32, rest: U8, terms: Floats, offsets: I64, out: Floats) -> None:
    """Add the term of its block, with its sign, to each coordinate."""
    codes = np.empty(BLOCK, dtype=np.uint32)
    owner = 0
    for start in range(0, out.size, BLOCK):
        stop = min(start + BLOCK, out.size)
        if stop - start == BLOCK:
            unpack_block(packed[start // LANES : stop // LANES], 1, codes)
        else:
            unpack_rest(rest, stop - start, 1, codes)
        at = start
        while at < stop:
            end = min(stop, offsets[owner + 1])
            _add_signs(codes[at - start : end - start], terms[owner], out[at:end])
            at = end
            owner += at == offsets[owner + 1]


@jit
def _round_32(
    x: Floats, norm: Any, levels: int, k0: np.uint32, k1: np.uint32, first: int, codes: U32
) -> None:
    """Round float32 coordinates of one norm, the first of which has place `first` in its block."""
    top, signed_top = np.float32(levels), np.int32(levels)
    grid = np.float32(2.0**-24)
    for i in range(x.size):
        word = mix(np.uint32(np.uint32(first) + np.uint32(i)), k0, k1)
        odd = np.uint32(np.uint32(np.uint32(word >> np.uint32(9)) << np.uint32(1)) | np.uint32(1))
        dither = np.float32(np.float32(np.int32(odd)) * grid)
        scaled = np.float32(np.float32(abs(x[i]) / norm) * top)
        scaled = scaled if scaled < top else top
        level = np.int32(scaled)
        up = np.int32(1) if dither < np.float32(scaled - np.float32(level)) else np.int32(0)
        level = np.int32(level + up)
        signed = np.int32(-level) if x[i] < 0 else level
        codes[i] = np.uint32(np.int32(signed + signed_top))


@jit
def _round_64(
    x: Floats, norm: Any, levels: int, k0: np.uint32, k1: np.uint32, first: int, codes: U32
) -> None:
    """Round float64 coordinates of one norm."""
    top, signed_top = np.float64(levels), np.int32(levels)
    for i in range(x.size):
        word = mix(np.uint32(np.uint32(first) + np.uint32(i)), k0, k1)
        dither = (np.float64(word) * 2.0 + 1.0) * 2.0**-33
        scaled = abs(x[i]) / norm * top
        scaled = scaled if scaled < top else top
        level = np.int32(scaled)
        up = np.int32(1) if dither < scaled - np.float64(level) else np.int32(0)
        level = np.int32(level + up)
        signed = np.int32(-level) if x[i] < 0 else level
        codes[i] = np.uint32(np.int32(signed + signed_top))


@jit
def levels_pack(
    x: Floats,
    norms: Floats,
    offsets: I64,
    levels: int,
    width: int,
    k0: np.uint32,
    k1: np.uint32,
    packed: U32,
    rest: U8,
) -> None:
    """Round each coordinate to a level of its block's norm and pack the codes."""
    codes = np.empty(BLOCK, dtype=np.uint32)
    owner = 0
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        b0, b1 = block_keys(k0, k1, start // BLOCK)
        at = start
        while at < stop:
            end = min(stop, offsets[owner + 1])
            part = codes[at - start : end - start]
            if norms[owner] > 0:
                if x.itemsize == 4:
                    _round_32(x[at:end], norms[owner], levels, b0, b1, at - start, part)
                else:
                    _round_64(x[at:end], norms[owner], levels, b0, b1, at - start, part)
            else:
                part[:] = np.uint32(levels)
            at = end
            owner += at == offsets[owner + 1]
        if stop - start == BLOCK:
            words = start // LANES * width
            pack_block(codes, packed[words : words + LANES * width], width)
        else:
            pack_rest(codes, stop - start, width, rest)


@jit
def code_above(packed: U32, rest: U8, count: int, width: int, top: np.uint32) -> int:
    """Return the place of the first code above `top`, or -1."""
    codes = np.empty(BLOCK, dtype=np.uint32)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        if size == BLOCK:
            words = start // LANES * width
            unpack_block(packed[words : words + LANES * width], width, codes)
        else:
            unpack_rest(rest, size, width, codes)
        largest = np.uint32(0)
        for i in range(size):
            largest = codes[i] if codes[i] > largest else largest
        if largest > top:
            for i in range(size):
                if codes[i] > top:
                    return start + i
    return -1


@jit
def _add_levels(codes: U32, step: Any, levels: np.int32, signed: Floats, out: Floats) -> None:
    for i in range(out.size):
        signed[i] = np.int32(np.int32(codes[i]) - levels)
    for i in range(out.size):
        out[i] += step * signed[i]


@jit
def levels_add(
    packed: U32, rest: U8, steps: Floats, offsets: I64, levels: int, width: int, out: Floats
) -> None:
    """Add the step of its block, times the signed level, to each coordinate."""
    codes = np.empty(BLOCK, dtype=np.uint32)
    signed = np.empty(BLOCK, dtype=out.dtype)
    owner = 0
    for start in range(0, out.size, BLOCK):
        stop = min(start + BLOCK, out.size)
        if stop - start == BLOCK:
            words = start // LANES * width
            unpack_block(packed[words : words + LANES * width], width, codes)
        else:
            unpack_rest(rest, stop - start, width, codes)
        at = start
        while at < stop:
            end = min(stop, offsets[owner + 1])
            part = codes[at - start : end - start]
            _add_levels(part, steps[owner], np.int32(levels), signed, out[at:end])
            at = end
            owner += at == offsets[owner + 1]
