"""Kernels that choose coordinates: top-k, random subsets, and adding at places."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.jit import block_keys, empty_words, jit, mix

Floats = npt.NDArray[np.floating[Any]]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
Bits = npt.NDArray[np.unsignedinteger[Any]]

BLOCK = 1024
BINS = 2048
RUN = 16


@jit
def magnitude_histogram(bits: Bits, magnitude: Any, shift: Any) -> I64:
    """Count magnitudes by their top eleven bits."""
    # Four histograms in turn: neighbours often share a bin, and would wait for each other's store.
    counts = np.zeros((4, BINS), dtype=np.int64)
    fours = bits.size // 4 * 4
    for i in range(0, fours, 4):
        for j in range(4):
            counts[j, (bits[i + j] & magnitude) >> shift] += 1
    for i in range(fours, bits.size):
        counts[0, (bits[i] & magnitude) >> shift] += 1
    total: I64 = counts.sum(axis=0)
    return total


@jit
def candidates(bits: Bits, magnitude: Any, floor: Any, ids: U32, keys: Bits) -> None:
    """List the places and magnitudes of all coordinates from `floor` on; their number is known."""
    found = 0
    for start in range(0, bits.size, 32):
        piece = bits[start : start + 32]
        largest = piece[0] & magnitude
        for i in range(piece.size):
            value = piece[i] & magnitude
            largest = value if value > largest else largest
        if largest >= floor:
            for i in range(piece.size):
                value = piece[i] & magnitude
                if value >= floor:
                    ids[found] = np.uint32(start + i)
                    keys[found] = value
                    found += 1


@jit
def sampled(bits: Bits, magnitude: Any, runs: int, keys: Bits) -> None:
    """Set `keys` to the magnitudes of evenly spaced runs of 16 neighbours: a cache line each."""
    step = bits.size // runs
    for run in range(runs):
        for i in range(RUN):
            keys[run * RUN + i] = bits[run * step + i] & magnitude


@jit
def collect(bits: Bits, magnitude: Any, floor: Any, ids: U32, keys: Bits) -> int:
    """List the places and magnitudes of coordinates from `floor` on, ascending.

    Return their number, or -1 if there is too little room: 1024 entries must stay free.
    """
    flags = empty_words(BLOCK // 4).view(np.uint8)
    words = flags.view(np.uint64)
    found = 0
    for start in range(0, bits.size, BLOCK):
        if found + BLOCK > ids.size:
            return -1
        piece = bits[start : start + BLOCK]
        for i in range(piece.size):
            flags[i] = np.uint8(1) if piece[i] & magnitude >= floor else np.uint8(0)
        eights = piece.size // 8
        for eight in range(eights):
            at = 8 * eight
            if words[eight]:
                for i in range(8):  # no branch: a place that is not taken is written over
                    ids[found] = np.uint32(start + at + i)
                    keys[found] = piece[at + i] & magnitude
                    found += flags[at + i]
        for i in range(8 * eights, piece.size):
            ids[found] = np.uint32(start + i)
            keys[found] = piece[i] & magnitude
            found += flags[i]
    return found


@jit
def choose(ids: U32, keys: Bits, threshold: Any, k: int) -> U32:
    """Return the k places with keys above `threshold`, then equal to it, ascending."""
    above = 0
    for i in range(keys.size):
        above += keys[i] > threshold
    equal = k - above
    chosen = np.empty(k, dtype=np.uint32)
    found = 0
    for i in range(keys.size):
        take = keys[i] > threshold
        if keys[i] == threshold and equal > 0:
            equal -= 1
            take = True
        if take:
            chosen[found] = ids[i]
            found += 1
    return chosen


@jit
def scatter_add(ids: U32, values: Floats, out: Floats) -> None:
    """Add values at places."""
    for i in range(ids.size):
        out[ids[i]] += values[i]


@jit
def _network(x: U32, keys: U32, low_bits: int, high_bits: int) -> None:
    """Send each number through the Feistel network, a round at a time: rounds become vectors."""
    low_shift, high_shift = np.uint32(32 - low_bits), np.uint32(32 - high_bits)
    split, mask = np.uint32(low_bits), np.uint32((1 << low_bits) - 1)
    for r in range(0, keys.shape[0], 2):
        a0, a1, b0, b1 = keys[r, 0], keys[r, 1], keys[r + 1, 0], keys[r + 1, 1]
        for i in range(x.size):
            low, high = np.uint32(x[i] & mask), np.uint32(x[i] >> split)
            low = np.uint32(low ^ np.uint32(mix(high, a0, a1) >> low_shift))
            high = np.uint32(high ^ np.uint32(mix(low, b0, b1) >> high_shift))
            x[i] = np.uint32(np.uint32(high << split) | low)


@jit
def uniform_ids(
    ids: U32, dim: int, low_bits: int, high_bits: int, rounds: int, k0: np.uint32, k1: np.uint32
) -> None:
    """Walk each of 0, ..., k - 1 along its cycle of the Feistel network until it is below `dim`."""
    keys = np.empty((rounds, 2), dtype=np.uint32)
    for r in range(rounds):
        keys[r, 0], keys[r, 1] = block_keys(k0, k1, r)
    moving, place = empty_words(BLOCK), empty_words(BLOCK)
    for start in range(0, ids.size, BLOCK):
        part = ids[start : start + BLOCK]
        for i in range(part.size):
            part[i] = np.uint32(start + i)
            place[i] = np.uint32(i)
        outside = part.size
        while outside:
            for i in range(outside):
                moving[i] = part[place[i]]
            _network(moving[:outside], keys, low_bits, high_bits)
            left = 0
            for i in range(outside):  # no branch: a place that is done is written over
                part[place[i]] = moving[i]
                place[left] = place[i]
                left += moving[i] >= dim
            outside = left


@jit
def stratified_ids(ids: U32, dim: int, k0: np.uint32, k1: np.uint32) -> None:
    """Draw one place from each of k groups of neighbours."""
    k = ids.size
    size, left = dim // k, dim % k
    b0, b1 = np.uint32(0), np.uint32(0)
    start, owed = 0, 0
    for j in range(k):
        if j % BLOCK == 0:
            b0, b1 = block_keys(k0, k1, j // BLOCK)
        # The edge (j + 1) * dim // k, without a division for each group.
        owed += left
        longer = owed >= k
        owed -= k if longer else 0
        here = size + 1 if longer else size
        word = np.uint64(mix(np.uint32(j % BLOCK), b0, b1))
        ids[j] = np.uint32(np.uint64(start) + ((word * np.uint64(here)) >> np.uint64(32)))
        start += here
