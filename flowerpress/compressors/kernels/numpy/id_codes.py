"""Varint and Rice codes of gaps: numpy's half; `compressors.wire.ids` says what they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.packing import U8, U32, pack_stream, pieces, unpack_stream

_PIECE = 1 << 16  # bytes of a code at once


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
    require_varints(code, count)
    gaps = np.empty(count, dtype=np.uint32)
    at = found = 0
    while at < code.size:
        part = code[at : at + _PIECE]
        ends = np.flatnonzero(part < 0x80)
        if not ends.size:
            raise _not_shortest(found)
        part = part[: ends[-1] + 1]
        gaps[found : found + ends.size] = _varints(part, ends, found)
        at, found = at + part.size, found + ends.size
    return gaps


def require_varints(code: U8, count: int) -> None:
    """Raise ValueError unless `code` is made of `count` groups of bytes."""
    found = int(np.count_nonzero(code < 0x80))
    if found != count or (code.size and code[-1] >= 0x80):
        raise ValueError(f"{found} varint ids instead of {count}")


def _varints(code: U8, ends: npt.NDArray[np.int64], first: int) -> U32:
    """Return the gaps that end at `ends`; the first of them is number `first`."""
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    lengths = ends - starts + 1
    wrong = (lengths > 5) | ((lengths > 1) & (code[ends] == 0))
    wrong |= (lengths == 5) & (code[ends] > 0x0F)
    if wrong.any():
        raise _not_shortest(first + int(np.argmax(wrong)))
    place = (np.arange(code.size) - np.repeat(starts, lengths)).astype(np.uint32)
    groups = (code & np.uint8(0x7F)).astype(np.uint32) << (np.uint32(7) * place)
    return np.add.reduceat(groups, starts, dtype=np.uint32)


def _not_shortest(number: int) -> ValueError:
    return ValueError(f"varint id {number} is not the shortest of its value")


def rice_encode(gaps: U32, p: int) -> U8:
    """Return the low p bits of each gap, then the high parts in unary: zeros, ended by a one."""
    low = pack_stream(gaps & np.uint32((1 << p) - 1), p)
    ends = np.cumsum((gaps >> np.uint32(p)).astype(np.int64) + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1, dtype=np.uint8)
    unary[ends] = 1
    return np.concatenate([low, np.packbits(unary, bitorder="little")])


def rice_decode(code: U8, count: int, p: int) -> U32:
    """Return the gaps; ValueError unless `code` holds exactly `count`."""
    require_rice(code, count, p)
    cut = (count * p + 7) // 8
    gaps = np.empty(count, dtype=np.uint32)
    step = _PIECE // 8  # numbers of p bits that end with a byte
    for start in range(0, count, step):
        stop = min(start + step, count)
        low = code[start * p // 8 : (stop * p + 7) // 8]
        gaps[start:stop] = unpack_stream(low, stop - start, p)
    last, found = -1, 0
    for at in range(cut, code.size, step):
        ends = np.flatnonzero(np.unpackbits(code[at : at + step], bitorder="little"))
        ends += 8 * (at - cut)
        high = np.diff(ends, prepend=last) - 1
        if ends.size and int(high.max()) >= 1 << (32 - p):
            raise ValueError(f"Rice id {found + int(np.argmax(high))} is above 2**32")
        gaps[found : found + ends.size] |= high.astype(np.uint32) << np.uint32(p)
        last, found = int(ends[-1]) if ends.size else last, found + ends.size
    return gaps


def require_rice(code: U8, count: int, p: int) -> None:
    """Raise ValueError unless `code` has the low bits and the ends of `count` gaps, and no more."""
    cut = (count * p + 7) // 8
    if cut > code.size:
        raise ValueError(f"{count} Rice ids take at least {cut} bytes, got {code.size}")
    if count * p % 8 and code[cut - 1] >> (count * p % 8):
        raise ValueError("the padding after the ids' low bits is not zero")
    unary, found = code[cut:], 0
    for at in range(0, unary.size, _PIECE):
        found += int(np.unpackbits(unary[at : at + _PIECE]).sum(dtype=np.int64))
    if found != count or (unary.size and not unary[-1]):
        raise ValueError(f"{found} Rice ids in {code.size} bytes instead of {count}")


def places(gaps: U32) -> tuple[U32, int]:
    """Return the places that gaps lead to, and the last of them in full: it may exceed 32 bits."""
    ids, last = np.empty_like(gaps), -1
    for start, stop in pieces(gaps.size):
        full: npt.NDArray[np.uint64] = np.cumsum(gaps[start:stop], dtype=np.uint64)
        full += np.arange(start + 1, stop + 1, dtype=np.uint64)
        before = last - start
        full += np.uint64(before % (1 << 64))  # wraps around, and back, where it is negative
        ids[start:stop] = full.astype(np.uint32)
        last = int(full[-1])
    return ids, max(last, 0)
