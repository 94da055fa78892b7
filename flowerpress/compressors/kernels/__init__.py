"""Kernels: the loops over coordinates, each written twice, with byte-identical results.

============ =======================================================================
`choice`     which of them run: `kernels`, `kernels_of` and `twin`
`switching`  numpy's until numba's are compiled
`numpy`      in numpy's operations: the reference, and the fallback
`numba`      compiled; the same file names
`torch`      in torch's operations, for encoding what is on a device; the same file names
`device`     vectors that stay on their device
`paging`     numbers in files: a part at a time is in memory
`packing`    how codes are packed: the layout, and numpy's loops
`philox`     random words from keys
`sums`       the one order of sums
`scratch`    memory for codes, used again
`rounding`   how levels are rounded
`threads`    two threads for one long vector
`lowrank`    low-rank approximations, in one form for all
`arithmetic` the processor's default rules, for as long as packets are made and read
============ =======================================================================
"""

from __future__ import annotations

from flowerpress.compressors.kernels.choice import kernels, kernels_of, twin

__all__ = ["kernels", "kernels_of", "twin"]
