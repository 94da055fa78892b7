"""Huffman codes: their tables, and numpy's half of the kernels.

A code is known by the lengths of its words. In the order of length, then symbol, the words are
consecutive binary numbers; each is written from its highest bit on. Symbols are split among
streams that are decoded side by side; each is a sequence of 32-bit words, filled from the lowest
bit. A reader looks the next bits up in a table of all that they can be.

Sources: Huffman, "A method for the construction of minimum-redundancy codes", 1952; Schwartz and
Kallick, "Generating a canonical prefix encoding", 1964; for bounded lengths Larmore and Hirschberg,
"A fast algorithm for optimal length-limited Huffman codes", 1990.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Symbols = npt.NDArray[np.unsignedinteger[Any]]

MAX_LENGTH = 15
LENGTH_BITS = 4  # of an entry of a table, below the symbol or the word
_GROUP = 4  # streams that the compiled kernel decodes at once


def code_lengths(counts: U32, limit: int) -> U32:
    """Return the lengths of the words of the shortest code whose words have `limit` bits at most.

    Package-merge: a word of n bits is n coins worth 1/2, 1/4, ..., each as heavy as the symbol is
    frequent; the lightest coins that are worth all symbols but one give the lengths.

    Parameters
    ----------
    counts : ndarray of uint32
        How often each symbol occurs, at most ``2**limit`` of them at all.
    limit : int

    Returns
    -------
    ndarray of uint32
        Zero for a symbol that does not occur, and for one that occurs alone.

    >>> code_lengths(np.array([1, 1, 2, 4, 0, 16], dtype=np.uint32), 15)
    array([4, 4, 3, 2, 0, 1], dtype=uint32)
    >>> code_lengths(np.array([1, 1, 2, 4, 0, 16], dtype=np.uint32), 3)
    array([3, 3, 3, 3, 0, 1], dtype=uint32)
    """
    used = np.flatnonzero(counts)
    order = used[np.argsort(counts[used], kind="stable")]
    leaves = counts[order].astype(np.uint64)
    packages = leaves[:0]
    levels = []
    for _ in range(limit):
        coins = np.concatenate([leaves, packages])
        rank = np.argsort(coins, kind="stable")
        levels.append(rank < leaves.size)
        pairs = coins[rank][: coins.size // 2 * 2]
        packages = pairs[::2] + pairs[1::2]
    lengths = np.zeros(counts.size, dtype=np.uint32)
    taken = 2 * (leaves.size - 1)
    for leaf in reversed(levels):
        lightest = int(np.count_nonzero(leaf[:taken]))
        lengths[order[:lightest]] += np.uint32(1)
        taken = 2 * (taken - lightest)
    return lengths


def is_complete(lengths: U32) -> bool:
    """Return whether words of these lengths, none for zero, are all that bits can be.

    That is Kraft's equality. A symbol alone has the empty word.

    >>> [is_complete(np.array(each, dtype=np.uint32)) for each in ([1, 2, 0, 2], [1, 1, 1], [0])]
    [True, False, True]
    """
    if lengths.size == 1:
        return not lengths[0]
    shares = np.uint64(1) << (MAX_LENGTH - lengths[lengths > 0].astype(np.uint64))
    return int(shares.sum()) == 1 << MAX_LENGTH


def words_of(lengths: U32) -> U32:
    """Return each symbol's word, first bit lowest, above four bits of its length.

    >>> [f"{word >> 4:b}" for word in words_of(np.array([2, 1, 3, 3], dtype=np.uint32))]
    ['1', '0', '11', '111']
    """
    order, widths, top = _canonical(lengths)
    starts = np.cumsum(widths) - widths
    words = np.zeros(lengths.size, dtype=np.uint32)
    words[order] = _reversed(starts.astype(np.uint32), top) << np.uint32(LENGTH_BITS)
    return words | lengths


def table_of(lengths: U32) -> U16:
    """Return, for all that the next bits can be, the symbol above four bits of its length."""
    order, widths, top = _canonical(lengths)
    entries = (order.astype(np.uint32) << np.uint32(LENGTH_BITS)) | lengths[order]
    by_word = np.repeat(entries.astype(np.uint16), widths)
    return by_word[_reversed(np.arange(1 << top, dtype=np.uint32), top)]


def _canonical(lengths: U32) -> tuple[I64, I64, int]:
    """Return the symbols in the order of their words, how many entries each has, and their bits."""
    order = np.flatnonzero(lengths) if lengths.size > 1 else np.zeros(1, dtype=np.int64)
    order = order[np.argsort(lengths[order], kind="stable")]
    top = int(lengths.max())
    return order, np.int64(1) << (top - lengths[order].astype(np.int64)), top


def _reversed(numbers: U32, bits: int) -> U32:
    """Return numbers of so many bits with the bits in the other order."""
    return _all_reversed()[numbers] >> np.uint32(MAX_LENGTH - bits)


@cache
def _all_reversed() -> U32:
    """Return all numbers of `MAX_LENGTH` bits with their bits in the other order."""
    found = np.zeros(1, dtype=np.uint32)
    for place in range(MAX_LENGTH):
        found = np.concatenate([found, found | np.uint32(1 << (MAX_LENGTH - 1 - place))])
    return found


def stream_edges(count: int) -> I64:
    """Return where the streams of `count` symbols start, and the end.

    There are four for each 8192 symbols, at most 32; the first ones have a symbol more.

    >>> stream_edges(10)
    array([ 0,  3,  6,  8, 10])
    """
    streams = _GROUP * min(8, 1 + count // 8192)
    each, more = divmod(count, streams)
    place = np.arange(streams + 1, dtype=np.int64)
    return place * each + np.minimum(place, more)


def encode(symbols: U32, lengths: U32) -> tuple[U32, U32]:
    """Return how many 32-bit words each stream has, and the streams one after the other.

    Parameters
    ----------
    symbols : ndarray of uint32
    lengths : ndarray of uint32
        Of a complete code in which all of `symbols` have a word.
    """
    words = words_of(lengths)
    edges = stream_edges(symbols.size)
    streams = [_stream(words[symbols[start:stop]]) for start, stop in pairwise(edges)]
    return np.array([each.size for each in streams], dtype=np.uint32), np.concatenate(streams)


def _stream(words: U32) -> U32:
    lengths = words & np.uint32((1 << LENGTH_BITS) - 1)
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = ends - lengths
    total = int(ends[-1]) if ends.size else 0
    wide = (words >> np.uint32(LENGTH_BITS)).astype(np.uint64) << (starts % 32).astype(np.uint64)
    stream = np.zeros(-(-total // 32) + 2, dtype=np.uint32)
    # No two words share a bit, so sums are unions.
    np.add.at(stream, starts // 32, wide.astype(np.uint32))
    np.add.at(stream, starts // 32 + 1, (wide >> np.uint64(32)).astype(np.uint32))
    return stream[:-2]


def decode(sizes: U32, stream: U32, lengths: U32, symbols: Symbols) -> bool:
    """Set all of `symbols`; return whether exactly these streams hold them.

    Parameters
    ----------
    sizes : ndarray of uint32
        How many 32-bit words each stream has; they add up to the size of `stream`.
    stream : ndarray of uint32
    lengths : ndarray of uint32
        Of a complete code.
    symbols : ndarray of uint8 or uint16
    """
    edges = stream_edges(symbols.size)
    table = table_of(lengths)
    padded = np.append(stream, np.zeros(2, dtype=np.uint32)).astype(np.uint64)
    # At each word the 64 bits from there on.
    pairs = padded[:-1] | padded[1:] << np.uint64(32)
    ends = np.cumsum(sizes, dtype=np.int64)
    at = 32 * (ends - sizes)
    for row in range(int(edges[1])):
        live = int(np.count_nonzero(edges[:-1] + row < edges[1:]))
        place = at[:live]
        bits = pairs[np.minimum(place >> 5, stream.size)] >> (place & 31).astype(np.uint64)
        entry = table[(bits & np.uint64(table.size - 1)).astype(np.int64)]
        symbols[edges[:live] + row] = entry >> np.uint16(LENGTH_BITS)
        place += entry & np.uint16((1 << LENGTH_BITS) - 1)
    return ends_exactly(stream, ends, sizes, at)


def ends_exactly(stream: U32, ends: I64, sizes: U32, at: I64) -> bool:
    """Return whether each stream was read into its last word, and the rest of that is zeros.

    `ends` are the words and `at` the bits where the streams end and where reading ended.
    """
    if (-(-at // 32) != ends).any():
        return False
    last = stream[ends[sizes > 0] - 1].astype(np.int64)
    spare = (-at % 32)[sizes > 0]
    return not (last >> (32 - spare)).any()
