"""The compiled half of the kernels; see ``kernels.numpy.common`` for what each function does."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels import philox
from flowerpress.compressors.kernels.numba import blocks as jit_blocks
from flowerpress.compressors.kernels.numba import crc as jit_crc
from flowerpress.compressors.kernels.numba import id_codes as jit_id_codes
from flowerpress.compressors.kernels.numba import levels as jit_levels
from flowerpress.compressors.kernels.numba import select as jit_select
from flowerpress.compressors.kernels.numba.intrinsics import has_carryless
from flowerpress.compressors.kernels.numpy import id_codes
from flowerpress.compressors.kernels.numpy.subsets import ROUNDS, feistel_halves
from flowerpress.compressors.kernels.packing import BLOCK, U8, U32, packed_bytes
from flowerpress.compressors.kernels.rounding import fixed_digits
from flowerpress.compressors.kernels.scratch import scratch
from flowerpress.compressors.kernels.sums import F64, Offsets

Floats = npt.NDArray[np.floating[Any]]
Bits = npt.NDArray[np.unsignedinteger[Any]]

# Coordinates from which a sample finds the k-th magnitude faster than a histogram does.
_SAMPLE_FROM = 1 << 19
_BINNED_FROM = 1 << 12  # below that a histogram has more bins than there are coordinates
_CARRYLESS = has_carryless()
# By the bytes of a number: the type of its bits, the mask of all but the sign, infinity's bits.
_BITS: dict[int, tuple[Any, Any, Any]] = {
    4: (np.uint32, np.uint32(0x7FFFFFFF), np.float32(np.inf).view(np.uint32)),
    8: (np.uint64, np.uint64(0x7FFFFFFFFFFFFFFF), np.float64(np.inf).view(np.uint64)),
}
_SHORT = 1 << 16  # bytes that zlib reads faster than another kernel is fetched from memory

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


def agree() -> bool:
    """Return whether compiled kernels give known numbers: two blocks' random words.

    Nearly every kernel depends on the functions behind them. It takes a few milliseconds where
    compiled kernels come from the disk.
    """
    words = np.empty(BLOCK, dtype=np.uint32)
    for block in (0, 0xABCDEF01):
        jit_levels.rounding_words(np.uint32(0x243F6A88), np.uint32(0x85A308D3), block, words)
        if (words != philox.rounding_words((0x243F6A88, 0x85A308D3), block, 1)[0]).any():
            return False
    return True


def crc32(data: U8, start: int) -> int:
    """Return the CRC-32 of zlib, of `data` after bytes whose CRC-32 is `start`."""
    whole = data.size // 128 * 128
    if whole <= _SHORT:
        return zlib.crc32(data.data, start)
    words = _aligned(data[:whole].view(np.uint32))
    register = np.uint32(~start & 0xFFFFFFFF)
    if _CARRYLESS:
        kept = words[:32].copy()
        kept[0] ^= register
        jit_crc.fold_carryless(words[32:], kept)
    else:
        kept = np.empty(1024, dtype=np.uint32)
        jit_crc.fold(words, register, kept)
    # The start is in `kept` already: all ones stand for the register zero.
    return zlib.crc32(data[whole:].data, zlib.crc32(kept.data, 0xFFFFFFFF))


def nonfinite_position(x: Floats) -> int:
    """Return the position of the first NaN or infinity, or -1."""
    unsigned, magnitude, infinity = _BITS[x.dtype.itemsize]
    return jit_blocks.first_nonfinite(x.view(unsigned), magnitude, infinity)


def block_sums(x: Floats, offsets: Offsets, square: bool) -> F64:
    """Return the sum of magnitudes or of squares over each block."""
    return jit_blocks.block_sums(x, offsets, square)


def top_ids(x: Floats, k: int) -> U32:
    """Return the places of the k largest magnitudes, ascending; ties go to the lowest place."""
    if k >= x.size:
        return np.arange(x.size, dtype=np.uint32)
    unsigned, magnitude, _ = _BITS[x.dtype.itemsize]
    bits = x.view(unsigned)
    if x.size < _BINNED_FROM:
        ids, keys = np.arange(x.size, dtype=np.uint32), bits & magnitude
    else:
        found = _above_sampled(bits, magnitude, k) if x.size >= _SAMPLE_FROM else None
        ids, keys = found or _above_binned(bits, magnitude, k)
    ordered = keys.copy()  # np.partition takes a fifth longer
    ordered.partition(ids.size - k)
    return jit_select.choose(ids, keys, ordered[ids.size - k], k)


def _above_sampled(
    bits: Bits, magnitude: np.unsignedinteger[Any], k: int
) -> tuple[U32, Bits] | None:
    """Return at least k places with the largest magnitudes, and these, from one pass over `bits`.

    The floor comes from a sample that has about a hundred of the k largest. None if it misled.
    """
    runs = min(bits.size // (16 * jit_select.RUN), max(64, 100 * bits.size // k // jit_select.RUN))
    sample = np.empty(runs * jit_select.RUN, dtype=bits.dtype)
    jit_select.sampled(bits, magnitude, runs, sample)
    expected = sample.size * k / bits.size
    depth = int(expected + 4 * np.sqrt(expected) + 2)
    if depth >= sample.size // 2:
        return None
    floor = np.partition(sample, sample.size - depth)[sample.size - depth]
    room = 2 * k + 2 * jit_select.BLOCK
    ids = scratch.empty(4 * room).view(np.uint32)
    keys = scratch.empty(bits.itemsize * room).view(bits.dtype)
    found = jit_select.collect(bits, magnitude, floor, ids, keys)
    return (ids[:found], keys[:found]) if found >= k else None


def _above_binned(bits: Bits, magnitude: np.unsignedinteger[Any], k: int) -> tuple[U32, Bits]:
    """Return at least k places with the largest magnitudes, and these, by a histogram."""
    shift = bits.dtype.type(8 * bits.dtype.itemsize - 12)
    counts = jit_select.magnitude_histogram(bits, magnitude, shift)
    reached = np.cumsum(counts[::-1])
    depth = int(np.searchsorted(reached, k))
    floor = bits.dtype.type(jit_select.BINS - 1 - depth) << shift
    room = int(reached[depth])
    ids = scratch.empty(4 * room).view(np.uint32)
    keys = scratch.empty(bits.itemsize * room).view(bits.dtype)
    jit_select.candidates(bits, magnitude, floor, ids, keys)
    return ids, keys


def scatter_add(ids: U32, values: Floats, out: Floats) -> None:
    """Add values to ``out[ids]``; the ids are distinct and below ``out.size``."""
    jit_select.scatter_add(ids, values, out)


def uniform_ids(k: int, dim: int, key: tuple[int, int]) -> U32:
    """Return k distinct places below `dim`, all subsets equally likely."""
    ids = np.empty(k, dtype=np.uint32)
    low, high = feistel_halves(dim)
    jit_select.uniform_ids(ids, dim, low, high, ROUNDS, np.uint32(key[0]), np.uint32(key[1]))
    return ids


def stratified_ids(k: int, dim: int, key: tuple[int, int]) -> U32:
    """Return one place from each of k groups of neighbours."""
    ids = np.empty(k, dtype=np.uint32)
    jit_select.stratified_ids(ids, dim, np.uint32(key[0]), np.uint32(key[1]))
    return ids


def varint_encode(gaps: U32) -> U8:
    """Return the gaps in groups of seven bits."""
    code = scratch.empty(5 * gaps.size)
    return code[: jit_id_codes.varint_encode(gaps, code)]


def varint_decode(code: U8, count: int) -> U32:
    """Return the gaps; ValueError unless there are `count`, each in its shortest form."""
    if count <= code.size:  # each takes a byte at least: a larger count gets no memory
        gaps = np.empty(count, dtype=np.uint32)
        if jit_id_codes.varint_decode(code, gaps):
            return gaps
    return id_codes.varint_decode(code, count)  # says what is wrong


def rice_encode(gaps: U32, p: int) -> U8:
    """Return the low p bits of each gap, then the high parts in unary."""
    cut = (gaps.size * p + 7) // 8
    unary = int((gaps >> np.uint32(p)).sum(dtype=np.uint64)) + gaps.size
    code = np.zeros(cut + (unary + 7) // 8, dtype=np.uint8)
    jit_id_codes.rice_encode(gaps, p, code[:cut], code[cut:])
    return code


def rice_decode(code: U8, count: int, p: int) -> U32:
    """Return the gaps; ValueError unless `code` holds exactly `count`."""
    cut = (count * p + 7) // 8
    # Each id takes a bit at least: a larger count cannot be right and gets no memory.
    if cut <= code.size and count <= 8 * code.size:
        gaps = np.empty(count, dtype=np.uint32)
        if jit_id_codes.rice_decode(code[:cut], code[cut:], p, gaps):
            return gaps
    return id_codes.rice_decode(code, count, p)  # says what is wrong


def places(gaps: U32) -> tuple[U32, int]:
    """Return the places that gaps lead to, and the last of them in full."""
    ids = np.empty(gaps.size, dtype=np.uint32)
    return ids, int(jit_id_codes.places(gaps, ids))


def sign_pack(x: Floats) -> U8:
    """Pack one bit for each coordinate: 1 where ``x >= 0``."""
    packed = scratch.empty(packed_bytes(x.size, 1))
    jit_blocks.sign_pack(x, *_split(packed, x.size, 1))
    return packed


def sign_pack_with_sums(x: Floats, offsets: Offsets, square: bool) -> tuple[F64, U8]:
    """Return the block sums and the packed signs; blocks start at multiples of 1024."""
    sums = np.empty(offsets.size - 1, dtype=np.float64)
    packed = scratch.empty(packed_bytes(x.size, 1))
    jit_blocks.sign_pack_with_sums(x, offsets, square, sums, *_split(packed, x.size, 1))
    return sums, packed


def sign_add(packed: U8, terms: Floats, offsets: Offsets, out: Floats) -> None:
    """Add ``terms[b]`` or ``-terms[b]`` to each coordinate of block b, by its bit."""
    jit_blocks.sign_add(*_split(packed, out.size, 1), terms, offsets, out)


def levels_pack(
    x: Floats, norms: Floats, offsets: Offsets, levels: int, width: int, key: tuple[int, int]
) -> U8:
    """Round each coordinate to a level of its block's norm and pack the codes."""
    packed = scratch.empty(packed_bytes(x.size, width))
    k0, k1 = np.uint32(key[0]), np.uint32(key[1])
    whole, rest = _split(packed, x.size, width)
    digits = np.uint32(fixed_digits(levels))
    jit_levels.levels_pack(x, norms, offsets, levels, width, digits, k0, k1, whole, rest)
    return packed


def norm_levels_pack(
    x: Floats, bucket: int, levels: int, width: int, key: tuple[int, int]
) -> tuple[Floats, U8]:
    """Return the float32 norm of each bucket, whose size divides 1024, and the packed codes."""
    norms = np.empty(-(-x.size // bucket), dtype=np.float32)
    packed = scratch.empty(packed_bytes(x.size, width))
    k0, k1 = np.uint32(key[0]), np.uint32(key[1])
    whole, rest = _split(packed, x.size, width)
    digits = np.uint32(fixed_digits(levels))
    jit_levels.norm_levels_pack(x, bucket, levels, width, digits, k0, k1, norms, whole, rest)
    return norms, packed


def code_above(packed: U8, count: int, width: int, top: int) -> int:
    """Return the position of the first code above `top`, or -1."""
    return jit_levels.code_above(*_split(packed, count, width), count, width, np.uint32(top))


def levels_add(
    packed: U8, steps: Floats, offsets: Offsets, levels: int, width: int, out: Floats
) -> None:
    """Add ``steps[b] * (code - levels)`` to each coordinate of block b."""
    whole, rest = _split(packed, out.size, width)
    jit_levels.levels_add(whole, rest, steps, offsets, levels, width, out)


def levels_squares(packed: U8, steps: Floats, offsets: Offsets, levels: int, width: int) -> F64:
    """Return the sum of squares of each 1024 numbers that `levels_add` adds."""
    count = int(offsets[-1])
    whole, rest = _split(packed, count, width)
    sums = np.empty(-(-count // BLOCK), dtype=np.float64)
    jit_levels.levels_squares(whole, rest, steps, offsets, levels, width, sums)
    return sums


def _split(packed: U8, count: int, width: int) -> tuple[U32, U8]:
    """Return the words of the whole blocks, aligned, and the bytes of the rest."""
    cut = packed_bytes(count // BLOCK * BLOCK, width)
    return _aligned(packed[:cut].view(np.uint32)), packed[cut:]


def _aligned(words: U32) -> U32:
    """Return `words`, or a copy where they lie at an odd address: `np.require` takes 3 us."""
    return words if words.flags.aligned else words.copy()
