"""The reader's second half: codecs of quantized values."""

from __future__ import annotations

import struct

import numpy as np

from tests.golden.reader import codes, mixed, numbers, philox, scattered, topk_places


def fp16(data, dim, number):
    exponent, _ = struct.unpack_from("<hH", data)
    return [scaled(value, exponent, number) for value in struct.unpack_from(f"<{dim}e", data, 4)]


def bf16(data, dim, number):
    exponent, _ = struct.unpack_from("<hH", data)
    codes = struct.unpack_from(f"<{dim}H", data, 4)
    values = [struct.unpack("<f", struct.pack("<I", code << 16))[0] for code in codes]
    return [scaled(value, exponent, number) for value in values]


def scaled(value, exponent, number):
    return number(np.ldexp(value, exponent))


def uniform(data, dim, number):
    bits, nearest, _, bucket = struct.unpack_from("<BBHI", data)
    bucket = bucket or dim
    top = 2**bits - (2 if nearest and bits > 1 else 1)
    maxima, at = numbers(data, 8, -(-dim // bucket), number)
    return [
        maxima[i // bucket] / number(top) * number(2 * code - top)
        for i, code in enumerate(codes(data[at:], dim, bits))
    ]


def natural(data, dim, number):
    top, _ = struct.unpack_from("<hH", data)
    values = [np.ldexp(1.0, top - 127 + (code & 127)) if code & 127 else 0.0 for code in data[4:]]
    return [-value if code & 128 else value for value, code in zip(values, data[4:], strict=True)]


def permk(data, dim, number):
    cohort, rank = struct.unpack_from("<II", data)
    if cohort > dim:
        (place,) = struct.unpack_from("<I", data, 8)
        return scattered([place], numbers(data, 12, 1, number)[0], dim)
    k0, k1 = struct.unpack_from("<II", data, 8)
    places = []
    for group in range(-(-dim // cohort)):
        turn = mixed(group % 1024, *philox(group // 1024, k0, k1)) * cohort >> 32
        places.append(group * cohort + (turn + rank) % cohort)
    places = [place for place in places if place < dim]
    return scattered(places, numbers(data, 16, len(places), number)[0], dim)


def cq(data, dim, number):
    levels, flags = struct.unpack_from("<HH", data)
    at, kind, bucket, k, tag, p = 4, "number" if flags & 1 else "l2", 0, 0, 0, 0
    if flags & 4:
        which, tag, p, _, bucket, k, _ = struct.unpack_from("<BBBBIId", data, 4)
        at, kind = 24, ("rms", "max", "l2", "shared", "number")[which]
    key = None
    if levels > 2 and kind in ("l2", "number"):
        key, at = struct.unpack_from("<II", data, at), at + 8
    starts = bucket_starts(dim, bucket)
    which = [sum(start <= i for start in starts) - 1 for i in range(0, dim, 1024)]
    reaches, at = numbers(data, at, 2 if kind == "shared" else len(starts), number)
    values, at = numbers(data, at, k, number)
    packed = data[len(data) - code_bytes(dim, (levels - 1).bit_length()) :]
    places = topk_places(data[at : len(data) - len(packed)], k, tag, p, dim) if k else []
    found = codes(packed, dim, (levels - 1).bit_length())
    if kind in ("l2", "number"):
        vector = shifted(found, levels, reaches, which, key, number)
    else:
        top = number(levels - 1)
        vector = [
            reaches[which[i // 1024]] / top * number(2 * code - levels + 1)
            for i, code in enumerate(found)
        ]
    for place, value in zip(places, values, strict=True):
        vector[place] += value
    return vector


def bucket_starts(dim, bucket):
    """Return where buckets begin: at multiples of their size, the last so that it is whole."""
    if not bucket or dim <= bucket:
        return [0]
    last = (dim - bucket) // 1024 * 1024
    return [*(start for start in range(0, dim - bucket, bucket) if start < last), last]


def shifted(found, levels, reaches, which, key, number):
    """Return the paper's points: alike for all but for a shift of each 1024 coordinates."""
    vector, apart = [], 1.0 if levels == 2 else (levels + 1) / (levels * (levels - 1))
    for i, code in enumerate(found):
        if i % 1024 == 0:
            reach = float(reaches[which[i // 1024]])
            step, mid = number(reach * apart), number(0)
            if key:
                turn = (philox(i // 1024, *key)[0] + 0.5) * 2.0**-32
                mid = number(reach * ((1 - 2 * turn) / levels))
        vector.append(mid + step * number(2 * code - (levels - 1)))
    return vector


def code_bytes(count, width):
    """Return the bytes of packed codes: whole blocks of 1024, and a stream for the rest."""
    return count // 1024 * 128 * width + (count % 1024 * width + 7) // 8


def points(packed, dim, bits, step, number):
    """Return points that lie symmetrically, in steps of ``2 * step``."""
    top = 2 if bits == 2 else 1
    return [step * number(2 * code - top) for code in codes(packed, dim, bits)]


def terngrad(data, dim, number):
    (largest,), at = numbers(data, 0, 1, number)
    return points(data[at:], dim, 2, largest / number(2), number)


def randsign(data, dim, number):
    (reach,), at = numbers(data, 0, 1, number)
    return points(data[at:], dim, 1, reach, number)


def loggrid(data, dim, number):
    k = data[0]
    (largest,), at = numbers(data, 4, 1, number)
    levels = [code - k for code in codes(data[at:], dim, (2 * k).bit_length())]
    return [np.sign(j) * np.ldexp(largest, abs(j) - k) if j else 0.0 for j in levels]


def signtopk(data, dim, number):
    k, code, p = struct.unpack_from("<IBB", data)
    (scale,), at = numbers(data, 8, 1, number)
    size = 128 * (k // 1024) + (k % 1024 + 7) // 8
    values = [scale if sign else -scale for sign in codes(data[at : at + size], k, 1)]
    return scattered(topk_places(data[at + size :], k, code, p, dim), values, dim)


def threshold(data, dim, number):
    k, code, p = struct.unpack_from("<IBB", data)
    values, at = numbers(data, 16, k, number)
    return scattered(topk_places(data[at:], k, code, p, dim), values, dim)


READERS = {
    8: terngrad,
    9: loggrid,
    10: randsign,
    11: signtopk,
    14: threshold,
    15: cq,
    6: uniform,
    7: natural,
    12: fp16,
    13: bf16,
    16: permk,
}
