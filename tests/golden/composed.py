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


FRONTS = {2: topk, 3: randk, 20: hadamard_front}
READERS = {20: hadamard, 21: drive, 22: eden, 25: chain}

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
}
