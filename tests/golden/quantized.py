"""The reader's second half: codecs of quantized values."""

from __future__ import annotations

import struct

import numpy as np


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


READERS = {12: fp16, 13: bf16}
