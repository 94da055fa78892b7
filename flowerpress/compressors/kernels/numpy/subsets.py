"""Random subsets from a key: numpy's half.

`uniform_ids` walks a keyed permutation of [0, d): a Feistel network over the next power of two,
followed around its cycle until it lands inside. Source: Black and Rogaway, "Ciphers with arbitrary
finite domains", CT-RSA 2002.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.packing import pieces
from flowerpress.compressors.kernels.philox import block_keys, mix, words

U32 = npt.NDArray[np.uint32]

ROUNDS = 8
# Halves of at least four bits: smaller networks are visibly not uniform.
_MIN_BITS = 8


def feistel_halves(dim: int) -> tuple[int, int]:
    """Return the bits of the low and the high half of the network for [0, dim)."""
    bits = max(_MIN_BITS, (dim - 1).bit_length())
    return bits // 2, bits - bits // 2


def uniform_ids(k: int, dim: int, key: tuple[int, int]) -> U32:
    """Return k distinct places below `dim`: a k-subset, all of which are equally likely.

    The order is that of the permutation, not ascending. Whatever the key, the walks take at most
    ``max(2 * dim, 256)`` steps in all, since cycles do not meet.
    """
    k0, k1 = block_keys(key, 0, ROUNDS)
    ids = np.arange(k, dtype=np.uint32)
    for start, stop in pieces(k):
        part = ids[start:stop]
        part[:] = _feistel(part, dim, k0, k1)
        outside = np.flatnonzero(part >= dim)
        while outside.size:
            part[outside] = _feistel(part[outside], dim, k0, k1)
            outside = outside[part[outside] >= dim]
    return ids


def _feistel(x: U32, dim: int, k0: U32, k1: U32) -> U32:
    low_bits, high_bits = feistel_halves(dim)
    low = x & np.uint32((1 << low_bits) - 1)
    high = x >> np.uint32(low_bits)
    # An even number of rounds, each changing one half by a word of the other; the topmost bits of
    # the mixer's word are the best mixed.
    for r in range(0, ROUNDS, 2):
        low = low ^ (mix(high, k0[r], k1[r]) >> np.uint32(32 - low_bits))
        high = high ^ (mix(low, k0[r + 1], k1[r + 1]) >> np.uint32(32 - high_bits))
    return (high << np.uint32(low_bits)) | low


def stratified_ids(k: int, dim: int, key: tuple[int, int]) -> U32:
    """Return one place from each of k groups: group j is ``[j d // k, (j + 1) d // k)``.

    A place is ``(word * size) >> 32`` into its group, uniform up to ``size / 2**32``.
    """
    ids = np.empty(k, dtype=np.uint32)
    for start, stop in pieces(k):
        edges = np.arange(start, stop + 1, dtype=np.uint64) * np.uint64(dim) // np.uint64(k)
        word = words(key, start // 1024, -(-(stop - start) // 1024)).reshape(-1)[: stop - start]
        place = (word.astype(np.uint64) * np.diff(edges)) >> np.uint64(32)
        ids[start:stop] = edges[:-1] + place
    return ids
