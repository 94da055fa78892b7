"""Ascending places below d in few bytes: four codes, and the smallest is taken.

| tag | code | bytes |
|---|---|---|
| 0 | raw: each place as a 32-bit number | 4 k |
| 1 | bitmap: bit i of d is set if i is a place | d / 8 |
| 2 | varint: each gap in groups of seven bits, low first, the top bit set in all but the last | |
| 3 | Rice: the low p bits of each gap, then the high parts in unary | about k (p + 1.5) / 8 |

A gap is the number of places skipped: the first place, then ``id[i] - id[i - 1] - 1``. Places drawn
at random have geometric gaps, for which Rice codes are within a percent of the entropy (Golomb,
"Run-length encodings", 1966; Rice and Plaunt, 1971). Unlike Rice's, the two parts of a code lie in
two streams: each can then be read by plain array operations.
"""

from __future__ import annotations

import numpy as np

from flowerpress.compressors.kernels.packing import U8, U32, pack_stream, unpack_stream

RAW, BITMAP, VARINT, RICE = range(4)


def encode_ids(ids: U32, dim: int) -> tuple[int, int, U8]:
    """Code `ids`, ascending places below `dim`.

    Returns
    -------
    tag, parameter, code
        The parameter is p for Rice codes, else zero. Of equally small codes the lowest tag wins.

    Examples
    --------
    >>> import numpy as np
    >>> tag, parameter, code = encode_ids(np.array([3, 300], dtype=np.uint32), 1000)
    >>> tag, parameter, code.tobytes().hex()
    (2, 0, '03a802')
    """
    gaps = np.diff(ids, prepend=np.uint32(0)) - (np.arange(ids.size) > 0).astype(np.uint32)
    p = _best_rice(gaps, dim)
    sizes = [
        4 * ids.size,
        (dim + 7) // 8,
        int(_varint_lengths(gaps).sum()),
        _rice_bytes(gaps, p),
    ]
    tag = int(np.argmin(sizes))
    if tag == RAW:
        return tag, 0, ids.view(np.uint8)
    if tag == BITMAP:
        bits = np.zeros(dim, dtype=np.uint8)
        bits[ids] = 1
        return tag, 0, np.packbits(bits, bitorder="little")
    if tag == VARINT:
        return tag, 0, _varint_encode(gaps)
    return tag, p, _rice_encode(gaps, p)


def decode_ids(tag: int, parameter: int, code: U8, count: int, dim: int) -> U32:
    """Return the `count` places that `code` holds.

    Raises
    ------
    ValueError
        If the code is not one of `count` ascending places below `dim`, in every bit.
    """
    if tag not in (RAW, BITMAP, VARINT, RICE):
        raise ValueError(f"id code {tag} is not known; known are 0 to 3")
    if parameter and tag != RICE or parameter > 31:
        raise ValueError(f"id code {tag} has no parameter {parameter}")
    if tag == RAW:
        if code.size != 4 * count:
            raise ValueError(f"{count} raw ids take {4 * count} bytes, got {code.size}")
        ids = np.require(code.view(np.uint32), requirements="A")
        if count and (ids[-1] >= dim or (ids[1:] <= ids[:-1]).any()):
            raise ValueError(f"raw ids are not ascending places below {dim}")
        return ids
    if tag == BITMAP:
        return _bitmap_decode(code, count, dim)
    gaps = _varint_decode(code, count) if tag == VARINT else _rice_decode(code, count, parameter)
    # 64 bits, since hostile gaps may add up to more than 32.
    places = np.cumsum(gaps.astype(np.uint64)) + np.arange(count, dtype=np.uint64)
    if count and places[-1] >= dim:
        raise ValueError(f"ids reach {places[-1]}, but the vector has length {dim}")
    return places.astype(np.uint32)


def _bitmap_decode(code: U8, count: int, dim: int) -> U32:
    if code.size != (dim + 7) // 8:
        raise ValueError(f"a bitmap of {dim} bits takes {(dim + 7) // 8} bytes, got {code.size}")
    places = np.flatnonzero(np.unpackbits(code, bitorder="little"))
    if places.size != count or (count and places[-1] >= dim):
        raise ValueError(f"the bitmap does not have {count} bits set below bit {dim}")
    return places.astype(np.uint32)


def _varint_lengths(gaps: U32) -> U8:
    limits = np.array([1 << 7, 1 << 14, 1 << 21, 1 << 28], dtype=np.uint32)
    return (np.searchsorted(limits, gaps, side="right") + 1).astype(np.uint8)


def _varint_encode(gaps: U32) -> U8:
    lengths = _varint_lengths(gaps)
    shifts = np.arange(5, dtype=np.uint32)
    groups = (gaps[:, None] >> (shifts * np.uint32(7))) & np.uint32(0x7F)
    groups |= np.where(shifts < lengths[:, None] - 1, np.uint32(0x80), np.uint32(0))
    return groups.astype(np.uint8)[shifts < lengths[:, None]]


def _varint_decode(code: U8, count: int) -> U32:
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


def _best_rice(gaps: U32, dim: int) -> int:
    """Return the p of the shortest code among those near the best for geometric gaps.

    That is ``log2(ln 2 * d / k)`` (Kiely, "Selecting the Golomb parameter in Rice coding", 2004),
    from integers alone: ln 2 is about 355 / 512.
    """
    mean = max(1, dim * 355 // (512 * gaps.size))
    middle = mean.bit_length() - 1
    near = range(max(0, middle - 2), min(31, middle + 2) + 1)
    return min(near, key=lambda p: _rice_bytes(gaps, p))


def _rice_bytes(gaps: U32, p: int) -> int:
    unary = int((gaps >> np.uint32(p)).sum(dtype=np.uint64)) + gaps.size
    return (gaps.size * p + 7) // 8 + (unary + 7) // 8


def _rice_encode(gaps: U32, p: int) -> U8:
    low = pack_stream(gaps & np.uint32((1 << p) - 1), p)
    ends = np.cumsum((gaps >> np.uint32(p)).astype(np.int64) + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1, dtype=np.uint8)
    unary[ends] = 1
    return np.concatenate([low, np.packbits(unary, bitorder="little")])


def _rice_decode(code: U8, count: int, p: int) -> U32:
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
