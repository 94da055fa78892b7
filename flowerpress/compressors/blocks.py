"""Blocks of coordinates that share a scale, and their scales."""

from __future__ import annotations

import numpy as np

from flowerpress.compressors.base import Vector
from flowerpress.compressors.kernels import kernels
from flowerpress.compressors.kernels.device import on_device
from flowerpress.compressors.kernels.packing import BLOCK
from flowerpress.compressors.kernels.sums import Offsets
from flowerpress.compressors.kernels.twins import twin


def equal_blocks(dim: int, size: int) -> Offsets:
    """Return the edges of blocks of `size` coordinates; 0 makes one block of all.

    >>> equal_blocks(5, 2)
    array([0, 2, 4, 5])
    >>> equal_blocks(5, 0)
    array([0, 5])
    """
    step = size if 0 < size < dim else dim
    edges = np.arange(0, dim + step, step, dtype=np.int64)
    edges[-1] = dim
    return edges


def start_aligned(offsets: Offsets) -> bool:
    """Return whether every block starts at a multiple of 1024 coordinates."""
    return offsets.size == 2 or not (offsets[:-1] % BLOCK).any()


def mean_magnitudes(x: Vector, offsets: Offsets) -> Vector:
    """Return ``|x_b|_1 / n_b`` of each block, summed in float64, in the dtype of `x`."""
    scaled, exponents = _without_overflow(x, offsets)
    means = kernels(x).block_sums(scaled, offsets, False) / np.diff(offsets)
    return _restore(means, exponents, x)


def root_mean_squares(x: Vector, offsets: Offsets) -> Vector:
    """Return ``|x_b|_2 / sqrt(n_b)`` of each block, in the dtype of `x`."""
    scaled, exponents = _without_overflow(x, offsets)
    means = kernels(x).block_sums(scaled, offsets, True) / np.diff(offsets)
    return _restore(np.sqrt(means), exponents, x)


def norms(x: Vector, offsets: Offsets) -> Vector:
    """Return ``|x_b|_2`` of each block; infinity where it overflows the dtype of `x`."""
    scaled, exponents = _without_overflow(x, offsets)
    roots = np.sqrt(kernels(x).block_sums(scaled, offsets, True))
    return _restore(roots, exponents, x)


def _without_overflow(x: Vector, offsets: Offsets) -> tuple[Vector, Offsets | None]:
    """Return `x` with each block scaled by a power of two to magnitudes below one.

    Sums of squares of float32 numbers neither overflow nor vanish in float64, so float32 stays as
    it is and the exponents are None.
    """
    if x.dtype == np.float32:
        return x, None
    _, exponents = np.frexp(twin("affine", x).block_maxima(x, offsets))
    if on_device(x):
        return kernels(x).scaled_blocks(x, -exponents, offsets), exponents.astype(np.int64)
    # Numbers far below the block's largest may underflow here; they are lost in the sum anyway.
    with np.errstate(under="ignore"):
        scaled = np.ldexp(x, -np.repeat(exponents, np.diff(offsets)))
    return scaled, exponents.astype(np.int64)


def _restore(values: Vector, exponents: Offsets | None, x: Vector) -> Vector:
    with np.errstate(over="ignore", under="ignore"):
        if exponents is not None:
            values = np.ldexp(values, exponents)
        return values.astype(x.dtype)
