"""Range asymmetric numeral systems: numpy's half.

Symbol i belongs to lane ``i mod 32``. A lane is a number below 2**32 that takes in a symbol of
frequency f (of ``TOTAL``) and start c as ``x -> (x // f) * TOTAL + x % f + c``; before that it
gives away its low 16 bits if it would grow too large. Lanes start at ``LOW`` and take the symbols
from the last to the first, so that they come out from the first to the last: a reader undoes the
step and then, if a lane is below ``LOW``, takes in the next 16 bits.

Source: Duda, "Asymmetric numeral systems", 2013; interleaving as in Giesen, "Interleaved entropy
coders", 2014.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Symbols = npt.NDArray[np.unsignedinteger[Any]]

LANES = 32
BITS = 14
TOTAL = 1 << BITS
LOW = 1 << 16


def encode(symbols: U32, frequencies: U32) -> tuple[U32, U16]:
    """Return the lanes, and the words in the order in which a reader takes them.

    Parameters
    ----------
    symbols : ndarray of uint32
    frequencies : ndarray of uint32
        Of each symbol; they add up to ``TOTAL``, and that of every symbol that occurs is not zero.
    """
    freq = frequencies.astype(np.uint64)
    start = np.cumsum(freq) - freq
    lanes = np.full(LANES, LOW, dtype=np.uint64)
    rows = []
    for at in reversed(range(0, symbols.size, LANES)):
        row = symbols[at : at + LANES]
        f = freq[row]
        x = lanes[: row.size]
        full = x >= f << np.uint64(32 - BITS)
        rows.append((x[full] & np.uint64(0xFFFF)).astype(np.uint16))
        x[full] >>= np.uint64(16)
        x[:] = ((x // f) << np.uint64(BITS)) + x % f + start[row]
    words = np.concatenate(rows[::-1]) if rows else np.empty(0, dtype=np.uint16)
    return lanes.astype(np.uint32), words


def decode(lanes: U32, words: U16, frequencies: U32, symbols: Symbols) -> bool:
    """Set all of `symbols`; return whether exactly these lanes and words hold them.

    Parameters
    ----------
    lanes, words, frequencies : ndarray
        As in `encode`.
    symbols : ndarray of uint8 or uint16
    """
    freq = frequencies.astype(np.uint64)
    start = np.cumsum(freq) - freq
    owner = np.repeat(np.arange(freq.size, dtype=np.uint32), frequencies)
    count, state, taken = symbols.size, lanes.astype(np.uint64), 0
    for at in range(0, count, LANES):
        x = state[: min(LANES, count - at)]
        slot = x & np.uint64(TOTAL - 1)
        row = owner[slot]
        symbols[at : at + LANES] = row
        x[:] = freq[row] * (x >> np.uint64(BITS)) + slot - start[row]
        empty = np.flatnonzero(x < LOW)
        if taken + empty.size > words.size:
            return False
        x[empty] = (x[empty] << np.uint64(16)) | words[taken : taken + empty.size]
        taken += empty.size
    return taken == words.size and not (state != LOW).any()
