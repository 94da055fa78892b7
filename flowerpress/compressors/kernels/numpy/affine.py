"""Codes on evenly spaced points: numpy's half; `kernels.numba.affine` has the compiled twins.

Points run from ``mid - top * step`` to ``mid + top * step`` in steps of ``2 * step``; code c is
``mid + (2 c - top) * step``, so that points that lie symmetrically are symmetric to the last bit.

float32 is rounded in fixed point: the place between the points, in units of ``2**-digits`` of a
step, is an integer, and adding as many random binary digits carries into the code with a chance
equal to the fraction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels import packing
from flowerpress.compressors.kernels.packing import BLOCK, U8, U32, pieces
from flowerpress.compressors.kernels.philox import rounding_words
from flowerpress.compressors.kernels.sums import Offsets

Floats = npt.NDArray[np.floating[Any]]

# Below this largest magnitude, float32 is first scaled up, so that its reciprocal is finite.
TINY = 2.0**-60
SCALED_UP = 2.0**100
# In place of a random word, rounds to the nearest; ties go up.
HALF = 1 << 31


def fixed_digits(top: int) -> int:
    """Return the binary digits after the point that 31 bits leave beside the code `top`.

    >>> fixed_digits(1), fixed_digits(255)
    (30, 23)
    """
    return 31 - top.bit_length()


def block_maxima(x: Floats, offsets: Offsets) -> Floats:
    """Return the largest magnitude of each block; not finite where the block is not."""
    starts = offsets[:-1]  # and no vector of magnitudes is made
    most, least = np.maximum.reduceat(x, starts), np.minimum.reduceat(x, starts)
    largest: Floats = np.abs(np.maximum(most, -least))
    return largest


def uniform_pack(
    x: Floats,
    maxima: Floats,
    offsets: Offsets,
    top: int,
    width: int,
    key: tuple[int, int] | None,
) -> U8:
    """Round each coordinate to a code from 0 to `top` over its block's range, and pack the codes.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (d,)
    maxima : ndarray of the same dtype, shape (blocks,)
        Points run from minus to plus this; the codes of a block of zeros are zero.
    offsets : ndarray of int64, shape (blocks + 1,)
    top, width : int
        The largest code, and the bits of a code.
    key : tuple of int or None
        The key of the random words; None rounds to the nearest.
    """
    round_piece = _round_32 if x.dtype == np.float32 else _round_64
    parts = []
    for start, stop in pieces(x.size):
        codes = round_piece(
            x[start:stop], spread(maxima, offsets, start, stop), top, _words(key, start, stop)
        )
        parts.append(packing.pack(codes, width))
    return np.concatenate(parts)


def max_uniform_pack(
    x: Floats, bucket: int, top: int, width: int, key: tuple[int, int] | None
) -> tuple[Floats, U8]:
    """Return the float32 maximum of each bucket, whose size divides 1024, and the packed codes.

    Where a maximum is not finite the codes are arbitrary.
    """
    offsets = np.append(np.arange(0, x.size, bucket, dtype=np.int64), x.size)
    maxima = block_maxima(x, offsets)
    if not np.isfinite(maxima).all():
        return maxima, np.empty(0, dtype=np.uint8)
    return maxima, uniform_pack(x, maxima, offsets, top, width, key)


def _words(key: tuple[int, int] | None, start: int, stop: int) -> U32:
    if key is None:
        return np.full(stop - start, HALF, dtype=np.uint32)
    word = rounding_words(key, start // BLOCK, -(-stop // BLOCK) - start // BLOCK).reshape(-1)
    return word[: stop - start]


def _round_32(x: Floats, largest: Floats, top: int, word: U32) -> U32:
    digits = fixed_digits(top)
    reach = np.float32(top << (digits - 1))
    lift = np.where(largest < np.float32(TINY), np.float32(SCALED_UP), np.float32(1))
    factor = np.zeros_like(largest)
    np.divide(reach, largest * lift, out=factor, where=largest > 0)
    place = np.clip(x * lift * factor, -reach, reach).astype(np.int32)
    fixed = place.astype(np.uint32) + np.uint32(top << (digits - 1))
    codes = (fixed + (word >> np.uint32(32 - digits))) >> np.uint32(digits)
    codes[largest == 0] = 0
    return codes


def _round_64(x: Floats, largest: Floats, top: int, word: U32) -> U32:
    share = np.full_like(x, -1.0)
    np.divide(x, largest, out=share, where=largest > 0)
    place = share * (top / 2) + top / 2
    codes: U32 = (place + (word.astype(np.float64) + 0.5) * 2.0**-32).astype(np.uint32)
    codes[largest == 0] = 0
    return codes


def affine_add(
    packed: U8, mids: Floats, steps: Floats, offsets: Offsets, top: int, width: int, out: Floats
) -> None:
    """Add ``mids[b] + steps[b] * (2 code - top)`` to each coordinate of block b.

    `mids` and `steps` have the dtype of `out`.
    """
    for start, stop in pieces(out.size):
        first, last = packing.packed_bytes(start, width), packing.packed_bytes(stop, width)
        codes = packing.unpack(packed[first:last], stop - start, width)
        point = (codes.astype(np.int32) * np.int32(2) - np.int32(top)).astype(out.dtype)
        point *= spread(steps, offsets, start, stop)
        out[start:stop] += point + spread(mids, offsets, start, stop)


def spread(values: Floats, offsets: Offsets, start: int, stop: int) -> Floats:
    """Return, for each coordinate from `start` to `stop`, the value of its block."""
    first = int(np.searchsorted(offsets, start, side="right")) - 1
    last = int(np.searchsorted(offsets, stop, side="left"))
    edges = np.clip(offsets[first : last + 1], start, stop)
    return np.repeat(values[first:last], np.diff(edges))
