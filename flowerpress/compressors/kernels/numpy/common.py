"""The numpy half of the kernels: the reference, and the fallback where numba is missing.

Each function here has a twin of the same name and signature in ``kernels.numba.common`` that
gives the same bytes. Work goes through pieces of 64 blocks, so temporaries stay small.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels import packing
from flowerpress.compressors.kernels.numpy import id_codes, subsets
from flowerpress.compressors.kernels.packing import BLOCK, PIECE, U8, U32, pieces
from flowerpress.compressors.kernels.philox import rounding_words
from flowerpress.compressors.kernels.rounding import SCALED_UP, TINY_NORM, fixed_digits
from flowerpress.compressors.kernels.sums import F64, Offsets, block_sums, quick_norms

Floats = npt.NDArray[np.floating[Any]]

__all__ = [
    "block_sums",
    "code_above",
    "crc32",
    "levels_add",
    "levels_pack",
    "levels_squares",
    "nonfinite_position",
    "norm_levels_pack",
    "places",
    "rice_decode",
    "rice_encode",
    "scatter_add",
    "sign_add",
    "sign_pack",
    "sign_pack_with_sums",
    "stratified_ids",
    "top_ids",
    "uniform_ids",
    "varint_decode",
    "varint_encode",
]

uniform_ids = subsets.uniform_ids
stratified_ids = subsets.stratified_ids
rice_encode, rice_decode = id_codes.rice_encode, id_codes.rice_decode
places = id_codes.places
varint_encode, varint_decode = id_codes.varint_encode, id_codes.varint_decode


def crc32(data: U8, start: int) -> int:
    """Return the CRC-32 of zlib, of `data` after bytes whose CRC-32 is `start`."""
    return zlib.crc32(data.data, start)


def nonfinite_position(x: Floats) -> int:
    """Return the position of the first NaN or infinity, or -1."""
    for start, stop in pieces(x.size):
        wrong = ~np.isfinite(x[start:stop])
        if wrong.any():
            return start + int(np.argmax(wrong))
    return -1


def top_ids(x: Floats, k: int) -> U32:
    """Return the places of the k largest ``|x|``, ascending; ties go to the lowest place."""
    if k >= x.size:
        return np.arange(x.size, dtype=np.uint32)
    if x.size > PIECE * BLOCK:
        return _top_of_long(x, k)
    # |x| as integers: the order of non-negative floats is that of their bits.
    keys = np.abs(x).view(np.uint32 if x.dtype.itemsize == 4 else np.uint64)
    least = np.partition(keys, x.size - k)[x.size - k]
    above = np.flatnonzero(keys > least)
    ties = np.flatnonzero(keys == least)[: k - above.size]
    return np.sort(np.concatenate([above, ties])).astype(np.uint32)


def _top_of_long(x: Floats, k: int) -> U32:
    """Return `top_ids` in memory of a piece and of what is returned."""
    least, left = _least_kept(x, k)
    ids = []
    for start, stop in pieces(x.size):
        keys = np.abs(x[start:stop]).view(least.dtype)
        chosen = keys > least
        if left:
            ties = np.flatnonzero(keys == least)[:left]
            chosen[ties] = True
            left -= ties.size
        ids.append((np.flatnonzero(chosen) + start).astype(np.uint32))
    return np.concatenate(ids)


def _least_kept(x: Floats, k: int) -> tuple[np.unsignedinteger[Any], int]:
    """Return the least ``|x|`` of the k largest, as an integer, and how many of these are as large.

    Its bits are found 16 at a time, by counting.
    """
    unsigned = np.uint32 if x.dtype.itemsize == 4 else np.uint64
    first = 8 * x.dtype.itemsize - 16
    found = above = 0
    for shift in range(first, -1, -16):
        counts = np.zeros(1 << 16, np.int64)
        for start, stop in pieces(x.size):
            keys: npt.NDArray[Any] = np.abs(x[start:stop]).view(unsigned)
            digits = keys >> unsigned(shift)
            if shift < first:
                digits = digits[digits >> unsigned(16) == found] & unsigned(0xFFFF)
            if digits.size:
                counts += np.bincount(digits.astype(np.int64), minlength=counts.size)
        reached = above + np.cumsum(counts[::-1])
        depth = int(np.searchsorted(reached, k))
        above = int(reached[depth] - counts[-1 - depth])
        found = found << 16 | (counts.size - 1 - depth)
    return unsigned(found), k - above


def scatter_add(ids: U32, values: Floats, out: Floats) -> None:
    """Add values to ``out[ids]``; the ids are distinct."""
    out[ids] += values


def sign_pack(x: Floats) -> U8:
    """Pack one bit for each coordinate: 1 where ``x >= 0``."""
    parts = [packing.pack((x[a:b] >= 0).astype(np.uint32), 1) for a, b in pieces(x.size)]
    return np.concatenate(parts)


def sign_pack_with_sums(x: Floats, offsets: Offsets, square: bool) -> tuple[F64, U8]:
    """Return the block sums and the packed signs; blocks start at multiples of 1024."""
    return block_sums(x, offsets, square), sign_pack(x)


def sign_add(packed: U8, terms: Floats, offsets: Offsets, out: Floats) -> None:
    """Add ``terms[b]`` or ``-terms[b]`` to each coordinate of block b, by its bit."""
    for start, stop in pieces(out.size):
        piece = packed[start // 8 : packing.packed_bytes(stop, 1)]
        positive = packing.unpack(piece, stop - start, 1).astype(bool)
        values = _spread(terms, offsets, start, stop)
        out[start:stop] += np.where(positive, values, -values)


def levels_pack(
    x: Floats, norms: Floats, offsets: Offsets, levels: int, width: int, key: tuple[int, int]
) -> U8:
    """Round ``levels * |x| / norm`` to an integer at random and pack ``levels + sign * level``.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (d,)
    norms : ndarray of the same dtype, shape (blocks,)
        A block whose norm is zero gets level zero.
    offsets : ndarray of int64, shape (blocks + 1,)
    levels, width : int
        The largest level, and the bits of a code.
    key : tuple of int
        The key of the random words.
    """
    round_piece = _round_32 if x.dtype == np.float32 else _round_64
    parts = []
    for start, stop in pieces(x.size):
        norm = _spread(norms, offsets, start, stop)
        count = -(-stop // BLOCK) - start // BLOCK
        word = rounding_words(key, start // BLOCK, count).reshape(-1)
        codes = round_piece(x[start:stop], norm, levels, word[: stop - start])
        parts.append(packing.pack(codes, width))
    return np.concatenate(parts)


def norm_levels_pack(
    x: Floats, bucket: int, levels: int, width: int, key: tuple[int, int]
) -> tuple[Floats, U8]:
    """Return the float32 norm of each bucket, whose size divides 1024, and the packed codes.

    The same as `quick_norms` and `levels_pack`, but `x` is read once. A norm that is not finite is
    returned as it is, with arbitrary codes.
    """
    offsets = np.append(np.arange(0, x.size, bucket, dtype=np.int64), x.size)
    norms = quick_norms(x, bucket)
    if not np.isfinite(norms).all():
        return norms, np.empty(0, dtype=np.uint8)
    return norms, levels_pack(x, norms, offsets, levels, width, key)


def _round_32(x: Floats, norm: Floats, levels: int, word: U32) -> U32:
    """Return the codes of float32 coordinates; see `kernels.rounding`."""
    digits = fixed_digits(levels)
    lift = np.where(norm < np.float32(TINY_NORM), np.float32(SCALED_UP), np.float32(1))
    top = np.float32(levels << digits)
    factor = np.zeros_like(norm)
    np.divide(top, norm * lift, out=factor, where=norm > 0)
    scaled = np.clip(x * lift * factor, -top, top)
    dither = np.uint32(levels << digits) + (word >> np.uint32(32 - digits))
    codes: U32 = (scaled.astype(np.int32).view(np.uint32) + dither) >> np.uint32(digits)
    return codes


def _round_64(x: Floats, norm: Floats, levels: int, word: U32) -> U32:
    """Return the codes of float64 coordinates.

    The dither is an odd multiple of 2**-33. Such numbers lie symmetrically around 1/2, so rounding
    is unbiased to half a step of this grid, and a value that is on a level is never moved.
    """
    share = np.zeros_like(x)
    np.divide(np.abs(x), norm, out=share, where=norm > 0)
    scaled = np.minimum(share * levels, float(levels))
    level = np.floor(scaled)
    level += (word.astype(np.float64) * 2.0 + 1.0) * 2.0**-33 < scaled - level
    return np.where(x < 0, levels - level, levels + level).astype(np.uint32)


def code_above(packed: U8, count: int, width: int, top: int) -> int:
    """Return the position of the first code above `top`, or -1."""
    for start, stop in pieces(count):
        codes = _unpack_piece(packed, start, stop, width)
        wrong = codes > top
        if wrong.any():
            return start + int(np.argmax(wrong))
    return -1


def levels_add(
    packed: U8, steps: Floats, offsets: Offsets, levels: int, width: int, out: Floats
) -> None:
    """Add ``steps[b] * (code - levels)`` to each coordinate of block b; steps have out's dtype."""
    for start, stop in pieces(out.size):
        codes = _unpack_piece(packed, start, stop, width)
        signed = codes.astype(np.int32) - np.int32(levels)
        out[start:stop] += _spread(steps, offsets, start, stop) * signed.astype(out.dtype)


def levels_squares(packed: U8, steps: Floats, offsets: Offsets, levels: int, width: int) -> F64:
    """Return the sum of squares of each 1024 numbers that `levels_add` adds to zeros.

    In float64, each in the order of `kernels.sums`.
    """
    sums = []
    for start, stop in pieces(int(offsets[-1])):
        values = np.zeros(stop - start, steps.dtype)
        codes = _unpack_piece(packed, start, stop, width)
        values += codes.astype(np.int32) - np.int32(levels)
        values *= _spread(steps, offsets, start, stop)
        sums.append(
            block_sums(values, np.append(np.arange(0, values.size, BLOCK), values.size), True)
        )
    return np.concatenate(sums)


def _unpack_piece(packed: U8, start: int, stop: int, width: int) -> U32:
    piece = packed[packing.packed_bytes(start, width) : packing.packed_bytes(stop, width)]
    return packing.unpack(piece, stop - start, width)


def _spread(values: Floats, offsets: Offsets, start: int, stop: int) -> Floats:
    """Return, for each coordinate from `start` to `stop`, the value of its block."""
    first = int(np.searchsorted(offsets, start, side="right")) - 1
    last = int(np.searchsorted(offsets, stop, side="left"))
    edges = np.clip(offsets[first : last + 1], start, stop)
    return np.repeat(values[first:last], np.diff(edges))
