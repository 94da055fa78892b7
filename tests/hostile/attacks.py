"""Packets that someone made to do harm: each is sealed with a right CRC-32 and must be refused.

Every attack is a name, the length of the receiver's vector, the frame, and what the refusal says.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np

IDENTITY, TOPK, RANDK, SIGN, QSGD = range(1, 6)
POWERSGD = 24
LONGEST = (1 << 32) - 1


class Attack(NamedTuple):
    name: str
    dim: int
    data: bytes
    says: str


def frame(codec: int, dim: int, payload: bytes, *, dtype: int = 1, **wrong: int) -> bytes:
    """Seal a payload; `wrong` overrides fields of the header."""
    magic = struct.pack("<I", wrong.get("magic", int.from_bytes(b"FPRS", "little")))
    version, flags = wrong.get("version", 1), wrong.get("flags", 0)
    length = wrong.get("length", len(payload))
    head = magic + struct.pack("<BBBBQI", version, codec, dtype, flags, length, dim)
    return head + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))) + payload


def f4(*values: float) -> bytes:
    return np.array(values, dtype="<f4").tobytes()


def u4(*values: int) -> bytes:
    return np.array(values, dtype="<u4").tobytes()


def topk(k: int, tag: int, ids: bytes, values: bytes | None = None, p: int = 0, dim=9) -> bytes:
    head = struct.pack("<IBBH", k, tag, p, 0)
    return frame(TOPK, dim, head + (f4(*[1.0] * k) if values is None else values) + ids)


def powersgd(
    *sides: int, values: bytes = f4(*[1] * 5), rank=1, spare=0, count=None, dim=6
) -> bytes:
    """Two by three of rank one, unless something else is said."""
    count = len(sides) // 2 if count is None else count
    head = struct.pack("<HHI", rank, spare, count)
    return frame(POWERSGD, dim, head + u4(*sides) + values)


NAN, INF = float("nan"), float("inf")
NEGATIVE_ZERO_SCALE = struct.pack("<BBHI", 0, 0, 0, 0) + f4(-0.0) + b"\0"

ATTACKS = [
    # the frame
    Attack("empty", 1, b"", "0 bytes"),
    Attack("header only, no payload", 1, frame(IDENTITY, 1, b""), "value takes 4 bytes"),
    Attack("longer than it says", 1, frame(IDENTITY, 1, f4(1), length=3), r"24 \+ 3"),
    Attack("2**64 - 1 bytes", 1, frame(IDENTITY, 1, f4(1), length=(1 << 64) - 1), "24"),
    Attack("a pickle", 1, b"\x80\x04\x95" + b"." * 40, "not a packet"),
    Attack("a zip archive", 1, b"PK\x03\x04" + b"\0" * 40, "not a packet"),
    Attack("later version", 1, frame(IDENTITY, 1, f4(1), version=9), "version 9"),
    Attack("unknown flags", 1, frame(IDENTITY, 1, f4(1), flags=128), "flags 0x80"),
    Attack("unknown dtype", 1, frame(IDENTITY, 1, f4(1), dtype=7), "dtype 7"),
    Attack("unknown codec", 1, frame(0, 1, f4(1)), "codec 0"),
    Attack("no coordinates", 1, frame(IDENTITY, 0, b""), "dim is 0"),
    Attack("another vector's dim", 2, frame(IDENTITY, 1, f4(1)), "dim is 1"),
    # identity
    Attack("not a number", 2, frame(IDENTITY, 2, f4(1, NAN)), "value 1 is nan"),
    Attack("infinity", 2, frame(IDENTITY, 2, f4(-INF, 1)), "value 0 is -inf"),
    Attack("one value too many", 1, frame(IDENTITY, 1, f4(1, 1)), "4 bytes follow"),
    Attack("one byte short", 2, frame(IDENTITY, 2, f4(1, 1)[:-1]), "value takes 8 bytes"),
    # top-k
    Attack("k = 0", 9, topk(0, 0, b""), "k is 0"),
    Attack("k above dim", 9, topk(10, 0, u4(*range(10))), "k is 10"),
    Attack("k of 2**32 - 1", 9, topk(LONGEST, 0, b"", b""), "k is 4294967295"),
    Attack(
        "k without values", LONGEST, topk(LONGEST, 2, b"", b"", dim=LONGEST), "takes 17179869180"
    ),
    Attack("spare bytes", 9, frame(TOPK, 9, struct.pack("<IBBH", 1, 0, 0, 5)), "bytes 6 and 7"),
    Attack("unknown id code", 9, topk(1, 4, b"\0"), "id code 4"),
    Attack("parameter of a code that has none", 9, topk(1, 2, b"\0", p=1), "no parameter 1"),
    Attack("id beyond the vector", 9, topk(1, 0, u4(9)), "ascending places below 9"),
    Attack("the same id twice", 9, topk(2, 0, u4(3, 3)), "ascending places below 9"),
    Attack("descending ids", 9, topk(2, 0, u4(4, 3)), "ascending places below 9"),
    Attack("raw ids cut short", 9, topk(2, 0, u4(4)), "2 raw ids take 8 bytes"),
    Attack("bitmap too long", 9, topk(1, 1, b"\x01\0\0"), "takes 2 bytes"),
    Attack("bit beyond the bitmap", 9, topk(1, 1, b"\0\x02"), "bits set below bit 9"),
    Attack("too few bits set", 9, topk(2, 1, b"\x01\0"), "2 bits set"),
    Attack("varint that never ends", 9, topk(1, 2, b"\xff" * 30), "varint ids instead of 1"),
    Attack("varint of six bytes", 9, topk(1, 2, b"\x80\x80\x80\x80\x80\x01"), "not the shortest"),
    Attack("varint above 32 bits", 9, topk(1, 2, b"\xff\xff\xff\xff\x7f"), "not the shortest"),
    Attack("varint in a longer form", 9, topk(1, 2, b"\x81\x00"), "not the shortest"),
    Attack("varint beyond the vector", 9, topk(1, 2, b"\x09"), "ids reach 9"),
    Attack("varints that wrap around", 9, topk(3, 2, b"\xff\xff\xff\xff\x0f" * 3), "ids reach"),
    Attack("varint too many", 9, topk(1, 2, b"\0\0"), "2 varint ids instead of 1"),
    Attack("rice without low bits", 9, topk(2, 3, b"\1", p=31), "at least 8 bytes"),
    Attack("rice of 32 low bits", 9, topk(1, 3, b"\0" * 5, p=32), "no parameter 32"),
    Attack("rice padding", 9, topk(1, 3, b"\xff\x01", p=1), "padding"),
    Attack("rice trailing zeros", 9, topk(1, 3, b"\x01\0"), "in 2 bytes instead of 1"),
    Attack("rice only zeros", 9, topk(1, 3, b"\0" * 99), "0 Rice ids"),
    Attack("rice too many", 9, topk(1, 3, b"\x03"), "2 Rice ids"),
    Attack("rice above 32 bits", 9, topk(1, 3, b"\0\0\0\0" + b"\x04", p=31), r"above 2\*\*32"),
    Attack("value is nan", 9, topk(1, 0, u4(1), f4(NAN)), "value 0 is nan"),
    # rand-k
    Attack("rand-k above dim", 2, frame(RANDK, 2, u4(1, 1, 3, 0) + f4(1, 1, 1)), "k is 3"),
    Attack("rand-k of none", 2, frame(RANDK, 2, u4(1, 1, 0, 0)), "k is 0"),
    Attack("unknown law", 2, frame(RANDK, 2, u4(1, 1, 1, 2) + f4(1)), "law 2"),
    Attack("rand-k spare bytes", 2, frame(RANDK, 2, u4(1, 1, 1, 256) + f4(1)), "bytes 13 to 15"),
    Attack("no values", 2, frame(RANDK, 2, u4(1, 1, 1, 0)), "value takes 4 bytes"),
    Attack("a value too many", 2, frame(RANDK, 2, u4(1, 1, 1, 0) + f4(1, 1)), "4 bytes follow"),
    Attack("value is inf", 2, frame(RANDK, 2, u4(1, 1, 1, 0) + f4(INF)), "value 0 is inf"),
    Attack("header cut short", 2, frame(RANDK, 2, u4(1, 1)), "header takes 16 bytes"),
    # sign
    Attack("unknown scale", 2, frame(SIGN, 2, b"\x02\0\0\0" + u4(0)), "scale 2"),
    Attack("unknown blocks", 2, frame(SIGN, 2, b"\0\x02\0\0" + u4(0)), "kind 2"),
    Attack("sign spare bytes", 2, frame(SIGN, 2, b"\0\0\x01\0" + u4(0)), "bytes 2 and 3"),
    Attack("scale below zero", 2, frame(SIGN, 2, u4(0, 0) + f4(-1) + b"\3"), "below zero"),
    Attack("scale of minus zero", 2, frame(SIGN, 2, NEGATIVE_ZERO_SCALE), "below zero"),
    Attack("scale is nan", 2, frame(SIGN, 2, u4(0, 0) + f4(NAN) + b"\3"), "scale 0 is nan"),
    Attack("padding after the signs", 2, frame(SIGN, 2, u4(0, 0) + f4(1) + b"\7"), "padding"),
    Attack("no signs", 2, frame(SIGN, 2, u4(0, 0) + f4(1)), "codes takes 1 bytes"),
    Attack("4 billion scales", LONGEST, frame(SIGN, LONGEST, u4(0, 1)), "4294967295 scales"),
    Attack("4 billion tensors", 2, frame(SIGN, 2, u4(256, LONGEST)), "sizes takes 17179869180"),
    Attack("no tensors", 2, frame(SIGN, 2, u4(256, 0) + b"\3"), "do not make up 2"),
    Attack("empty tensor", 2, frame(SIGN, 2, u4(256, 2, 0, 2) + f4(1, 1) + b"\3"), "make up 2"),
    Attack("tensors beyond", 2, frame(SIGN, 2, u4(256, 2, 2, 2) + f4(1, 1) + b"\3"), "make up 2"),
    Attack(
        "sizes that wrap around",
        2,
        frame(SIGN, 2, u4(256, 2, LONGEST, 3) + f4(1, 1) + b"\3"),
        "make up 2",
    ),
    # qsgd
    Attack("no levels", 2, frame(QSGD, 2, u4(0, 0)), "levels is 0"),
    Attack("levels above the limit", 2, frame(QSGD, 2, u4(32768, 0)), "levels is 32768"),
    Attack("qsgd spare bytes", 2, frame(QSGD, 2, u4(65536 + 7, 0)), "bytes 2 and 3"),
    Attack("code above the levels", 2, frame(QSGD, 2, u4(1, 0) + f4(1) + b"\x0d"), "code 1 is ab"),
    Attack("padding after the codes", 2, frame(QSGD, 2, u4(1, 0) + f4(1) + b"\x15"), "padding"),
    Attack("norm below zero", 2, frame(QSGD, 2, u4(1, 0) + f4(-1) + b"\x05"), "below zero"),
    Attack("norm is inf", 2, frame(QSGD, 2, u4(1, 0) + f4(INF) + b"\x05"), "norm 0 is inf"),
    Attack("4 billion norms", LONGEST, frame(QSGD, LONGEST, u4(1, 1)), "4294967295 norms"),
    Attack("one norm, no codes", LONGEST, frame(QSGD, LONGEST, u4(1, 0) + f4(1)), "codes takes"),
    # powersgd
    Attack("powersgd of nothing", 6, frame(POWERSGD, 6, b""), "header takes 8 bytes"),
    Attack("no rank", 6, powersgd(2, 3, rank=0), "rank is 0"),
    Attack("rank of 257", 6, powersgd(2, 3, rank=257), "rank is 257"),
    Attack("powersgd's spare bytes", 6, powersgd(2, 3, spare=1), "bytes 2 and 3"),
    Attack("no matrices", 6, powersgd(), "0 matrices"),
    Attack("65537 matrices", 6, powersgd(2, 3, count=65537), "65537 matrices"),
    Attack("sides that are not there", 6, powersgd(2, 3, count=9), "sides takes 72 bytes"),
    Attack("columns of none", 6, powersgd(6, 1, 2, 0, values=f4(*[1] * 6)), "do not make up 6"),
    Attack("a matrix too small", 6, powersgd(2, 2), "do not make up 6"),
    Attack("a matrix beyond", 6, powersgd(2, 3, 1, 1), "do not make up 6"),
    Attack(
        "sides that wrap around",
        6,
        powersgd(1 << 31, 1 << 31, 1 << 31, 1 << 31, 2, 3, values=f4(*[1] * 5)),
        "do not make up 6",
    ),
    Attack("a value of a factor too few", 6, powersgd(2, 3, values=f4(*[1] * 4)), "takes 20 bytes"),
    Attack("a value of a factor too many", 6, powersgd(2, 3, values=f4(*[1] * 6)), "4 bytes fol"),
    Attack("a factor is nan", 6, powersgd(2, 3, values=f4(1, 1, 1, NAN, 1)), "value 3 is nan"),
    Attack(
        "a product that overflows",
        6,
        powersgd(2, 3, values=f4(1, -1e20, 1, 1e20, 1)),
        "matrix 0 overflows float32",
    ),
    Attack(
        "products that take each other away",
        24,
        powersgd(4, 6, rank=2, values=f4(*[3e38] * 8, *[1] * 6, *[-1] * 6), dim=24),
        "matrix 0 overflows float32",
    ),
    Attack("4 billion of rank one", LONGEST, powersgd(65535, 65537, dim=LONGEST), "524288 bytes"),
    Attack(
        "4 billion as they are", LONGEST, powersgd(1, LONGEST, dim=LONGEST), "takes 17179869180"
    ),
]
