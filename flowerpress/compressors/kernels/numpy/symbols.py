"""Packed codes as arrays of numbers, for stages that need each code: numpy's half."""

from __future__ import annotations

import numpy as np

from flowerpress.compressors.kernels.packing import U32, pack, unpack

__all__ = ["counts", "pack", "unpack"]


def counts(symbols: U32, width: int) -> U32:
    """Return how often each number below ``2**width`` occurs in `symbols`.

    >>> counts(np.array([2, 0, 2], dtype=np.uint32), 2)
    array([1, 0, 2, 0], dtype=uint32)
    """
    return np.bincount(symbols, minlength=1 << width).astype(np.uint32)
