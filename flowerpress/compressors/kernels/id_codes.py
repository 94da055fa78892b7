"""Varint and Rice codes of gaps: numpy's half; `compressors.ids` says what they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.packing import U8, U32, pack_stream, unpack_stream


def varint_lengths(gaps: U32) -> U8:
    """Return the bytes that each gap takes: one for every seven bits."""
    limits = np.array([1 << 7, 1 << 14, 1 << 21, 1 << 28], dtype=np.uint32)
    return (np.searchsorted(limits, gaps, side="right") + 1).astype(np.uint8)


def varint_encode(gaps: U32) -> U8:
    """Return the gaps in groups of seven bits."""
    lengths = varint_lengths(gaps)
    shifts = np.arange(5, dtype=np.uint32)
    groups = (gaps[:, None] >> (shifts * np.uint32(7))) & np.uint32(0x7F)
    groups |= np.where(shifts < lengths[:, None] - 1, np.uint32(0x80), np.uint32(0))
    return groups.astype(np.uint8)[shifts < lengths[:, None]]


def varint_decode(code: U8, count: int) -> U32:
    """Return the gaps; ValueError unless there are `count`, each in its shortest form."""
    ends = np.flatnonzero(code < 0x80)
    if ends.size != count or (code.size and code[-1] >= 0x80):
        raise ValueError(f"{ends.size} varint ids instead of {count}")
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[:count]
    lengths = ends - starts + 1
    too_long = (lengths > 5) | ((lengths > 1) & (code[ends] == 0))
    too_long |= (lengths == 5) & (code[ends] > 0x0F)
    if too_long.any():
        raise ValueError(f"varint id {int(np.argmax(too_long))} is not the shortest of its value")
    place = (np.arange(code.size) - np.repeat(starts, lengths)).astype(np.uint32)
    groups = (code & np.uint8(0x7F)).astype(np.uint32) << (np.uint32(7) * place)
    if not count:
        return groups
    return np.add.reduceat(groups, starts, dtype=np.uint32)


def rice_encode(gaps: U32, p: int) -> U8:
    """Return the low p bits of each gap, then the high parts in unary: zeros, ended by a one."""
    low = pack_stream(gaps & np.uint32((1 << p) - 1), p)
    ends = np.cumsum((gaps >> np.uint32(p)).astype(np.int64) + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1, dtype=np.uint8)
    unary[ends] = 1
    return np.concatenate([low, np.packbits(unary, bitorder="little")])


def rice_decode(code: U8, count: int, p: int) -> U32:
    """Return the gaps; ValueError unless `code` holds exactly `count`."""
    cut = (count * p + 7) // 8
    if cut > code.size:
        raise ValueError(f"{count} Rice ids take at least {cut} bytes, got {code.size}")
    if count * p % 8 and code[cut - 1] >> (count * p % 8):
        raise ValueError("the padding after the ids' low bits is not zero")
    ends = np.flatnonzero(np.unpackbits(code[cut:], bitorder="little"))
    used = int(ends[-1]) // 8 + 1 if ends.size else 0
    if ends.size != count or code.size - cut != used:
        raise ValueError(f"{ends.size} Rice ids in {code.size} bytes instead of {count}")
    high = np.diff(ends, prepend=-1) - 1
    if count and int(high.max()) >= 1 << (32 - p):
        raise ValueError(f"Rice id {int(np.argmax(high))} is above 2**32")
    low = unpack_stream(code[:cut], count, p)
    return (high.astype(np.uint32) << np.uint32(p)) | low


def places(gaps: U32) -> tuple[U32, int]:
    """Return the places that gaps lead to, and the last of them in full: it may exceed 32 bits."""
    full: npt.NDArray[np.uint64] = np.cumsum(gaps, dtype=np.uint64)
    full += np.arange(gaps.size, dtype=np.uint64)
    return (full & np.uint64(0xFFFFFFFF)).astype(np.uint32), int(full[-1]) if full.size else 0
