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

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.packing import pieces
from flowerpress.compressors.kernels.philox import block_keys, words

Floats = npt.NDArray[np.floating[Any]]
U32 = npt.NDArray[np.uint32]

MOST_ROWS = 15
# The block whose Philox words are the second key: coordinates never come that far.
_SECOND_KEY = (1 << 32) - 1


def shifts(key: tuple[int, int], rows: int, columns: int, dim: int) -> U32:
    """Return the shift of each chunk in each row, shape (chunks, rows)."""
    chunks = -(-dim // columns)
    low, high = block_keys(key, _SECOND_KEY, 1)
    found = np.empty((chunks, rows), dtype=np.uint32)
    step = 1 << 16  # chunks at once: 1024 blocks of words
    for start in range(0, chunks, step):
        count = min(step, chunks - start)
        block = start // 64
        word = words((int(low[0]), int(high[0])), block, -(-count // 64)).reshape(-1, 16)
        found[start : start + count] = (
            word[:count, :rows].astype(np.uint64) * np.uint64(columns) >> np.uint64(32)
        ).astype(np.uint32)
    return found


def sketch(x: Floats, rows: int, columns: int, key: tuple[int, int]) -> Floats:
    """Return the table, shape (rows, columns); sums are in the dtype, in order of coordinates."""
    table = np.zeros((rows, columns), dtype=x.dtype)
    moved = shifts(key, rows, columns, x.size)
    for start, stop in pieces(x.size):
        places = np.arange(start, stop)
        word, piece = _words(key, start, stop), x[start:stop]
        for row in range(rows):
            column = (places + moved[places // columns, row]) % columns
            # add.at, unlike +=, adds to a cell as often as it is named, in order.
            np.add.at(table[row], column, _signed(piece, word, row))
    return table


def unsketch(table: Floats, dim: int, key: tuple[int, int]) -> Floats:
    """Return the median over the rows, an odd number, of what they say of each coordinate."""
    rows, columns = table.shape
    out = np.empty(dim, dtype=table.dtype)
    moved = shifts(key, rows, columns, dim)
    for start, stop in pieces(dim):
        places = np.arange(start, stop)
        word = _words(key, start, stop)
        said = np.empty((rows, stop - start), dtype=table.dtype)
        for row in range(rows):
            column = (places + moved[places // columns, row]) % columns
            said[row] = _signed(table[row, column], word, row)
        # + 0.0: which of two zeros of different sign is in the middle is not settled.
        out[start:stop] = np.sort(said, axis=0)[rows // 2] + table.dtype.type(0)
    return out


def _signed(values: Floats, word: U32, row: int) -> Floats:
    negative = word >> np.uint32(row) & np.uint32(1)
    signed: Floats = np.where(negative == 1, -values, values)
    return signed


def _words(key: tuple[int, int], start: int, stop: int) -> U32:
    first = start // 1024
    word = words(key, first, -(-stop // 1024) - first).reshape(-1)
    return word[start - first * 1024 : stop - first * 1024]
