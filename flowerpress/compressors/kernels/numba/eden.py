"""Nearest centroids of a normal distribution: the compiled half; see `kernels.numpy.eden`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.affine import load, split
from flowerpress.compressors.kernels.numba.jit import empty_words, jit
from flowerpress.compressors.kernels.numpy.eden import tables
from flowerpress.compressors.kernels.packing import BLOCK, U8, U32
from flowerpress.compressors.kernels.sums import Offsets

__all__ = ["centroids_add", "nearest", "tables"]

Floats = npt.NDArray[np.floating[Any]]


def nearest(z: Floats, roots: Floats, offsets: Offsets, edges: Floats) -> U32:
    """Return the code of the centroid nearest to ``z / root`` of its block."""
    codes = np.empty(z.size, dtype=np.uint32)
    for block in range(roots.size):
        part = slice(offsets[block], offsets[block + 1])
        _nearest(z[part], roots[block], edges, codes[part])
    return codes


def centroids_add(
    packed: U8, terms: Floats, offsets: Offsets, centroids: Floats, width: int, out: Floats
) -> None:
    """Add ``terms[b] * centroids[code]`` to each coordinate of block b, in the dtype of `out`."""
    _centroids_add(*split(packed, out.size, width), terms, offsets, centroids, width, out)


@jit
def _centroids_add(
    packed: U32,
    rest: U8,
    terms: Floats,
    offsets: Offsets,
    centroids: Floats,
    width: int,
    out: Floats,
) -> None:
    codes = empty_words(BLOCK)
    owner = 0
    for start in range(0, out.size, BLOCK):
        stop = min(start + BLOCK, out.size)
        load(packed, rest, start, stop, width, codes)
        at = start
        while at < stop:
            end = min(stop, offsets[owner + 1])
            term = terms[owner]
            for i in range(at, end):
                out[i] += term * centroids[codes[i - start]]
            at = end
            owner += at == offsets[owner + 1]


@jit
def _nearest(z: Floats, root: Any, edges: Floats, codes: U32) -> None:
    half = np.uint32(edges.size + 1)
    if not root > 0:
        codes[:] = half
        return
    codes[:] = np.uint32(0)
    for edge in edges:
        for i in range(z.size):
            codes[i] += np.uint32(1) if abs(z[i]) / root > edge else np.uint32(0)
    for i in range(z.size):
        codes[i] = np.uint32(half - 1 - codes[i]) if z[i] < 0 else np.uint32(half + codes[i])
