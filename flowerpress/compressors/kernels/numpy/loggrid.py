"""The nearest of powers of two: numpy's half; `kernels.numba.loggrid` has the twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels import packing
from flowerpress.compressors.kernels.packing import U8, pieces

Floats = npt.NDArray[np.floating[Any]]


def grid_pack(x: Floats, largest: Any, bounds: Floats, width: int) -> U8:
    """Pack ``k + sign * level``, with k the number of `bounds`.

    The level is how many of `bounds`, ascending, ``|x| / largest`` reaches.
    """
    k, parts = bounds.size, []
    for start, stop in pieces(x.size):
        level = np.searchsorted(bounds, np.abs(x[start:stop]) / largest, side="right")
        codes = np.where(x[start:stop] < 0, k - level, k + level)
        parts.append(packing.pack(codes.astype(np.uint32), width))
    return np.concatenate(parts)


def grid_add(packed: U8, terms: Floats, width: int, out: Floats) -> None:
    """Add ``terms[code]`` to each coordinate."""
    for start, stop in pieces(out.size):
        first, last = packing.packed_bytes(start, width), packing.packed_bytes(stop, width)
        out[start:stop] += terms[packing.unpack(packed[first:last], stop - start, width)]
