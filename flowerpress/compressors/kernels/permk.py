"""Who sends which coordinate: numpy's half of the kernel; `jit_permk` has the compiled twin."""

from __future__ import annotations

import numpy as np

from flowerpress.compressors.kernels.packing import U32
from flowerpress.compressors.kernels.philox import words


def share_ids(dim: int, cohort: int, rank: int, key: tuple[int, int]) -> U32:
    """Return the places that `rank` sends, ascending; needs ``cohort <= dim``.

    Coordinates fall in groups of `cohort` neighbours, each turned by a random amount that all
    senders share: the word of the group, scaled to ``[0, cohort)``. The sender's place in a group
    is its rank plus this amount, modulo `cohort`. In the last, shorter group some have no place.
    """
    groups = -(-dim // cohort)
    word = words(key, 0, -(-groups // 1024)).reshape(-1)[:groups].astype(np.uint64)
    turn = (word * np.uint64(cohort)) >> np.uint64(32)
    place = (turn + np.uint64(rank)) % np.uint64(cohort)
    ids = np.arange(groups, dtype=np.uint64) * np.uint64(cohort) + place
    if ids[-1] >= dim:
        ids = ids[:-1]
    return ids.astype(np.uint32)
