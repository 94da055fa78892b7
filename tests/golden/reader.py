"""A reader written from `docs/wire-format.md` alone, in plain Python, one number at a time.

It shares no code with the package: where both agree, the page says enough to read a packet.
"""

from __future__ import annotations

import struct

import numpy as np

MASK = 0xFFFFFFFF


def read(data: bytes) -> np.ndarray:
    """Return the vector of a frame that is known to be right."""
    from tests.golden import composed, quantized

    _, _, codec, dtype, _, length, dim, _ = struct.unpack_from("<4sBBBBQII", data)
    payload, number = data[24 : 24 + length], {1: np.float32, 2: np.float64}[dtype]
    own = {1: identity, 2: topk, 3: randk, 4: sign, 5: qsgd, 24: powersgd}
    body = {**own, **quantized.READERS, **composed.READERS}[codec]
    return np.array(body(payload, dim, number), dtype=number)


def numbers(data, at, count, number):
    end = at + count * number().itemsize
    return list(np.frombuffer(data[at:end], dtype=number)), end


def bit(data, i):
    return data[i // 8] >> i % 8 & 1


def stream(data, at, width):
    return sum(bit(data, at + i) << i for i in range(width))


def codes(data, count, width):
    """Return packed codes: lanes in whole blocks, then one stream."""
    out = []
    for block in range(count // 1024):
        words = np.frombuffer(data, dtype="<u4", count=32 * width, offset=128 * width * block)
        lanes = [sum(int(words[32 * j + w]) << 32 * j for j in range(width)) for w in range(32)]
        out += [lanes[i % 32] >> width * (i // 32) & (1 << width) - 1 for i in range(1024)]
    rest = data[128 * width * (count // 1024) :]
    return out + [stream(rest, width * i, width) for i in range(count % 1024)]


def identity(data, dim, number):
    return numbers(data, 0, dim, number)[0]


def topk(data, dim, number):
    k, code, p = struct.unpack_from("<IBB", data)
    values, at = numbers(data, 8, k, number)
    return scattered(topk_places(data[at:], k, code, p, dim), values, dim)


def topk_places(ids, k, code, p, dim):
    if code == 0:
        return list(struct.unpack(f"<{k}I", ids))
    if code == 1:
        return [i for i in range(dim) if bit(ids, i)]
    return placed(varint(ids) if code == 2 else rice(ids, k, p))


def scattered(places, values, dim):
    out = [0.0] * dim
    for place, value in zip(places, values, strict=True):
        out[place] = value
    return out


def placed(gaps):
    places, last = [], -1
    for gap in gaps:
        last += gap + 1
        places.append(last)
    return places


def varint(data):
    gaps, gap, shift = [], 0, 0
    for byte in data:
        gap |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            gaps.append(gap)
            gap, shift = 0, 0
    return gaps


def rice(data, k, p):
    unary, gaps, at = data[(k * p + 7) // 8 :], [], 0
    for i in range(k):
        zeros = 0
        while not bit(unary, at):
            zeros, at = zeros + 1, at + 1
        at += 1
        gaps.append(zeros << p | stream(data, p * i, p))
    return gaps


def philox(block, k0, k1):
    c = [block, 0, 0, 0]
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [q >> 32 ^ c[1] ^ k0, q & MASK, p >> 32 ^ c[3] ^ k1, p & MASK]
        k0, k1 = k0 + 0x9E3779B9 & MASK, k1 + 0xBB67AE85 & MASK
    return c[0], c[1]


def mixed(i, a, b):
    x = i * 0x9E3779B9 + a & MASK
    x = (x ^ x >> 17) * 0xED5AD4BB & MASK
    x = ((x ^ x >> 11) + b) * 0xAC4C1B51 & MASK
    x = (x ^ x >> 15) * 0x31848BAB & MASK
    return x ^ x >> 14


def randk(data, dim, number):
    (k,) = struct.unpack_from("<I", data, 8)
    values, _ = numbers(data, 16, k, number)
    return scattered(randk_places(data, dim), values, dim)


def randk_places(data, dim):
    k0, k1, k, law = struct.unpack_from("<IIIB", data)
    if law == 1:
        groups = [(j * dim // k, (j + 1) * dim // k) for j in range(k)]
        return [
            start + (mixed(j % 1024, *philox(j // 1024, k0, k1)) * (stop - start) >> 32)
            for j, (start, stop) in enumerate(groups)
        ]
    m = max(8, (dim - 1).bit_length())
    low_bits, high_bits = m // 2, m - m // 2

    def network(x):
        low, high = x & (1 << low_bits) - 1, x >> low_bits
        for r in range(8):
            if r % 2 == 0:
                low ^= mixed(high, *philox(r, k0, k1)) >> 32 - low_bits
            else:
                high ^= mixed(low, *philox(r, k0, k1)) >> 32 - high_bits
        return high << low_bits | low

    places = []
    for j in range(k):
        x = network(j)
        while x >= dim:
            x = network(x)
        places.append(x)
    return places


def sign(data, dim, number):
    _, listed, _, size = struct.unpack_from("<BBHI", data)
    at = 8
    if listed:
        sizes = struct.unpack_from(f"<{size}I", data, at)
        at += 4 * size
    else:
        size = size or dim
        sizes = [min(size, dim - start) for start in range(0, dim, size)]
    scales, at = numbers(data, at, len(sizes), number)
    each = np.repeat(scales, sizes)
    return [s if code else -s for s, code in zip(each, codes(data[at:], dim, 1), strict=True)]


def qsgd(data, dim, number):
    s, _, bucket = struct.unpack_from("<HHI", data)
    bucket = bucket or dim
    norms, at = numbers(data, 8, -(-dim // bucket), number)
    width = (2 * s).bit_length()
    return [
        norms[i // bucket] / number(s) * number(code - s)
        for i, code in enumerate(codes(data[at:], dim, width))
    ]


def powersgd(data, dim, number):
    rank, _, count = struct.unpack_from("<HHI", data)
    at, out = 8 + 8 * count, []
    for i in range(count):
        a, b = struct.unpack_from("<II", data, 8 + 8 * i)
        r = min(rank, a, b)
        if r * (a + b) >= a * b:
            values, at = numbers(data, at, a * b, number)
            out += values
            continue
        left, at = numbers(data, at, r * a, number)
        right, at = numbers(data, at, r * b, number)
        for row in range(a):
            for column in range(b):
                products = [left[k * a + row] * right[k * b + column] for k in range(r)]
                out.append(sum(products[1:], start=products[0]))
    return out
