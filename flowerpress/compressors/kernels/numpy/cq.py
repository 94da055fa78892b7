"""Correlated rounding: numpy's half; `kernels.numba.cq` has the compiled twin.

The senders of a cohort round with numbers U that are spread evenly: sender i of n uses
``U = (p + g) / n``, with g its own random fraction and p its rank in a random order of the cohort,
which must be uniform at each coordinate, and known to all without being sent. It is

    p = (order(i) + shift) mod n.

`order` is a random permutation, drawn anew for every `group_blocks` blocks, and `shift` a random
number below n, drawn for every coordinate. At each coordinate that is a uniform permutation, as
long as `order` is one; shifts alone are not enough, since senders of neighbouring ranks would keep
together.

All but the place of x between the points is integer arithmetic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels import packing
from flowerpress.compressors.kernels.packing import BLOCK, U8, U32, pieces
from flowerpress.compressors.kernels.philox import block_keys, mix, rounding_words

Floats = npt.NDArray[np.floating[Any]]
I64 = npt.NDArray[np.int64]
Key = tuple[int, int]


class Keys(NamedTuple):
    """The keys of the sender's own fractions, and of what the cohort shares."""

    own: Key
    shift: Key
    order: Key


def fixed_digits(top: int) -> int:
    """Return the binary digits after the point that 31 bits leave beside the code `top`."""
    return 31 - top.bit_length()


def group_blocks(cohort: int) -> int:
    """Return how many blocks share an order: more for larger cohorts, whose orders cost more."""
    return max(4, cohort // 64)


def orders(dim: int, cohort: int, rank: int, key: Key) -> I64:
    """Return the place of `rank` in the order of each group of blocks.

    The place is followed through the swaps of a Fisher-Yates shuffle of the cohort: for i = n - 1,
    ..., 1, places i and ``word_i * (i + 1) >> 32`` are swapped.
    """
    groups = -(-dim // (BLOCK * group_blocks(cohort)))
    k0, k1 = block_keys(key, 0, groups)
    place = np.full(groups, rank, dtype=np.int64)
    for i in range(cohort - 1, 0, -1):
        word = mix(np.full(groups, i, dtype=np.uint32), k0, k1).astype(np.uint64)
        other = ((word * np.uint64(i + 1)) >> np.uint64(32)).astype(np.int64)
        place = np.where(place == i, other, np.where(place == other, i, place))
    return place


def beyond(x: Floats, reaches: Floats) -> U32:
    """Return the places of the coordinates whose magnitude is above their block's reach."""
    places = [np.zeros(0, dtype=np.uint32)]
    for start, stop in pieces(x.size):
        first, last = start // BLOCK, -(-stop // BLOCK)
        reach = np.repeat(reaches[first:last], BLOCK)[: stop - start]
        found = np.flatnonzero(np.abs(x[start:stop]) > reach) + start
        places.append(found.astype(np.uint32))
    return np.concatenate(places)


def correlated_pack(
    x: Floats,
    reaches: Floats,
    scale: Any,
    offsets: I64,
    top: int,
    width: int,
    cohort: int,
    rank: int,
    keys: Keys,
) -> U8:
    """Round each coordinate to a code from 0 to `top` with the cohort's shared order, and pack.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (d,)
    reaches : ndarray, shape (blocks of 1024,), as `x`
        The range of a block is ``[-reach, reach]``; positive. What is beyond is rounded as its end.
    scale : float32 or float64, as `x`
        Half the range in units of a step, times ``2**digits``.
    offsets : ndarray of int64, shape (blocks of 1024,)
        The place of zero between the points, in the same units.
    top, width : int
        The largest code, and the bits of a code.
    cohort, rank : int
    keys : Keys
    """
    digits = fixed_digits(top)
    order = orders(x.size, cohort, rank, keys.order)
    block_order = np.repeat(order, group_blocks(cohort))
    parts = []
    for start, stop in pieces(x.size):
        first, count = start // BLOCK, -(-stop // BLOCK) - start // BLOCK
        word = rounding_words(keys.shift, first, count).astype(np.uint64)
        shift = ((word * np.uint64(cohort)) >> np.uint64(32)).astype(np.int64)
        place = (shift + block_order[first : first + count, None]) % cohort
        own = rounding_words(keys.own, first, count).astype(np.int64)
        spread = ((place << 32) + own).reshape(-1)[: stop - start]
        reach = np.repeat(reaches[first : first + count], BLOCK)[: stop - start]
        share = np.clip(x[start:stop] / reach, -1, 1)
        fixed = (share * scale).astype(np.int64)
        fixed += np.repeat(offsets[first : first + count], BLOCK)[: stop - start]
        fixed = np.clip(fixed, 0, top << digits)
        rest = ((fixed & ((1 << digits) - 1)) * cohort) << (32 - digits)
        codes = (fixed >> digits) + (spread < rest)
        parts.append(packing.pack(codes.astype(np.uint32), width))
    return np.concatenate(parts)
