"""Sums of products of thin matrices: numpy's half; `kernels.numba.products` has the compiled twins.

The values of matrix i, of rows[i] by columns[i], are L, ranks[i] times rows[i], and R, ranks[i]
times columns[i]; where its rank is zero, they are the matrix itself, row after row. Matrices follow
one another, in the values as in the vector that they make up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]

_PIECE = 1 << 15


def reach(values: Floats, rows: I64, columns: I64, ranks: I64) -> F64:
    """Return, for each matrix, twice the most that a sum over the rank can reach.

    No rounding comes above it. Of a matrix that is sent as it is, it is the largest magnitude.
    """
    found = np.empty(rows.size)
    for i, (_, part, a, rank) in enumerate(_parts(values, rows, columns, ranks)):
        if rank:
            left, right = part[: rank * a].reshape(rank, a), part[rank * a :].reshape(rank, -1)
            tops = np.abs(left).max(1).astype(np.float64) * np.abs(right).max(1)
            found[i] = 2 * np.add.accumulate(tops)[-1]
        else:
            found[i] = np.abs(part).max()
    return found


def add(values: Floats, rows: I64, columns: I64, ranks: I64, weight: Any, out: Floats) -> None:
    """Add ``weight * L.T @ R`` of each matrix to its place.

    A number is the sum over the rank, in order, each product and each sum rounded in the dtype of
    `values`; times `weight` in the wider dtype, which is that of `weight`; then rounded to that of
    `out`.
    """
    for start, part, a, rank in _parts(values, rows, columns, ranks):
        if not rank:
            _add(part, weight, out[start : start + part.size])
            continue
        left, right = part[: rank * a].reshape(rank, a), part[rank * a :].reshape(rank, -1)
        b = right.shape[1]
        height = max(1, _PIECE // b)
        for top in range(0, a, height):
            bottom = min(a, top + height)
            total = left[0, top:bottom, None] * right[0]
            for k in range(1, rank):
                total += left[k, top:bottom, None] * right[k]
            _add(total.reshape(-1), weight, out[start + top * b : start + bottom * b])


def _add(part: Floats, weight: Any, out: Floats) -> None:
    for at in range(0, part.size, _PIECE):
        terms = part[at : at + _PIECE].astype(weight.dtype, copy=False) * weight
        out[at : at + _PIECE] += terms.astype(out.dtype, copy=False)


def _parts(
    values: Floats, rows: I64, columns: I64, ranks: I64
) -> Iterator[tuple[int, Floats, int, int]]:
    """Yield each matrix's first coordinate, its values, its rows and its rank."""
    start = at = 0
    for a, b, rank in zip(rows.tolist(), columns.tolist(), ranks.tolist(), strict=True):
        count = rank * (a + b) if rank else a * b
        yield start, values[at : at + count], a, rank
        start, at = start + a * b, at + count
