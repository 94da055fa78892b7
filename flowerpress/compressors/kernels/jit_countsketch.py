"""Count sketches of vectors: the compiled half; see ``kernels.countsketch``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.countsketch import MOST_ROWS, shifts
from flowerpress.compressors.kernels.jit import block_keys, empty_words, jit, mix

__all__ = ["MOST_ROWS", "shifts", "sketch", "unsketch"]

Floats = npt.NDArray[np.floating[Any]]
U32 = npt.NDArray[np.uint32]

_PIECE = 1024


def sketch(x: Floats, rows: int, columns: int, key: tuple[int, int]) -> Floats:
    """Return the table, shape (rows, columns)."""
    table = np.zeros((rows, columns), dtype=x.dtype)
    moved = shifts(key, rows, columns, x.size)
    _sketch(x, moved, np.uint32(key[0]), np.uint32(key[1]), table)
    return table


def unsketch(table: Floats, dim: int, key: tuple[int, int]) -> Floats:
    """Return the median over the rows of what they say of each coordinate."""
    rows, columns = table.shape
    out = np.empty(dim, dtype=table.dtype)
    moved = shifts(key, rows, columns, dim)
    _unsketch(table, moved, np.uint32(key[0]), np.uint32(key[1]), out)
    return out


@jit
def _words(start: int, count: int, k0: np.uint32, k1: np.uint32, words: U32) -> None:
    """Return the random words of `count` coordinates, none in the next block of 1024."""
    b0, b1 = block_keys(k0, k1, start // 1024)
    place = np.uint32(start % 1024)
    for i in range(count):
        words[i] = mix(np.uint32(place + np.uint32(i)), b0, b1)


@jit
def _add_signed(x: Floats, words: U32, row: np.uint32, cells: Floats) -> None:
    for i in range(cells.size):
        cells[i] += -x[i] if np.uint32(words[i] >> row) & np.uint32(1) else x[i]


@jit
def _take_signed(cells: Floats, words: U32, row: np.uint32, said: Floats) -> None:
    for i in range(cells.size):
        said[i] = -cells[i] if np.uint32(words[i] >> row) & np.uint32(1) else cells[i]


@jit
def _sketch(x: Floats, moved: U32, k0: np.uint32, k1: np.uint32, table: Floats) -> None:
    rows, columns = table.shape
    words = empty_words(_PIECE)
    at = 0
    while at < x.size:
        chunk, place = at // columns, at % columns
        count = min(_PIECE - at % _PIECE, columns - place, x.size - at)
        _words(at, count, k0, k1, words)
        for row in range(rows):
            column = (place + np.int64(moved[chunk, row])) % columns
            first = min(count, columns - column)
            bit = np.uint32(row)
            _add_signed(x[at : at + first], words[:first], bit, table[row, column : column + first])
            _add_signed(
                x[at + first : at + count], words[first:count], bit, table[row, : count - first]
            )
        at += count


@jit
def _order(low: Floats, high: Floats) -> None:
    for i in range(low.size):
        a, b = low[i], high[i]
        low[i] = a if a < b else b
        high[i] = b if a < b else a


@jit
def _unsketch(table: Floats, moved: U32, k0: np.uint32, k1: np.uint32, out: Floats) -> None:
    rows, columns = table.shape
    words = empty_words(_PIECE)
    said = np.empty((rows, _PIECE), dtype=table.dtype)
    zero = table.dtype.type(0)
    at = 0
    while at < out.size:
        chunk, place = at // columns, at % columns
        count = min(_PIECE - at % _PIECE, columns - place, out.size - at)
        _words(at, count, k0, k1, words)
        for row in range(rows):
            column = (place + np.int64(moved[chunk, row])) % columns
            first = min(count, columns - column)
            bit = np.uint32(row)
            _take_signed(table[row, column : column + first], words[:first], bit, said[row, :first])
            _take_signed(
                table[row, : count - first], words[first:count], bit, said[row, first:count]
            )
        # Rows rise until the middle one holds the median; each step orders two whole rows.
        for last in range(rows - 1, rows // 2 - 1, -1):
            for row in range(last):
                _order(said[row, :count], said[row + 1, :count])
        for i in range(count):
            out[at + i] = said[rows // 2, i] + zero
        at += count
