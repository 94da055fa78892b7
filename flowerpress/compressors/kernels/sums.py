"""Sums in one fixed order, so that every kernel rounds alike: numpy's half.

A block of coordinates is cut into chunks of 1024 from its start. In a chunk, lane w adds
coordinates w, w + 32, w + 64, ... in order; the 32 lanes are folded in halves (16, 8, 4, 2, 1).
The chunks' sums are added in order. All in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Offsets = npt.NDArray[np.int64]

CHUNK = 1024
LANES = 32
_PIECE = 1 << 18
# Below it, squares that underflow could be missed in a sum of float32 numbers.
SMALLEST_SQUARE = np.float32(2.0**-100)


def block_sums(x: npt.NDArray[np.floating[Any]], offsets: Offsets, square: bool) -> F64:
    """Return the sum of ``|x|`` (or of ``x**2``) over each block.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (d,)
    offsets : ndarray of int64, shape (blocks + 1,)
        Block b is ``x[offsets[b]:offsets[b + 1]]``; ascending, from 0 to d.
    square : bool
        Sum squares instead of absolute values.

    Returns
    -------
    ndarray of float64, shape (blocks,)
    """
    sizes = np.diff(offsets)
    sums = np.empty(sizes.size, dtype=np.float64)
    # Neighbouring blocks of one size up to a chunk are summed together, as rows of a matrix.
    start = 0
    while start < sizes.size:
        size = int(sizes[start])
        if size > CHUNK:
            sums[start] = _long_sum(x[offsets[start] : offsets[start + 1]], square)
            start += 1
            continue
        limit = min(sizes.size, start + max(1, _PIECE // size))
        differs = np.flatnonzero(sizes[start:limit] != size)
        stop = start + int(differs[0]) if differs.size else limit
        rows = x[offsets[start] : offsets[stop]].reshape(stop - start, size)
        sums[start:stop] = _row_sums(rows, square)
        start = stop
    return sums


def quick_norms(x: npt.NDArray[np.float32], bucket: int) -> npt.NDArray[np.float32]:
    """Return the norms of buckets of at most 1024 float32 numbers, right to about one in 1e6.

    Squares are added in float32, in the order of this module; where that overflows or comes near
    underflow, in float64.
    """
    with np.errstate(over="ignore", under="ignore"):
        whole = x.size // bucket * bucket
        rows, step = x[:whole].reshape(-1, bucket), _PIECE // bucket
        parts = [
            _row_sums(rows[at : at + step], True, np.float32) for at in range(0, len(rows), step)
        ]
        if whole < x.size:
            parts.append(_row_sums(x[None, whole:], True, np.float32))
        sums = np.concatenate(parts)
        norms: npt.NDArray[np.float32] = np.sqrt(sums)
        odd = np.flatnonzero(~((sums >= SMALLEST_SQUARE) & (sums < np.inf)))
        for each in odd:
            piece = x[each * bucket : (each + 1) * bucket]
            norms[each] = np.sqrt(_row_sums(piece[None], True)[0])
    return norms


def _long_sum(x: npt.NDArray[np.floating[Any]], square: bool) -> float:
    whole = x.size // CHUNK * CHUNK
    chunks = x[:whole].reshape(-1, CHUNK)
    step = _PIECE // CHUNK
    sums = [_row_sums(chunks[at : at + step], square) for at in range(0, len(chunks), step)]
    if whole < x.size:
        sums.append(_row_sums(x[None, whole:], square))
    # accumulate, unlike sum, adds strictly in order.
    return float(np.add.accumulate(np.concatenate(sums))[-1])


def _row_sums(
    rows: npt.NDArray[np.floating[Any]], square: bool, dtype: Any = np.float64
) -> npt.NDArray[Any]:
    count, size = rows.shape
    height = -(-size // LANES)
    padded = np.zeros((count, height * LANES), dtype=dtype)
    padded[:, :size] = rows
    terms = (padded * padded if square else np.abs(padded)).reshape(count, height, LANES)
    lanes = terms[:, 0].copy()
    for row in range(1, height):
        lanes += terms[:, row]
    half = LANES // 2
    while half:
        lanes = lanes[:, :half] + lanes[:, half:]
        half //= 2
    return lanes[:, 0]
