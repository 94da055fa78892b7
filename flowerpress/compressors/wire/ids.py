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

import math

import numpy as np

from flowerpress.compressors.kernels import kernels
from flowerpress.compressors.kernels.packing import U8, U32
from flowerpress.compressors.wire import budget

RAW, BITMAP, VARINT, RICE = range(4)
# Steps: of a place in each code, of a bit of a bitmap, of a place's value.
_PLACE_WORK = {RAW: 0.5, BITMAP: 0.0, VARINT: 4.5, RICE: 6.5}
_BIT_WORK, _VALUE_WORK = 3.5, 1.5
_PIECE = 1 << 13  # bytes of a bitmap at once
_FEW = 64  # places that Python's own numbers measure faster than numpy starts


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
    gaps, varint, p, rice = (_measured_few if ids.size < _FEW else _measured)(ids, dim)
    sizes = [4 * ids.size, (dim + 7) // 8, varint, rice]
    tag = sizes.index(min(sizes))
    if tag == RAW:
        return tag, 0, ids.view(np.uint8)
    if tag == BITMAP:
        bits = np.zeros(dim, dtype=np.uint8)
        bits[ids] = 1
        return tag, 0, np.packbits(bits, bitorder="little")
    if tag == VARINT:
        code: U8 = kernels().varint_encode(gaps)
        return tag, 0, code
    code = kernels().rice_encode(gaps, p)
    return tag, p, code


def decode_ids(tag: int, parameter: int, code: U8, count: int, dim: int) -> U32:
    """Return the `count` places that `code` holds.

    Raises
    ------
    ValueError
        If the code is not one of `count` ascending places below `dim`, in every bit.
    PacketError
        If that many places are more than the budget allows.
    """
    if tag not in _PLACE_WORK:
        raise ValueError(f"id code {tag} is not known; known are 0 to 3")
    work = (_PLACE_WORK[tag] + _VALUE_WORK) * count + _BIT_WORK * dim * (tag == BITMAP)
    budget.hold((4 if tag in (RAW, BITMAP) else 8) * count, work)
    if (parameter and tag != RICE) or parameter > 31:
        raise ValueError(f"id code {tag} has no parameter {parameter}")
    if tag == RAW:
        if code.size != 4 * count:
            raise ValueError(f"{count} raw ids take {4 * count} bytes, got {code.size}")
        ids = code.view(np.uint32)
        if not ids.flags.aligned:
            ids = ids.copy()
        if count and (ids[-1] >= dim or (ids[1:] <= ids[:-1]).any()):
            raise ValueError(f"raw ids are not ascending places below {dim}")
        return ids
    if tag == BITMAP:
        return _bitmap_decode(code, count, dim)
    if tag == VARINT:
        gaps = kernels().varint_decode(code, count)
    else:
        gaps = kernels().rice_decode(code, count, parameter)
    # The last in full, since hostile gaps may add up to more than 32 bits.
    ids, last = kernels().places(gaps)
    if count and last >= dim:
        raise ValueError(f"ids reach {last}, but the vector has length {dim}")
    places: U32 = ids
    return places


def expected_id_bits(k: int, dim: int) -> float:
    """Return the bits of k random places below `dim`: the smaller of Rice codes and a bitmap."""
    skipped = 1 - k / dim  # chance that a place is skipped: gaps are geometric
    if not skipped:
        return float(8 * ((dim + 7) // 8))
    rice = min(p + 1 + skipped ** (1 << p) / (1 - skipped ** (1 << p)) for p in range(32))
    return min(k * rice, 8.0 * math.ceil(dim / 8))


def _bitmap_decode(code: U8, count: int, dim: int) -> U32:
    if code.size != (dim + 7) // 8:
        raise ValueError(f"a bitmap of {dim} bits takes {(dim + 7) // 8} bytes, got {code.size}")
    ids, found = np.empty(count, dtype=np.uint32), 0
    for start in range(0, code.size, _PIECE):
        bits = np.unpackbits(code[start : start + _PIECE], bitorder="little")
        places = np.flatnonzero(bits.view(np.bool_))  # without a branch for each, as of bytes
        if found + places.size <= count:
            ids[found : found + places.size] = places + 8 * start
        found += places.size
    if found != count or (count and ids[-1] >= dim):
        raise ValueError(f"the bitmap does not have {count} bits set below bit {dim}")
    return ids


def _measured(ids: U32, dim: int) -> tuple[U32, int, int, int]:
    """Return the gaps, the bytes of their varints, the best p, and the bytes of its Rice codes."""
    gaps = np.diff(ids, prepend=np.uint32(0)) - (np.arange(ids.size) > 0).astype(np.uint32)
    sizes = {p: _rice_bytes(gaps, p) for p in _near_best(gaps.size, dim)}
    p = min(sizes, key=sizes.__getitem__)
    return gaps, _varint_bytes(gaps), p, sizes[p]


def _measured_few(ids: U32, dim: int) -> tuple[U32, int, int, int]:
    """Do what `_measured` does, for a few places."""
    gaps, before, varint = [], -1, 0
    for place in ids.tolist():
        gap = place - before - 1
        gaps.append(gap)
        varint += (gap.bit_length() + 6) // 7 or 1
        before = place
    best, least = 0, 1 << 62
    for p in _near_best(len(gaps), dim):
        unary = len(gaps)
        for gap in gaps:
            unary += gap >> p
        size = (len(gaps) * p + 7) // 8 + (unary + 7) // 8
        if size < least:
            best, least = p, size
    return np.array(gaps, dtype=np.uint32), varint, best, least


def _near_best(k: int, dim: int) -> range:
    """Return the parameters p of Rice codes among which the best is, for geometric gaps.

    That is ``log2(ln 2 * d / k)`` (Kiely, "Selecting the Golomb parameter in Rice coding", 2004),
    from integers alone: ln 2 is about 355 / 512.
    """
    mean = max(1, dim * 355 // (512 * k))
    middle = mean.bit_length() - 1
    return range(max(0, middle - 2), min(31, middle + 2) + 1)


def _varint_bytes(gaps: U32) -> int:
    more = [int(np.count_nonzero(gaps >> np.uint32(7 * i))) for i in range(1, 5)]
    return gaps.size + sum(more)


def _rice_bytes(gaps: U32, p: int) -> int:
    unary = int((gaps >> np.uint32(p)).sum(dtype=np.uint64)) + gaps.size
    return (gaps.size * p + 7) // 8 + (unary + 7) // 8
