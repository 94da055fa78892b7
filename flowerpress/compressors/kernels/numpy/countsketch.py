"""Count sketches of vectors: numpy's half.

Coordinates come in chunks as long as a row of the table. Row r adds chunk j, each coordinate with a
random sign, shifted around by a random distance: neighbours stay neighbours, so rows are read and
written in order. Two coordinates of different chunks meet in a column with chance 1 / columns; two
of one chunk never do.

The sign of coordinate i in row r is bit r of its random word. The shift of chunk j in row r is
``floor(w * columns / 2**32)`` for w the word of ``16 j + r`` under a second key.

Source: Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", ICALP 2002, with
shifts in the place of hashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.philox import block_keys, words

Floats = npt.NDArray[np.floating[Any]]
U32 = npt.NDArray[np.uint32]

MOST_ROWS = 15
# The block whose Philox words are the second key: coordinates never come that far.
_SECOND_KEY = (1 << 32) - 1
_CHUNKS = 64  # of which a block of 1024 words has the shifts
_PIECE = 1 << 13


def second_key(key: tuple[int, int]) -> tuple[int, int]:
    """Return the key of the shifts."""
    low, high = block_keys(key, _SECOND_KEY, 1)
    return int(low[0]), int(high[0])


def _shifts(key: tuple[int, int], rows: int, columns: int, first: int, stop: int) -> U32:
    """Return the shift of each of some chunks in each row, shape (chunks, rows)."""
    block = first // _CHUNKS
    word = words(key, block, -(-stop // _CHUNKS) - block).reshape(-1, 16)
    word = word[first - block * _CHUNKS : stop - block * _CHUNKS, :rows]
    return (word.astype(np.uint64) * np.uint64(columns) >> np.uint64(32)).astype(np.uint32)


def _columns(
    key: tuple[int, int], rows: int, columns: int, start: int, stop: int
) -> npt.NDArray[np.int64]:
    """Return the column of each coordinate in each row, shape (rows, stop - start)."""
    place = np.arange(start, stop)
    first = start // columns
    moved = _shifts(key, rows, columns, first, (stop - 1) // columns + 1)
    return (place + moved[place // columns - first].T) % columns


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    """Split `count` coordinates: all that is said of a piece stays in the cache."""
    for start in range(0, count, _PIECE):
        yield start, min(start + _PIECE, count)


def sketch(x: Floats, rows: int, columns: int, key: tuple[int, int]) -> Floats:
    """Return the table, shape (rows, columns); sums are in the dtype, in order of coordinates."""
    table = np.zeros((rows, columns), dtype=x.dtype)
    second = second_key(key)
    for start, stop in _pieces(x.size):
        word, piece = _words(key, start, stop), x[start:stop]
        column = _columns(second, rows, columns, start, stop)
        for row in range(rows):
            # add.at, unlike +=, adds to a cell as often as it is named, in order.
            np.add.at(table[row], column[row], _signed(piece, word, row))
    return table


def unsketch(table: Floats, dim: int, key: tuple[int, int]) -> Floats:
    """Return the median over the rows, an odd number, of what they say of each coordinate."""
    rows, columns = table.shape
    out = np.empty(dim, dtype=table.dtype)
    second = second_key(key)
    for start, stop in _pieces(dim):
        word = _words(key, start, stop)
        column = _columns(second, rows, columns, start, stop)
        said = np.empty((rows, stop - start), dtype=table.dtype)
        for row in range(rows):
            said[row] = _signed(table[row, column[row]], word, row)
        said.sort(axis=0)
        # + 0.0: which of two zeros of different sign is in the middle is not settled.
        out[start:stop] = said[rows // 2] + table.dtype.type(0)
    return out


def _signed(values: Floats, word: U32, row: int) -> Floats:
    negative = word >> np.uint32(row) & np.uint32(1)
    signed: Floats = np.where(negative == 1, -values, values)
    return signed


def _words(key: tuple[int, int], start: int, stop: int) -> U32:
    first = start // 1024
    word = words(key, first, -(-stop // 1024) - first).reshape(-1)
    return word[start - first * 1024 : stop - first * 1024]
