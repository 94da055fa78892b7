"""Sums of products of thin matrices: the compiled half; see `kernels.numpy.products`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.jit import jit

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]

_ROWS, _PIECE = 8, 512  # of a product at once: 16 kB of float32


def reach(values: Floats, rows: I64, columns: I64, ranks: I64) -> F64:
    """Return, for each matrix, twice the most that a sum over the rank can reach."""
    found = np.empty(rows.size)
    _reach(values, rows, columns, ranks, found)
    return found


def add(values: Floats, rows: I64, columns: I64, ranks: I64, weight: Any, out: Floats) -> None:
    """Add ``weight * L.T @ R`` of each matrix to its place."""
    _add(values, rows, columns, ranks, weight, np.empty(_ROWS * _PIECE, values.dtype), out)


@jit
def _largest(values: Floats) -> float:
    largest = values.dtype.type(0)
    for value in values:
        size = abs(value)
        largest = size if size > largest else largest
    return float(largest)


@jit
def _reach(values: Floats, rows: I64, columns: I64, ranks: I64, found: F64) -> None:
    at = 0
    for i in range(rows.size):
        a, b, rank = rows[i], columns[i], ranks[i]
        if rank == 0:
            found[i] = _largest(values[at : at + a * b])
            at += a * b
            continue
        total, right = 0.0, at + rank * a
        for k in range(rank):
            left = _largest(values[at + k * a : at + (k + 1) * a])
            total += left * _largest(values[right + k * b : right + (k + 1) * b])
        found[i] = 2 * total
        at += rank * (a + b)


@jit
def _add_row(row: Floats, weight: Any, out: Floats) -> None:
    """Add `weight` times a row, rounded to the dtype of `out`."""
    if out.itemsize == 4:
        for i in range(row.size):
            out[i] += np.float32(row[i] * weight)
    else:
        for i in range(row.size):
            out[i] += row[i] * weight


@jit
def _times(factor: Any, right: Floats, row: Floats) -> None:
    for j in range(row.size):
        row[j] = factor * right[j]


@jit
def _add_times(
    factors: Floats, step: int, p: Floats, q: Floats, r: Floats, s: Floats, row: Floats
) -> None:
    """Add four products to a row, one after the other; factors lie `step` places apart."""
    a, b, c, d = factors[0], factors[step], factors[2 * step], factors[3 * step]
    for j in range(row.size):
        row[j] = (((row[j] + a * p[j]) + b * q[j]) + c * r[j]) + d * s[j]


@jit
def _add_one(factor: Any, right: Floats, row: Floats) -> None:
    for j in range(row.size):
        row[j] += factor * right[j]


@jit
def _sums(
    left: Floats,
    i: int,
    a: int,
    right: Floats,
    b: int,
    first: int,
    rank: int,
    count: int,
    width: int,
    rows: Floats,
) -> None:
    """Set `rows` to `width` places from `first` on of `count` rows from i on of ``left.T @ right``.

    Rows of `right` are read once for all of them.
    """
    stop = first + width
    for row in range(count):
        _times(left[i + row], right[first:stop], rows[row * width : (row + 1) * width])
    k = 1
    while k + 4 <= rank:
        at = k * b
        p, q = right[at + first : at + stop], right[at + b + first : at + b + stop]
        at += 2 * b
        r, s = right[at + first : at + stop], right[at + b + first : at + b + stop]
        for row in range(count):
            sums = rows[row * width : (row + 1) * width]
            _add_times(left[i + row + k * a :], a, p, q, r, s, sums)
        k += 4
    while k < rank:
        for row in range(count):
            sums = rows[row * width : (row + 1) * width]
            _add_one(left[i + row + k * a], right[k * b + first : k * b + stop], sums)
        k += 1


@jit
def _add(
    values: Floats, rows: I64, columns: I64, ranks: I64, weight: Any, room: Floats, out: Floats
) -> None:
    at = start = 0
    for m in range(rows.size):
        a, b, rank = rows[m], columns[m], ranks[m]
        if rank == 0:
            _add_row(values[at : at + a * b], weight, out[start : start + a * b])
            at += a * b
            start += a * b
            continue
        left, right = values[at : at + rank * a], values[at + rank * a : at + rank * (a + b)]
        for i in range(0, a, _ROWS):
            count = min(_ROWS, a - i)
            for first in range(0, b, _PIECE):
                width = min(_PIECE, b - first)
                _sums(left, i, a, right, b, first, rank, count, width, room)
                for row in range(count):
                    here = start + (i + row) * b + first
                    sums = room[row * width : (row + 1) * width]
                    _add_row(sums, weight, out[here : here + width])
        at += rank * (a + b)
        start += a * b
