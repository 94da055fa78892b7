"""Kernels over every coordinate: sums, signs and levels, in blocks of 1024."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.generated.pack_lanes import pack_1
from flowerpress.compressors.kernels.numba.generated.sum_lanes import (
    add_magnitudes,
    add_squares,
    add_squares_32,
)
from flowerpress.compressors.kernels.numba.generated.unpack_lanes import unpack_1
from flowerpress.compressors.kernels.numba.jit import empty_words, jit
from flowerpress.compressors.kernels.numba.packing import pack_rest, unpack_rest
from flowerpress.compressors.kernels.sums import SMALLEST_SQUARE

Floats = npt.NDArray[np.floating[Any]]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
Bits = npt.NDArray[np.unsignedinteger[Any]]

BLOCK = 1024
LANES = 32
SIXTEEN_ROWS = 16 * LANES
SHORT = 32  # coordinates of a block below which a call for it takes longer than its work


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
def chunk_sum(x: Floats, square: bool, lanes: F64) -> float:
    """Return the sum over at most 1024 coordinates, in the order of `kernels.sums`."""
    lanes[:] = 0.0
    many = x.size // SIXTEEN_ROWS * SIXTEEN_ROWS
    whole = x.size // LANES * LANES
    for at in range(0, many, SIXTEEN_ROWS):
        if square:
            add_squares(x[at : at + SIXTEEN_ROWS], lanes)
        else:
            add_magnitudes(x[at : at + SIXTEEN_ROWS], lanes)
    for at in range(many, whole, LANES):
        for lane in range(LANES):
            value = np.float64(x[at + lane])
            lanes[lane] += value * value if square else abs(value)
    for lane in range(x.size - whole):
        value = np.float64(x[whole + lane])
        lanes[lane] += value * value if square else abs(value)
    return float(_folded(lanes))


@jit
def quick_norm(x: Floats, lanes: F64, lanes_32: Floats) -> Any:
    """Return the norm of at most 1024 float32 numbers; see `sums.quick_norms`."""
    lanes_32[:] = np.float32(0)
    many = x.size // SIXTEEN_ROWS * SIXTEEN_ROWS
    whole = x.size // LANES * LANES
    for at in range(0, many, SIXTEEN_ROWS):
        add_squares_32(x[at : at + SIXTEEN_ROWS], lanes_32)
    for at in range(many, whole, LANES):
        for lane in range(LANES):
            lanes_32[lane] += np.float32(x[at + lane] * x[at + lane])
    for lane in range(x.size - whole):
        lanes_32[lane] += np.float32(x[whole + lane] * x[whole + lane])
    total = np.float32(_folded(lanes_32))
    if SMALLEST_SQUARE <= total < np.inf:
        return np.sqrt(total)
    return np.float32(np.sqrt(chunk_sum(x, True, lanes)))


@jit
def _folded(lanes: Floats) -> Any:
    """Return the sum of 32 lanes, folded in halves: loops of constant length become vectors."""
    for lane in range(16):
        lanes[lane] += lanes[lane + 16]
    for lane in range(8):
        lanes[lane] += lanes[lane + 8]
    for lane in range(4):
        lanes[lane] += lanes[lane + 4]
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])


@jit
def block_sums(x: Floats, offsets: I64, square: bool) -> F64:
    """Return the sum of magnitudes or squares of each block."""
    sums = np.empty(offsets.size - 1, dtype=np.float64)
    lanes = empty_words(2 * LANES).view(np.float64)
    for block in range(sums.size):
        start, stop = offsets[block], offsets[block + 1]
        total = chunk_sum(x[start : min(start + BLOCK, stop)], square, lanes)
        for at in range(start + BLOCK, stop, BLOCK):
            total += chunk_sum(x[at : min(at + BLOCK, stop)], square, lanes)
        sums[block] = total
    return sums


@jit
def _sign_codes(x: Floats, codes: U32) -> None:
    for i in range(x.size):
        codes[i] = np.uint32(1) if x[i] >= 0 else np.uint32(0)


@jit
def sign_pack(x: Floats, packed: U32, rest: U8) -> None:
    """Pack the signs of whole blocks into words and of the rest into bytes."""
    codes = empty_words(BLOCK)
    blocks = x.size // BLOCK
    for block in range(blocks):
        _sign_codes(x[block * BLOCK : (block + 1) * BLOCK], codes)
        pack_1(codes, packed[block * LANES : (block + 1) * LANES])
    _sign_codes(x[blocks * BLOCK :], codes)
    pack_rest(codes, x.size - blocks * BLOCK, 1, rest)


@jit
def sign_pack_with_sums(
    x: Floats, offsets: I64, square: bool, sums: F64, packed: U32, rest: U8
) -> None:
    """Find the sum of each block and pack the signs as it passes; see `kernels.sums`."""
    codes = empty_words(BLOCK)
    lanes = empty_words(2 * LANES).view(np.float64)
    for block in range(sums.size):
        for start in range(offsets[block], offsets[block + 1], BLOCK):
            stop = min(start + BLOCK, offsets[block + 1])
            total = chunk_sum(x[start:stop], square, lanes)
            sums[block] = total if start == offsets[block] else sums[block] + total
            _sign_codes(x[start:stop], codes)
            if stop - start == BLOCK:
                pack_1(codes, packed[start // LANES : stop // LANES])
            else:
                pack_rest(codes, stop - start, 1, rest)


@jit
def _add_signs(codes: U32, term: Any, out: Floats) -> None:
    for i in range(out.size):
        out[i] += term if codes[i] else -term


@jit
def sign_add(packed: U32, rest: U8, terms: Floats, offsets: I64, out: Floats) -> None:
    """Add the term of its block, with its sign, to each coordinate."""
    codes = empty_words(BLOCK)
    owner = 0
    for start in range(0, out.size, BLOCK):
        stop = min(start + BLOCK, out.size)
        if stop - start == BLOCK:
            unpack_1(packed[start // LANES : stop // LANES], codes)
        else:
            unpack_rest(rest, stop - start, 1, codes)
        at = start
        while at < stop:
            end = min(stop, offsets[owner + 1])
            if end - at < SHORT:
                for i in range(at, end):
                    out[i] += terms[owner] if codes[i - start] else -terms[owner]
            else:
                _add_signs(codes[at - start : end - start], terms[owner], out[at:end])
            at = end
            owner += at == offsets[owner + 1]
