"""Range asymmetric numeral systems: the compiled half; see `kernels.numpy.rans`."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowerpress.compressors.kernels.numba.jit import jit
from flowerpress.compressors.kernels.numpy.rans import BITS, LANES, LOW, TOTAL, U16, U32, Symbols

__all__ = ["decode", "encode"]


def encode(symbols: U32, frequencies: U32) -> tuple[U32, U16]:
    """Return the lanes, and the words in the order in which a reader takes them."""
    lanes = np.full(LANES, LOW, dtype=np.uint32)
    words = np.empty(symbols.size, dtype=np.uint16)  # at most one for each symbol
    free = _encode(symbols, frequencies, _starts(frequencies), lanes, words)
    return lanes, words[free:]


def decode(lanes: U32, words: U16, frequencies: U32, symbols: Symbols) -> bool:
    """Set all of `symbols`; return whether exactly these lanes and words hold them."""
    owner = np.repeat(np.arange(frequencies.size, dtype=np.uint16), frequencies)
    starts = _starts(frequencies)
    return bool(_decode(lanes.copy(), words, frequencies, starts, owner, symbols))


def _starts(frequencies: U32) -> U32:
    return (np.cumsum(frequencies) - frequencies).astype(np.uint32)


@jit
def _encode(symbols: U32, freq: U32, start: U32, lanes: U32, words: U16) -> int:
    free = words.size
    for i in range(symbols.size - 1, -1, -1):
        symbol, lane = symbols[i], i % LANES
        f, x = freq[symbol], lanes[lane]
        if np.uint64(x) >= np.uint64(f) << np.uint64(32 - BITS):
            free -= 1
            words[free] = np.uint16(x & np.uint32(0xFFFF))
            x = np.uint32(x >> np.uint32(16))
        share = np.uint32(x // f)
        rest = np.uint32(x - np.uint32(share * f))
        lanes[lane] = np.uint32(
            np.uint32(np.uint32(share << np.uint32(BITS)) + rest) + start[symbol]
        )
    return free


@jit
def _step(x: np.uint32, symbol: Any, freq: U32, start: U32) -> np.uint32:
    """Return a lane without its symbol."""
    slot = np.uint32(x & np.uint32(TOTAL - 1))
    share = np.uint32(freq[symbol] * np.uint32(x >> np.uint32(BITS)))
    return np.uint32(share + np.uint32(slot - start[symbol]))


@jit
def _decode(lanes: U32, words: U16, freq: U32, start: U32, owner: U16, symbols: Any) -> bool:
    taken, whole = 0, symbols.size // LANES * LANES
    mask, low, half = np.uint32(TOTAL - 1), np.uint32(LOW), np.uint32(16)
    at = 0
    # While there are words for a whole row, whether a lane takes one in needs no branch: it would
    # be guessed wrong often.
    while at < whole and taken + LANES <= words.size:
        for lane in range(LANES):
            x = lanes[lane]
            symbol = owner[x & mask]
            symbols[at + lane] = symbol
            x = _step(x, symbol, freq, start)
            more = np.uint32(np.uint32(x << half) | np.uint32(words[taken]))
            taken += int(x < low)
            lanes[lane] = more if x < low else x
        at += LANES
    for i in range(at, symbols.size):
        x = lanes[i % LANES]
        symbol = owner[x & mask]
        symbols[i] = symbol
        x = _step(x, symbol, freq, start)
        if x < low:
            if taken == words.size:
                return False
            x = np.uint32(np.uint32(x << half) | np.uint32(words[taken]))
            taken += 1
        lanes[i % LANES] = x
    for lane in lanes:
        if lane != low:
            return False
    return taken == words.size
