"""The reader's third part: packets inside packets, rotations, and what is built on them."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np

from tests.golden import reader


def chain(data, dim, number):
    front, _, size = struct.unpack_from("<B3sI", data)
    header, values = data[8 : 8 + size], list(reader.read(data[8 + size :]))
    return FRONTS[front](header, values, dim, number)


def topk(header, values, dim, number):
    k, code, p = struct.unpack_from("<IBB", header)
    return reader.scattered(reader.topk_places(header[8:], k, code, p, dim), values, dim)


def randk(header, values, dim, number):
    return reader.scattered(reader.randk_places(header, dim), values, dim)


def hadamard_front(header, values, dim, number):
    return unrotated(values, struct.unpack_from("<II", header), number)


def hadamard(data, dim, number):
    values, _ = reader.numbers(data, 8, dim, number)
    return unrotated(values, struct.unpack_from("<II", data), number)


def unrotated(values, key, number):
    """Undo the last block first, then the whole blocks."""
    dim = len(values)
    size = block_size(dim)
    values = list(values)
    starts = [(start, 31) for start in range(0, dim - size + 1, size)]
    if dim % size:
        starts.insert(0, (dim - size, 30))
    for start, place in starts:
        block = [number(v * number(size**-0.5)) for v in values[start : start + size]]
        for i, v in enumerate(butterflies(block)):
            word = reader.mixed((start + i) % 1024, *reader.philox((start + i) // 1024, *key))
            values[start + i] = -v if word >> place & 1 else v
    return values


def block_size(dim):
    return min(8192, 1 << dim.bit_length() - 1)


def butterflies(block):
    distance = 1
    while distance < len(block):
        for i in range(len(block)):
            if not i & distance:
                a, b = block[i], block[i + distance]
                block[i], block[i + distance] = a + b, a - b
        distance *= 2
    return block


def parts(dim):
    """Return the sizes of the parts of a rotated vector that have a scale each."""
    size = block_size(dim)
    starts = [*range(0, dim - size, size), dim - size, dim]
    return [stop - start for start, stop in pairwise(starts)]


def drive(data, dim, number):
    sizes = parts(dim)
    scales, at = reader.numbers(data, 12, len(sizes), number)
    bits = reader.codes(data[at:], dim, 1)
    each = np.repeat(scales, sizes)
    values = [s if bit else -s for s, bit in zip(each, bits, strict=True)]
    return unrotated(values, struct.unpack_from("<II", data), number)


# Positive centroids, in units of 0.00001.
TABLES = {
    1: (79788,),
    2: (45278, 151042),
    3: (24509, 75601, 134391, 215195),
}


def eden(data, dim, number):
    width, sizes = data[8], parts(dim)
    scales, at = reader.numbers(data, 12, len(sizes), number)
    half = [c / 100_000 for c in TABLES[width]]
    centroids = [number(c) for c in (*(-c for c in reversed(half)), *half)]
    each = np.repeat(scales, sizes)
    codes = reader.codes(data[at:], dim, width)
    values = [s * centroids[code] for s, code in zip(each, codes, strict=True)]
    return unrotated(values, struct.unpack_from("<II", data), number)


def scaled(data, dim, number):
    (factor,) = struct.unpack_from("<d", data)
    return [number(v * number(factor)) for v in reader.read(data[8:])]


def induced(data, dim, number):
    (size,) = struct.unpack_from("<Q", data)
    first, second = reader.read(data[8 : 8 + size]), reader.read(data[8 + size :])
    return [number(0) + a + b for a, b in zip(first, second, strict=True)]


def blocked(data, dim, number):
    (size,) = struct.unpack_from("<I", data)
    values, at = [], 4
    for start in range(0, dim, size):
        (length,) = struct.unpack_from("<Q", data, at + 8)
        part = reader.read(data[at : at + 24 + length])
        assert len(part) == min(size, dim - start)
        values.extend(part)
        at += 24 + length
    assert at == len(data)
    return values


def rans(data, dim, number):
    return staged(data, dim, number, rans_symbols)


def huffman(data, dim, number):
    return staged(data, dim, number, huffman_symbols)


def staged(data, dim, number, symbols_of):
    inside, width, first, count, entries, _, cut = struct.unpack_from("<BBHIHHQ", data)
    payload = data[20 : 20 + cut]
    if width:
        symbols = symbols_of(data[20 + cut :], count, entries)
        payload += packed([first + symbol for symbol in symbols], width)
    head = struct.pack(
        "<4sBBBBQII", b"FPRS", 1, inside, {4: 1, 8: 2}[number().itemsize], 0, len(payload), dim, 0
    )
    return reader.read(head + payload)


def rans_symbols(data, count, entries):
    frequencies, at = struct.unpack_from(f"<{entries}H", data), 2 * entries
    lanes = list(struct.unpack_from("<32I", data, at))
    words = list(struct.unpack(f"<{len(data) - at - 128 >> 1}H", data[at + 128 :]))
    owners = [s for s, f in enumerate(frequencies) for _ in range(f)]
    symbols = []
    for i in range(count):
        x, slot = lanes[i % 32], lanes[i % 32] % 16384
        symbol = owners[slot]
        symbols.append(symbol)
        x = frequencies[symbol] * (x // 16384) + slot - sum(frequencies[:symbol])
        lanes[i % 32] = x << 16 | words.pop(0) if x < 65536 else x
    assert lanes == [65536] * 32
    assert not words
    return symbols


def huffman_symbols(data, count, entries):
    lengths = reader.codes(data, entries, 4)
    streams = 4 * min(8, 1 + count // 8192)
    at = 512 * (entries // 1024) + (entries % 1024 + 1) // 2
    sizes, at = struct.unpack_from(f"<{streams}I", data, at), at + 4 * streams
    owners = {(0, 0): 0} if entries == 1 else {}
    word = 0
    for length in range(1, 16):
        for symbol in (s for s in range(entries) if lengths[s] == length):
            owners[length, word], word = symbol, word + 1
        word *= 2
    symbols = []
    for stream, size in enumerate(sizes):
        place = 0
        for _ in range(count // streams + (stream < count % streams)):
            length = word = 0
            while (length, word) not in owners:
                word = word << 1 | reader.bit(data[at:], place)
                length, place = length + 1, place + 1
            symbols.append(owners[length, word])
        assert size == -(-place // 32)
        assert not any(reader.bit(data[at:], i) for i in range(place, 32 * size))
        at += 4 * size
    assert at == len(data)
    return symbols


def packed(symbols, width):
    """Return codes as the format packs them."""
    out = b""
    for block in range(len(symbols) // 1024):
        lanes = [0] * 32
        for i, code in enumerate(symbols[1024 * block : 1024 * (block + 1)]):
            lanes[i % 32] |= code << width * (i // 32)
        for j in range(width):
            out += struct.pack("<32I", *(lane >> 32 * j & reader.MASK for lane in lanes))
    rest = symbols[len(symbols) // 1024 * 1024 :]
    bits = sum(code << width * i for i, code in enumerate(rest))
    return out + bits.to_bytes((len(rest) * width + 7) // 8, "little")


def countsketch(data, dim, number):
    k0, k1, _, rows, _, columns = struct.unpack_from("<IIBBHI", data)
    cells, _ = reader.numbers(data, 16, rows * columns, number)
    second = reader.philox((1 << 32) - 1, k0, k1)
    values = []
    for i in range(dim):
        word = reader.mixed(i % 1024, *reader.philox(i // 1024, k0, k1))
        said = []
        for row in range(rows):
            place = 16 * (i // columns) + row
            turn = reader.mixed(place % 1024, *reader.philox(place // 1024, *second))
            cell = cells[row * columns + (i + (turn * columns >> 32)) % columns]
            said.append(-cell if word >> row & 1 else cell)
        values.append(sorted(said)[rows // 2])
    return values


FRONTS = {2: topk, 3: randk, 20: hadamard_front}
READERS = {
    20: hadamard,
    21: drive,
    22: eden,
    23: countsketch,
    25: chain,
    26: induced,
    27: scaled,
    28: rans,
    29: huffman,
    30: blocked,
}

# name: spec, dim, dtype.
CASES = {
    "chain-topk-qsgd": ("topk:k=40+qsgd:7", 1100, "<f4"),
    "chain-randk-sign-float64": ("randk:0.1,law=stratified+sign", 300, "<f8"),
    "chain-hadamard-randk-qsgd": ("hadamard+randk:k=20+qsgd:3", 1100, "<f4"),
    "hadamard": ("hadamard", 1100, "<f4"),
    "hadamard-float64": ("hadamard", 64, "<f8"),
    "drive": ("drive", 1100, "<f4"),
    "drive-biased-float64": ("drive:biased", 300, "<f8"),
    "eden": ("eden", 1100, "<f4"),
    "eden-3-biased-float64": ("eden:3,scale=biased", 300, "<f8"),
    "countsketch": ("countsketch:columns=60", 1100, "<f4"),
    "countsketch-3-float64": ("countsketch:3,ratio=0.1", 300, "<f8"),
    "scaled": ("scaled(randk:k=20)", 1100, "<f4"),
    "scaled-float64": ("scaled(randk:0.1,law=stratified)", 50, "<f8"),
    "induced": ("induced(topk:k=20; randk:k=20)", 1100, "<f4"),
    "induced-float64": ("induced(sign; qsgd:7)", 50, "<f8"),
    "blocked": ("blocked(topk:k=20, 300)", 1100, "<f4"),
    "blocked-float64": ("blocked(randk:0.1+qsgd:7, 32)", 50, "<f8"),
    "rans": ("qsgd:7+rans", 1100, "<f4"),
    "rans-float64": ("topk:k=500+qsgd:7,bucket=64+rans", 1100, "<f8"),
    "rans-bytes": ("identity+rans", 1100, "<f4"),
    "rans-stored": ("sign+rans", 1100, "<f4"),
    "huffman": ("qsgd:127,bucket=64+huffman", 1100, "<f4"),
    "huffman-float64": ("topk:k=800+uniform:8,rounding=nearest+huffman", 1100, "<f8"),
    "huffman-eight-streams": ("identity+huffman", 2100, "<f4"),
    "huffman-stored": ("sign+huffman", 1100, "<f4"),
}
