"""Huffman codes: the compiled half; see `kernels.numpy.huffman`."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowerpress.compressors.kernels.numba.jit import jit
from flowerpress.compressors.kernels.numpy.huffman import (
    I64,
    LENGTH_BITS,
    U16,
    U32,
    Symbols,
    ends_exactly,
    stream_edges,
    table_of,
    words_of,
)

__all__ = ["decode", "encode"]

# An entry of a table is a symbol or a word, above its length.
_SHIFT = np.uint64(LENGTH_BITS)
_LENGTH = np.uint64((1 << LENGTH_BITS) - 1)


def encode(symbols: U32, lengths: U32) -> tuple[U32, U32]:
    """Return how many 32-bit words each stream has, and the streams one after the other."""
    edges = stream_edges(symbols.size)
    sizes = np.empty(edges.size - 1, dtype=np.uint32)
    words = words_of(lengths)
    room = -(-symbols.size * int(lengths.max()) // 32) + 2 * sizes.size
    stream = np.empty(room, dtype=np.uint32)
    used = _encode(symbols, words, edges, stream, sizes)
    return sizes, stream[:used]


def decode(sizes: U32, stream: U32, lengths: U32, symbols: Symbols) -> bool:
    """Set all of `symbols`; return whether exactly these streams hold them."""
    ends = np.cumsum(sizes, dtype=np.int64)
    at = ends - sizes
    edges = stream_edges(symbols.size)
    _decode(np.ascontiguousarray(stream), table_of(lengths), edges, at, symbols)
    return ends_exactly(stream, ends, sizes, at)


@jit
def _encode(symbols: U32, words: U32, edges: I64, stream: U32, sizes: U32) -> np.int64:
    at = np.int64(0)
    for part in range(sizes.size):
        first = at
        bits, held = np.uint64(0), np.uint64(0)
        # Two words of 15 bits fit beside what is held, 31 bits at most.
        for i in range(edges[part], edges[part + 1] - 1, 2):
            for word in (np.uint64(words[symbols[i]]), np.uint64(words[symbols[i + 1]])):
                bits |= (word >> _SHIFT) << held
                held += word & _LENGTH
            stream[at] = np.uint32(bits)  # written again until it is full
            full = held >> np.uint64(5)
            at += np.int64(full)
            bits >>= full << np.uint64(5)
            held &= np.uint64(31)
        if (edges[part + 1] - edges[part]) % 2:
            word = np.uint64(words[symbols[edges[part + 1] - 1]])
            bits |= (word >> _SHIFT) << held
            held += word & _LENGTH
        while held > np.uint64(0):
            stream[at] = np.uint32(bits)
            at += np.int64(1)
            bits >>= np.uint64(32)
            held -= min(held, np.uint64(32))
        sizes[part] = np.uint32(at - first)
    return at


@jit
def _filled(
    bits: np.uint64, held: np.uint64, at: np.int64, stream: U32
) -> tuple[np.uint64, np.uint64, np.int64]:
    """Take in a word if it fits, so that at least 32 bits are held; zeros beyond the end."""
    if held <= np.uint64(32):
        word = np.uint64(stream[at]) if at < stream.size else np.uint64(0)
        return bits | word << held, held + np.uint64(32), at + np.int64(1)
    return bits, held, at


@jit
def _decode(stream: U32, table: U16, edges: I64, at: I64, symbols: Any) -> None:
    """Decode four streams at once; `at` goes from each one's first word to the bit it ends at."""
    mask, zero = np.uint64(table.size - 1), np.uint64(0)
    for part in range(0, at.size, 4):
        p0, p1, p2, p3 = at[part], at[part + 1], at[part + 2], at[part + 3]
        b0, b1, b2, b3 = zero, zero, zero, zero
        h0, h1, h2, h3 = zero, zero, zero, zero
        s0 = symbols[edges[part] : edges[part + 1]]
        s1 = symbols[edges[part + 1] : edges[part + 2]]
        s2 = symbols[edges[part + 2] : edges[part + 3]]
        s3 = symbols[edges[part + 3] : edges[part + 4]]
        even = s3.size // 2 * 2  # of the shortest
        for i in range(0, even, 2):
            b0, h0, p0 = _filled(b0, h0, p0, stream)
            b1, h1, p1 = _filled(b1, h1, p1, stream)
            b2, h2, p2 = _filled(b2, h2, p2, stream)
            b3, h3, p3 = _filled(b3, h3, p3, stream)
            for j in range(i, i + 2):
                e0, e1 = np.uint64(table[b0 & mask]), np.uint64(table[b1 & mask])
                e2, e3 = np.uint64(table[b2 & mask]), np.uint64(table[b3 & mask])
                s0[j], s1[j] = e0 >> _SHIFT, e1 >> _SHIFT
                s2[j], s3[j] = e2 >> _SHIFT, e3 >> _SHIFT
                b0, h0 = b0 >> (e0 & _LENGTH), h0 - (e0 & _LENGTH)
                b1, h1 = b1 >> (e1 & _LENGTH), h1 - (e1 & _LENGTH)
                b2, h2 = b2 >> (e2 & _LENGTH), h2 - (e2 & _LENGTH)
                b3, h3 = b3 >> (e3 & _LENGTH), h3 - (e3 & _LENGTH)
        at[part] = _last(b0, h0, p0, stream, table, s0[even:])
        at[part + 1] = _last(b1, h1, p1, stream, table, s1[even:])
        at[part + 2] = _last(b2, h2, p2, stream, table, s2[even:])
        at[part + 3] = _last(b3, h3, p3, stream, table, s3[even:])


@jit
def _last(
    bits: np.uint64, held: np.uint64, at: np.int64, stream: U32, table: U16, symbols: Any
) -> np.int64:
    """Decode the last symbols of a stream, two at most; return the bit where it ends."""
    bits, held, at = _filled(bits, held, at, stream)
    for i in range(symbols.size):
        entry = np.uint64(table[bits & np.uint64(table.size - 1)])
        symbols[i] = entry >> _SHIFT
        bits >>= entry & _LENGTH
        held -= entry & _LENGTH
    return np.int64(32) * at - np.int64(held)
