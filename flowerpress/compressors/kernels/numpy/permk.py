"""Who sends which coordinate: numpy's half; `kernels.numba.permk` has the compiled twin."""

from __future__ import annotations

import numpy as np

from flowerpress.compressors.kernels.packing import BLOCK, U32, pieces
from flowerpress.compressors.kernels.philox import words


def share_ids(dim: int, cohort: int, rank: int, key: tuple[int, int]) -> U32:
    """Return the places that `rank` sends, ascending; needs ``cohort <= dim``.

    Coordinates fall in groups of `cohort` neighbours, each turned by a random amount that all
    senders share: the word of the group, scaled to ``[0, cohort)``. The sender's place in a group
    is its rank plus this amount, modulo `cohort`. In the last, shorter group some have no place.
    """
    groups = -(-dim // cohort)
    ids = np.empty(groups, dtype=np.uint32)
    last = 0
    for start, stop in pieces(groups):
        word = words(key, start // BLOCK, -(-(stop - start) // BLOCK)).reshape(-1)[: stop - start]
        turn = (word.astype(np.uint64) * np.uint64(cohort)) >> np.uint64(32)
        place = (turn + np.uint64(rank)) % np.uint64(cohort)
        found = np.arange(start, stop, dtype=np.uint64) * np.uint64(cohort) + place
        ids[start:stop], last = found.astype(np.uint32), int(found[-1])
    return ids if last < dim else ids[:-1]
