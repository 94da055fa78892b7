"""Shared randomness: Philox4x32-10 for keys, a keyed 32-bit mixer for each coordinate.

Counter-based integer generators give the same bits in any language and on any device, and need no
state. Coordinates come in blocks of 1024: Philox turns (key, block) into two words, and the mixer
turns these and the place in the block into one word per coordinate.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox). The mixer
takes its shifts and multipliers from Wellons' triple32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]

_MASK = 0xFFFFFFFF
_MUL_0, _MUL_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85


def philox4x32(
    counter: tuple[int, int, int, int], key: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return Philox4x32-10 of four counter words under two key words.

    Examples
    --------
    The known answer of the Random123 distribution:

    >>> [f"{word:08x}" for word in philox4x32((0, 0, 0, 0), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _MUL_0 * c0, _MUL_1 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


def block_keys(key: tuple[int, int], first: int, count: int) -> tuple[U32, U32]:
    """Return the two key words of blocks `first`, ..., ``first + count - 1``, as two arrays."""
    c0 = np.arange(first, first + count, dtype=np.uint64)
    c1, c2, c3 = (np.zeros(count, dtype=np.uint64) for _ in range(3))
    mask, half = np.uint64(_MASK), np.uint64(32)
    k0, k1 = key
    for _ in range(10):
        p0, p1 = np.uint64(_MUL_0) * c0, np.uint64(_MUL_1) * c2
        c0, c1, c2, c3 = (
            (p1 >> half) ^ c1 ^ np.uint64(k0),
            p1 & mask,
            (p0 >> half) ^ c3 ^ np.uint64(k1),
            p0 & mask,
        )
        k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
    return c0.astype(np.uint32), c1.astype(np.uint32)


def mix(index: U32, k0: U32 | np.uint32, k1: U32 | np.uint32) -> U32:
    """Return one pseudo-random word for each index under the keys `k0` and `k1` (broadcast)."""
    x = index * np.uint32(_WEYL_0) + k0
    x = (x ^ (x >> np.uint32(17))) * np.uint32(0xED5AD4BB)
    x = ((x ^ (x >> np.uint32(11))) + k1) * np.uint32(0xAC4C1B51)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x31848BAB)
    return x ^ (x >> np.uint32(14))


def mix_pair(index: U32, k0: U32 | np.uint32, k1: U32 | np.uint32) -> tuple[U32, U32]:
    """Return two pseudo-random words for each index: `mix` with two endings, for less than two.

    Both are permutations of the same 32-bit state, so each is as uniform as `mix`. Their pairs take
    2**32 values out of 2**64: enough for roundings, which look at the top bits, and for nothing
    that needs all 64 bits to be independent.
    """
    x = index * np.uint32(_WEYL_0) + k0
    x = (x ^ (x >> np.uint32(17))) * np.uint32(0xED5AD4BB)
    x = ((x ^ (x >> np.uint32(11))) + k1) * np.uint32(0xAC4C1B51)
    first = (x ^ (x >> np.uint32(15))) * np.uint32(0x31848BAB)
    second = (x ^ (x >> np.uint32(13))) * np.uint32(0x7FEB352D)
    return first ^ (first >> np.uint32(14)), second ^ (second >> np.uint32(16))


def rounding_words(key: tuple[int, int], first: int, count: int) -> U32:
    """Return words for random roundings: places i and i + 512 of a block have one state.

    Returns
    -------
    ndarray of uint32, shape (count, 1024)
    """
    k0, k1 = block_keys(key, first, count)
    pair = mix_pair(np.arange(512, dtype=np.uint32)[None, :], k0[:, None], k1[:, None])
    return np.concatenate(pair, axis=1)


def words(key: tuple[int, int], first: int, count: int) -> U32:
    """Return the words of the coordinates of `count` blocks from block `first` on.

    Returns
    -------
    ndarray of uint32, shape (count, 1024)
    """
    k0, k1 = block_keys(key, first, count)
    return mix(np.arange(1024, dtype=np.uint32)[None, :], k0[:, None], k1[:, None])
