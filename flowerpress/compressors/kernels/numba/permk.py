"""Who sends which coordinate: the compiled half; see `kernels.numpy.permk`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.jit import block_keys, jit, mix

U32 = npt.NDArray[np.uint32]

BLOCK = 1024


@jit
def _share_ids(ids: U32, cohort: int, rank: int, k0: np.uint32, k1: np.uint32) -> None:
    for start in range(0, ids.size, BLOCK):
        b0, b1 = block_keys(k0, k1, start // BLOCK)
        part = ids[start : start + BLOCK]
        for i in range(part.size):
            word = np.uint64(mix(np.uint32(i), b0, b1))
            place = np.int64((word * np.uint64(cohort)) >> np.uint64(32)) + rank
            place = place - cohort if place >= cohort else place
            part[i] = np.uint32((start + i) * cohort + place)


def share_ids(dim: int, cohort: int, rank: int, key: tuple[int, int]) -> U32:
    """Return the places that `rank` sends, ascending; needs ``cohort <= dim``."""
    ids = np.empty(-(-dim // cohort), dtype=np.uint32)
    _share_ids(ids, cohort, rank, np.uint32(key[0]), np.uint32(key[1]))
    # The last place may lie beyond the vector, even beyond 32 bits: there it wraps around.
    last = (ids.size - 1) * cohort
    beyond = int(ids[-1]) >= dim or int(ids[-1]) < last
    return ids[:-1] if beyond else ids
