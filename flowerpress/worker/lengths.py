"""How long a gradient is."""

from __future__ import annotations

import math
import sys
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.vectors import AnyVector, length_of

_MOST = 1 << 18  # numbers that are squared at once
_CALM = nullcontext()  # squares of float32 numbers, in float64, neither overflow nor underflow
_UNROLLED = 8  # numbers that numpy's sum takes at a time
FloatVector = npt.NDArray[np.floating[Any]]


def length(vector: AnyVector) -> float:
    """Return the l2 norm; NaN or infinite where, and only where, a number is not finite.

    Examples
    --------
    >>> float(f"{length(np.array([3e200, -4e200])):.6g}"), length(np.array([np.inf, 1.0]))
    (5e+200, inf)
    """
    if not isinstance(vector, np.ndarray):
        return length_of(vector)
    with _CALM if vector.dtype == np.float32 else np.errstate(over="ignore", invalid="ignore"):
        square = _square_sum(vector)
        if math.isfinite(square):
            return math.sqrt(square)
        largest = float(np.abs(vector).max())
        if not np.isfinite(largest):
            return largest
        scaled = vector / vector.dtype.type(largest)
        return min(largest * math.sqrt(_square_sum(scaled)), sys.float_info.max)


def _square_sum(vector: FloatVector) -> float:
    """Return |vector|^2 in float64, without BLAS, whose order of sums differs between machines.

    A long vector is halved as `numpy.sum` halves it: so the sum is the one that numpy has of all
    squares, to the last bit, and they are never there at once.
    """
    if vector.size > _MOST:
        half = vector.size // 2
        half -= half % _UNROLLED
        return _square_sum(vector[:half]) + _square_sum(vector[half:])
    return float(np.add.reduce(np.square(vector, dtype=np.float64)))
