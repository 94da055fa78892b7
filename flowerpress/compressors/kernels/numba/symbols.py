"""Packed codes as arrays of numbers: the compiled half; see ``kernels.packing``."""

from __future__ import annotations

import numpy as np

from flowerpress.compressors.kernels.numba.jit import jit
from flowerpress.compressors.kernels.numba.packing import (
    pack_block,
    pack_rest,
    unpack_block,
    unpack_rest,
)
from flowerpress.compressors.kernels.packing import BLOCK, LANES, U8, U32, packed_bytes
from flowerpress.compressors.kernels.scratch import scratch

__all__ = ["counts", "pack", "unpack"]


def counts(symbols: U32, width: int) -> U32:
    """Return how often each number below ``2**width`` occurs in `symbols`."""
    rows = np.zeros((4, 1 << width), dtype=np.uint32)
    _count(symbols, rows)
    total: U32 = rows.sum(axis=0, dtype=np.uint32)
    return total


def pack(codes: U32, width: int) -> U8:
    """Pack codes below ``2**width``, ``1 <= width <= 32``."""
    packed = scratch.empty(packed_bytes(codes.size, width))
    cut = packed_bytes(codes.size // BLOCK * BLOCK, width)
    _pack(codes, width, packed[:cut].view(np.uint32), packed[cut:])
    return packed


def unpack(packed: U8, count: int, width: int) -> U32:
    """Return the `count` codes that `pack` packed."""
    codes = np.empty(count, dtype=np.uint32)
    cut = packed_bytes(count // BLOCK * BLOCK, width)
    words = np.require(packed[:cut].view(np.uint32), requirements="A")
    _unpack(words, np.ascontiguousarray(packed[cut:]), width, codes)
    return codes


@jit
def _count(symbols: U32, rows: U32) -> None:
    """Count in four rows in turn: equal neighbours do not wait for each other."""
    whole = symbols.size // 4 * 4
    for i in range(0, whole, 4):
        rows[0, symbols[i]] += np.uint32(1)
        rows[1, symbols[i + 1]] += np.uint32(1)
        rows[2, symbols[i + 2]] += np.uint32(1)
        rows[3, symbols[i + 3]] += np.uint32(1)
    for i in range(whole, symbols.size):
        rows[0, symbols[i]] += np.uint32(1)


@jit
def _pack(codes: U32, width: int, words: U32, rest: U8) -> None:
    blocks = codes.size // BLOCK
    step = LANES * width
    for block in range(blocks):
        source = codes[block * BLOCK : (block + 1) * BLOCK]
        pack_block(source, words[block * step : (block + 1) * step], width)
    pack_rest(codes[blocks * BLOCK :], codes.size - blocks * BLOCK, width, rest)


@jit
def _unpack(words: U32, rest: U8, width: int, codes: U32) -> None:
    blocks = codes.size // BLOCK
    step = LANES * width
    for block in range(blocks):
        target = codes[block * BLOCK : (block + 1) * BLOCK]
        unpack_block(words[block * step : (block + 1) * step], width, target)
    unpack_rest(rest, codes.size - blocks * BLOCK, width, codes[blocks * BLOCK :])
