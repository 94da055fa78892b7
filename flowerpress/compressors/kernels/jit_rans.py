"""Range asymmetric numeral systems: the compiled half; see ``kernels.rans``."""

from __future__ import annotations

import numpy as np

from flowerpress.compressors.kernels.jit import jit
from flowerpress.compressors.kernels.rans import BITS, LANES, LOW, TOTAL, U16, U32

__all__ = ["decode", "encode"]


def encode(symbols: U32, frequencies: U32) -> tuple[U32, U16]:
    """Return the lanes, and the words in the order in which a reader takes them."""
    lanes = np.full(LANES, LOW, dtype=np.uint32)
    words = np.empty(symbols.size, dtype=np.uint16)  # at most one for each symbol
    free = _encode(symbols, frequencies, _starts(frequencies), lanes, words)
    return lanes, words[free:]


def decode(lanes: U32, words: U16, frequencies: U32, count: int) -> U32 | None:
    """Return the `count` symbols; None unless exactly these lanes and words hold them."""
    owner = np.repeat(np.arange(frequencies.size, dtype=np.uint16), frequencies)
    symbols = np.empty(count, dtype=np.uint32)
    starts = _starts(frequencies)
    if _decode(lanes.copy(), words, frequencies, starts, owner, symbols):
        return symbols
    return None


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
def _decode(lanes: U32, words: U16, freq: U32, start: U32, owner: U16, symbols: U32) -> bool:
    taken = 0
    mask = np.uint32(TOTAL - 1)
    for i in range(symbols.size):
        x = lanes[i % LANES]
        slot = np.uint32(x & mask)
        symbol = owner[slot]
        symbols[i] = np.uint32(symbol)
        x = np.uint32(
            np.uint32(freq[symbol] * np.uint32(x >> np.uint32(BITS)))
            + np.uint32(slot - start[symbol])
        )
        if x < np.uint32(LOW):
            if taken == words.size:
                return False
            x = np.uint32(np.uint32(x << np.uint32(16)) | np.uint32(words[taken]))
            taken += 1
        lanes[i % LANES] = x
    for lane in lanes:
        if lane != np.uint32(LOW):
            return False
    return taken == words.size
