"""The range over which a quantizer's points lie: what it may be, and how large it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flowerpress.compressors.base import Vector, refuse_nonfinite
from flowerpress.compressors.fields import real
from flowerpress.compressors.kernels import twin
from flowerpress.compressors.kernels.packing import BLOCK
from flowerpress.compressors.kernels.sums import Offsets
from flowerpress.compressors.quantized import blocks
from flowerpress.compressors.wire.payload import require_finite

RMS, MAX, L2, SHARED = NAMES = ("rms", "max", "l2", "shared")
Range = str | float
NEAR = 2.0
"""How many times a sender's own range the cohort's may be, for it to be used."""


def parse(text: str) -> Range:
    """Return a name, or the number that `text` is."""
    if text in NAMES:
        return text
    try:
        return real(text)
    except ValueError:
        raise ValueError(f"must be a number, {', '.join(NAMES)}, got {text!r}") from None


def require_range(value: object) -> None:
    """Raise ValueError unless `value` is a name or a positive number."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value not in NAMES and not (number and 0 < value < math.inf):  # type: ignore[operator]
        names = ", ".join(NAMES)
        raise ValueError(f"range must be a positive number or one of {names}, got {value!r}")


def widest(c: float, size: int) -> float:
    """Return the range of a block in root mean squares: `c`, or less where no value is beyond.

    No value is beyond the block's norm, which is ``sqrt(size)`` root mean squares.

    >>> widest(3.0, 100), widest(3.0, 4)
    (3.0, 2.0)
    """
    return min(c, math.sqrt(size))


def count(dim: int, bucket: int) -> int:
    """Return the number of buckets; see `edges`."""
    if not bucket or dim <= bucket:
        return 1
    regular = -(-(dim - bucket) // bucket)
    return regular + ((dim - bucket) // BLOCK * BLOCK > (regular - 1) * bucket)


def edges(dim: int, bucket: int) -> Offsets:
    """Return the edges of the buckets: multiples of the size, but that the last one is whole.

    It begins as long before the end, at the multiple of 1024 before that, as the last block of a
    rotation does.

    >>> edges(5000, 2048).tolist(), edges(4096, 2048).tolist(), edges(1500, 1024).tolist()
    ([0, 2048, 5000], [0, 2048, 4096], [0, 1500])
    >>> edges(6500, 2048).tolist(), edges(6500, 0).tolist(), count(6500, 2048)
    ([0, 2048, 4096, 6500], [0, 6500], 3)
    """
    if not bucket or dim <= bucket:
        return np.array([0, dim], dtype=np.int64)
    starts = np.arange(0, dim - bucket, bucket, dtype=np.int64)
    last = (dim - bucket) // BLOCK * BLOCK
    return np.concatenate([starts[starts < last], np.array([last, dim], dtype=np.int64)])


def own(x: Vector, kind: Range, c: float, bucket: int) -> Vector:
    """Return the range of each bucket of `x`, finite.

    Raises
    ------
    ValueError
        `x` is not finite, or a range overflows the dtype.
    """
    if isinstance(kind, float | int):
        refuse_nonfinite(x)
        with np.errstate(over="ignore"):
            ranges = np.array([kind]).astype(x.dtype)
        require_finite(ranges, "range")
        if not ranges[0] > 0:
            raise ValueError(f"compress: the range {kind!r} is zero in {x.dtype}")
        return ranges
    offsets = edges(x.size, bucket)
    if kind == MAX:
        ranges = twin("affine", x).block_maxima(x, offsets)
    elif kind == L2:
        ranges = blocks.norms(x, offsets)
    else:
        roots = blocks.root_mean_squares(x, offsets).astype(np.float64)
        factors = [widest(c, int(size)) for size in np.diff(offsets)]
        with np.errstate(over="ignore", under="ignore"):
            ranges = (roots * factors).astype(x.dtype)
    if not np.isfinite(ranges).all():
        refuse_nonfinite(x)
    require_finite(ranges, "norm" if kind == L2 else "range")
    return ranges


def agreed(own_range: Vector, reach: float) -> Vector:
    """Return the cohort's range where it is near the sender's own, else the sender's.

    >>> agreed(np.array([1.0]), 1.5), agreed(np.array([1.0]), 0.9), agreed(np.array([1.0]), 2.5)
    (array([1.5]), array([1.]), array([1.]))
    """
    with np.errstate(over="ignore"):
        theirs = np.array([reach]).astype(own_range.dtype)
    near = own_range[0] <= theirs[0] <= NEAR * float(own_range[0])
    return theirs if near and np.isfinite(theirs[0]) else own_range


def of_blocks(ranges: Vector, offsets: Offsets) -> Vector:
    """Return the range of each block of 1024 coordinates, from those of the buckets."""
    spread: np.ndarray[Any, Any] = np.repeat(ranges, np.diff(-(-offsets // BLOCK)))
    return spread
