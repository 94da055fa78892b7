"""The nearest of powers of two: the compiled half; `kernels.numpy.loggrid` says what each does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.affine import load, split, store
from flowerpress.compressors.kernels.numba.jit import jit
from flowerpress.compressors.kernels.packing import packed_bytes
from flowerpress.compressors.kernels.scratch import scratch

Floats = npt.NDArray[np.floating[Any]]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]

BLOCK = 1024


@jit
def _grid_pack(x: Floats, largest: Any, bounds: Floats, width: int, packed: U32, rest: U8) -> None:
    codes, shares = np.empty(BLOCK, dtype=np.uint32), np.empty(BLOCK, dtype=x.dtype)
    k = np.int32(bounds.size)
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        part = x[start:stop]
        for i in range(part.size):
            shares[i] = abs(part[i]) / largest
            codes[i] = np.uint32(0)
        for bound in bounds:
            for i in range(part.size):
                codes[i] += np.uint32(1) if shares[i] >= bound else np.uint32(0)
        for i in range(part.size):
            level = np.int32(codes[i])
            codes[i] = np.uint32(k - level) if part[i] < 0 else np.uint32(k + level)
        store(codes, start, stop, width, packed, rest)


@jit
def _grid_add(packed: U32, rest: U8, terms: Floats, width: int, out: Floats) -> None:
    codes = np.empty(BLOCK, dtype=np.uint32)
    for start in range(0, out.size, BLOCK):
        stop = min(start + BLOCK, out.size)
        load(packed, rest, start, stop, width, codes)
        for i in range(stop - start):
            out[start + i] += terms[codes[i]]


def grid_pack(x: Floats, largest: Any, bounds: Floats, width: int) -> U8:
    """Pack ``k + sign * level``, with k the number of `bounds`."""
    packed = scratch.empty(packed_bytes(x.size, width))
    _grid_pack(x, largest, bounds, width, *split(packed, x.size, width))
    return packed


def grid_add(packed: U8, terms: Floats, width: int, out: Floats) -> None:
    """Add ``terms[code]`` to each coordinate."""
    _grid_add(*split(packed, out.size, width), terms, width, out)
