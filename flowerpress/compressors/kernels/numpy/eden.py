"""Nearest centroids of a normal distribution: numpy's half, and the tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.packing import U8, U32, packed_bytes, pieces, unpack
from flowerpress.compressors.kernels.sums import Offsets

Floats = npt.NDArray[np.floating[Any]]

# Positive centroids that minimise the mean squared error for N(0, 1), for 1 to 6 bits.
# Source: Max, "Quantizing for minimum distortion", IRE Trans. Inf. Theory 6, 1960.
CENTROIDS: dict[int, tuple[float, ...]] = {
    1: (0.79788,),
    2: (0.45278, 1.51042),
    3: (0.24509, 0.75601, 1.34391, 2.15195),
    4: (0.1284, 0.38805, 0.65676, 0.94234, 1.25623, 1.61805, 2.06902, 2.73259),
    5: (
        0.06589,
        0.19805,
        0.33138,
        0.4667,
        0.60493,
        0.74714,
        0.89457,
        1.04878,
        1.2118,
        1.38634,
        1.57623,
        1.78723,
        2.02873,
        2.31774,
        2.69112,
        3.26073,
    ),
    6: (
        0.03341,
        0.10028,
        0.1673,
        0.23457,
        0.30219,
        0.37028,
        0.43895,
        0.50831,
        0.5785,
        0.64966,
        0.72192,
        0.79547,
        0.87048,
        0.94715,
        1.02574,
        1.10649,
        1.18972,
        1.27579,
        1.36514,
        1.45828,
        1.55583,
        1.65859,
        1.76754,
        1.88398,
        2.00961,
        2.14681,
        2.29898,
        2.4713,
        2.67227,
        2.91741,
        3.24044,
        3.7441,
    ),
}


def tables(bits: int, dtype: np.dtype[Any]) -> tuple[Floats, Floats]:
    """Return all ``2**bits`` centroids, ascending, and the edges between the positive ones."""
    half = np.array(CENTROIDS[bits])
    # Rounded to the dtype once: everything after is done in it.
    edges = ((half[1:] + half[:-1]) / 2).astype(dtype)
    return np.concatenate([-half[::-1], half]).astype(dtype), edges


def nearest(z: Floats, roots: Floats, offsets: Offsets, edges: Floats) -> U32:
    """Return the code of the centroid nearest to ``z / root`` of its block.

    Codes count the centroids in ascending order. Zero counts as positive; so does every
    coordinate of a block whose root is zero.
    """
    half = edges.size + 1
    codes = np.empty(z.size, dtype=np.uint32)
    for start, stop in pieces(z.size):
        root = spread(roots, offsets, start, stop)
        share = np.zeros(stop - start, dtype=z.dtype)
        np.divide(np.abs(z[start:stop]), root, out=share, where=root > 0)
        level = np.searchsorted(edges, share, side="left")
        negative = (z[start:stop] < 0) & (root > 0)
        codes[start:stop] = np.where(negative, half - 1 - level, half + level)
    return codes


def centroids_add(
    packed: U8, terms: Floats, offsets: Offsets, centroids: Floats, width: int, out: Floats
) -> None:
    """Add ``terms[b] * centroids[code]`` to each coordinate of block b, in the dtype of `out`."""
    for start, stop in pieces(out.size):
        first, last = packed_bytes(start, width), packed_bytes(stop, width)
        codes = unpack(packed[first:last], stop - start, width)
        out[start:stop] += spread(terms, offsets, start, stop) * centroids[codes]


def spread(values: Floats, offsets: Offsets, start: int, stop: int) -> Floats:
    """Return, for each coordinate from `start` to `stop`, the value of its block."""
    first = int(np.searchsorted(offsets, start, side="right")) - 1
    last = int(np.searchsorted(offsets, stop, side="left"))
    clipped = np.clip(offsets[first : last + 1], start, stop)
    return np.repeat(values[first:last], clipped[1:] - clipped[:-1])
