"""Randomised Hadamard transforms in blocks: numpy's half.

Blocks of `size` coordinates, a power of two, are multiplied by random signs and by ``size**-0.5``,
then transformed by butterflies of distance 1, 2, 4, ..., each one addition and one subtraction: a
single order of roundings. Coordinates after the last whole block are covered by one more block that
ends with the vector and overlaps the one before, with signs of its own. So the map is orthogonal,
has no padding, and mixes every coordinate with ``size - 1`` others.

Source: Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform", SIAM J. Comput. 39, 2009.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.philox import words

Floats = npt.NDArray[np.floating[Any]]

_PIECE = 1 << 16
_FIRST, _LAST = 31, 30  # the bits of a coordinate's word that are its signs


def rotate(x: Floats, size: int, key: tuple[int, int]) -> Floats:
    """Return the transform of `x`; blocks of `size`, a power of two of at most ``x.size``."""
    out = np.empty_like(x)
    whole = x.size // size * size
    step = max(size, _PIECE)
    for start in range(0, whole, step):
        stop = min(start + step, whole)
        scaled = x[start:stop] * _signs(key, start, stop, _FIRST, x.dtype, size**-0.5)
        out[start:stop] = _transform(scaled, size)
    if whole < x.size:
        out[whole:] = x[whole:]
        start = x.size - size
        scaled = out[start:] * _signs(key, start, x.size, _LAST, x.dtype, size**-0.5)
        out[start:] = _transform(scaled, size)
    return out


def unrotate(y: Floats, size: int, key: tuple[int, int]) -> Floats:
    """Return the vector whose transform is `y`, up to rounding."""
    out = y.copy()
    scale = y.dtype.type(size**-0.5)
    whole = y.size // size * size
    if whole < y.size:
        start = y.size - size
        signs = _signs(key, start, y.size, _LAST, y.dtype, 1.0)
        out[start:] = _transform(out[start:] * scale, size) * signs
    step = max(size, _PIECE)
    for start in range(0, whole, step):
        stop = min(start + step, whole)
        signs = _signs(key, start, stop, _FIRST, y.dtype, 1.0)
        out[start:stop] = _transform(out[start:stop] * scale, size) * signs
    return out


def _transform(x: Floats, size: int) -> Floats:
    """Do the butterflies on each block of the fresh array `x`."""
    distance = 1
    while distance < size:
        pairs = x.reshape(-1, 2, distance)
        low = pairs[:, 0] + pairs[:, 1]
        pairs[:, 1] = pairs[:, 0] - pairs[:, 1]
        pairs[:, 0] = low
        distance *= 2
    return x


def _signs(
    key: tuple[int, int], start: int, stop: int, bit: int, dtype: np.dtype[Any], scale: float
) -> Floats:
    """Return the scale with a random sign for each coordinate from `start` to `stop`."""
    first = start // 1024
    word = words(key, first, -(-stop // 1024) - first).reshape(-1)
    word = word[start - first * 1024 : stop - first * 1024]
    negative = word >> np.uint32(bit) & np.uint32(1)
    one = dtype.type(scale)
    signs: Floats = np.where(negative == 1, -one, one)
    return signs
