"""Count sketches of vectors: the compiled half; see `kernels.numpy.countsketch`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.jit import block_keys, empty_words, jit, mix
from flowerpress.compressors.kernels.numpy.countsketch import MOST_ROWS, second_key

__all__ = ["MOST_ROWS", "sketch", "unsketch"]

Floats = npt.NDArray[np.floating[Any]]
U32 = npt.NDArray[np.uint32]

_PIECE = 1024
# Chunks of fewer columns are gone through coordinate by coordinate: a view takes longer.
_NARROW = 64


def sketch(x: Floats, rows: int, columns: int, key: tuple[int, int]) -> Floats:
    """Return the table, shape (rows, columns)."""
    table = np.zeros((rows, columns), dtype=x.dtype)
    _sketch(x, *_words_of(key), *_words_of(second_key(key)), table)
    return table


def unsketch(table: Floats, dim: int, key: tuple[int, int]) -> Floats:
    """Return the median over the rows of what they say of each coordinate."""
    out = np.empty(dim, dtype=table.dtype)
    _unsketch(table, *_words_of(key), *_words_of(second_key(key)), out)
    return out


def _words_of(key: tuple[int, int]) -> tuple[np.uint32, np.uint32]:
    return np.uint32(key[0]), np.uint32(key[1])


@jit
def _words(start: int, count: int, k0: np.uint32, k1: np.uint32, words: U32) -> None:
    """Return the random words of `count` coordinates, none in the next block of 1024."""
    b0, b1 = block_keys(k0, k1, start // 1024)
    place = np.uint32(start % 1024)
    for i in range(count):
        words[i] = mix(np.uint32(place + np.uint32(i)), b0, b1)


@jit
def _column(chunk: int, place: int, row: int, columns: int, b0: np.uint32, b1: np.uint32) -> Any:
    """Return the column of a coordinate; b0 and b1 are the keys of its chunk's shifts."""
    if columns == 1:
        return np.int64(0)
    word = np.uint64(mix(np.uint32(np.uint32(16 * (chunk & 63)) + np.uint32(row)), b0, b1))
    column = place + np.int64((word * np.uint64(columns)) >> np.uint64(32))
    return column - columns if column >= columns else column


@jit
def _add_signed(x: Floats, words: U32, row: np.uint32, cells: Floats) -> None:
    for i in range(cells.size):
        cells[i] += -x[i] if np.uint32(words[i] >> row) & np.uint32(1) else x[i]


@jit
def _take_signed(cells: Floats, words: U32, row: np.uint32, said: Floats) -> None:
    for i in range(cells.size):
        said[i] = -cells[i] if np.uint32(words[i] >> row) & np.uint32(1) else cells[i]


@jit
def _keys(at: int, count: int, columns: int, s0: np.uint32, s1: np.uint32, keys: U32) -> None:
    """Set `keys` to those of the shifts of `count` coordinates from `at` on."""
    first = at // columns // 64
    for block in range(first, (at + count - 1) // columns // 64 + 1):
        keys[block - first, 0], keys[block - first, 1] = block_keys(s0, s1, block)


@jit
def _add(at: int, x: Floats, row: int, words: U32, keys: U32, cells: Floats) -> None:
    """Add the values of coordinates from `at` on to a row of the table."""
    columns, bit = cells.size, np.uint32(row)
    chunk, place = at // columns, at % columns
    first = chunk >> 6
    done = 0
    while done < x.size:
        block = (chunk >> 6) - first
        column = _column(chunk, place, row, columns, keys[block, 0], keys[block, 1])
        end = x.size if columns == 1 else min(x.size, done + columns - place)
        if columns < _NARROW:
            for i in range(done, end):
                cells[column] += -x[i] if np.uint32(words[i] >> bit) & np.uint32(1) else x[i]
                column = np.int64(0) if column + 1 == columns else column + 1
        else:
            turn = min(end, done + columns - column)
            _add_signed(x[done:turn], words[done:turn], bit, cells[column : column + turn - done])
            _add_signed(x[turn:end], words[turn:end], bit, cells[: end - turn])
        done, chunk, place = end, chunk + 1, 0


@jit
def _take(at: int, cells: Floats, row: int, words: U32, keys: U32, said: Floats) -> None:
    """Set `said` to what a row of the table says of coordinates from `at` on."""
    columns, bit = cells.size, np.uint32(row)
    chunk, place = at // columns, at % columns
    first = chunk >> 6
    done = 0
    while done < said.size:
        block = (chunk >> 6) - first
        column = _column(chunk, place, row, columns, keys[block, 0], keys[block, 1])
        end = min(said.size, done + columns - place)
        turn = min(end, done + columns - column)
        _take_signed(cells[column : column + turn - done], words[done:turn], bit, said[done:turn])
        _take_signed(cells[: end - turn], words[turn:end], bit, said[turn:end])
        done, chunk, place = end, chunk + 1, 0


@jit
def _places(at: int, columns: int, chunks: U32, places: U32) -> None:
    """Set the chunks, counted from that of `at`, and the places in them of coordinates."""
    chunk, place = np.uint32(0), np.uint32(at % columns)
    for i in range(places.size):
        chunks[i], places[i] = chunk, place
        place = np.uint32(place + np.uint32(1))
        if place == columns:
            chunk, place = np.uint32(chunk + np.uint32(1)), np.uint32(0)


@jit
def _shifts(first: int, count: int, row: int, columns: int, keys: U32, shifts: U32) -> None:
    """Set the shifts of `count` chunks from `first` on, 64 with the same keys at a time."""
    at = 0
    while at < count:
        place, block = (first + at) & 63, ((first + at) >> 6) - (first >> 6)
        end = min(count, at + 64 - place)
        b0, b1 = keys[block, 0], keys[block, 1]
        base = np.uint32(16 * place + row)
        part = shifts[at:end]
        for i in range(part.size):
            word = np.uint64(mix(np.uint32(base + np.uint32(16) * np.uint32(i)), b0, b1))
            part[i] = np.uint32((word * np.uint64(columns)) >> np.uint64(32))
        at = end


@jit
def _take_narrow(
    cells: Floats, row: int, words: U32, chunks: U32, places: U32, shifts: U32, said: Floats
) -> None:
    """Do as `_take` with the shifts of the chunks, without a view for each of them."""
    columns, bit = np.uint32(cells.size), np.uint32(row)
    for i in range(said.size):
        column = np.uint32(places[i] + shifts[chunks[i]])
        value = cells[np.uint32(column - columns) if column >= columns else column]
        said[i] = -value if np.uint32(words[i] >> bit) & np.uint32(1) else value


@jit
def _sketch(
    x: Floats, k0: np.uint32, k1: np.uint32, s0: np.uint32, s1: np.uint32, table: Floats
) -> None:
    words, keys = empty_words(_PIECE), np.empty((_PIECE // 64 + 2, 2), dtype=np.uint32)
    for at in range(0, x.size, _PIECE):
        count = min(_PIECE, x.size - at)
        _words(at, count, k0, k1, words)
        _keys(at, count, table.shape[1], s0, s1, keys)
        for row in range(table.shape[0]):
            _add(at, x[at : at + count], row, words, keys, table[row])


@jit
def _order(low: Floats, high: Floats) -> None:
    for i in range(low.size):
        a, b = low[i], high[i]
        low[i] = a if a < b else b
        high[i] = b if a < b else a


@jit
def _unsketch(
    table: Floats, k0: np.uint32, k1: np.uint32, s0: np.uint32, s1: np.uint32, out: Floats
) -> None:
    rows, columns = table.shape
    words, keys = empty_words(_PIECE), np.empty((_PIECE // 64 + 2, 2), dtype=np.uint32)
    said = np.empty((rows, _PIECE), dtype=table.dtype)
    narrow = columns < _NARROW
    chunks, places, shifts = empty_words(_PIECE), empty_words(_PIECE), empty_words(_PIECE + 1)
    shifts[:] = np.uint32(0)
    zero = table.dtype.type(0)
    for at in range(0, out.size, _PIECE):
        count = min(_PIECE, out.size - at)
        _words(at, count, k0, k1, words)
        _keys(at, count, columns, s0, s1, keys)
        if narrow:
            _places(at, columns, chunks[:count], places[:count])
        for row in range(rows):
            part = said[row, :count]
            if narrow:
                if columns > 1:
                    _shifts(at // columns, chunks[count - 1] + 1, row, columns, keys, shifts)
                _take_narrow(table[row], row, words, chunks, places, shifts, part)
            else:
                _take(at, table[row], row, words, keys, part)
        # Rows rise until the middle one holds the median; each step orders two whole rows.
        for last in range(rows - 1, rows // 2 - 1, -1):
            for row in range(last):
                _order(said[row, :count], said[row + 1, :count])
        for i in range(count):
            out[at + i] = said[rows // 2, i] + zero
