"""Attacks on packets inside packets and on what is built on rotations."""

from __future__ import annotations

import struct

from tests.hostile.attacks import (
    IDENTITY,
    INF,
    LONGEST,
    NAN,
    QSGD,
    RANDK,
    SIGN,
    TOPK,
    Attack,
    f4,
    frame,
    u4,
)

HADAMARD, DRIVE, EDEN, CHAIN = 20, 21, 22, 25


def chain(
    front: int, header: bytes, inside: bytes, *, dim: int = 9, size: int | None = None, spare=0
) -> bytes:
    head = struct.pack("<BBHI", front, spare, 0, len(header) if size is None else size)
    return frame(CHAIN, dim, head + header + inside)


ONE = frame(SIGN, 1, u4(0, 0) + f4(1) + b"\1")
HUGE = frame(IDENTITY, 9, f4(*[3e38] * 9))
PLACE = struct.pack("<IBBH", 1, 0, 0, 0) + u4(3)
KEY = u4(1, 2)


def drive(payload: bytes, *, scale: int = 0, spare: int = 0, dim: int = 2) -> bytes:
    return frame(DRIVE, dim, KEY + struct.pack("<BBH", scale, spare, 0) + payload)


def eden(payload: bytes, *, bits: int = 2, scale: int = 0, spare: int = 0, dim: int = 2) -> bytes:
    return frame(EDEN, dim, KEY + struct.pack("<BBH", bits, scale, spare) + payload)


ATTACKS = [
    # chains
    Attack("a chain of nothing", 9, frame(CHAIN, 9, b""), "header takes 8 bytes"),
    Attack("chain's spare bytes", 9, chain(TOPK, PLACE, ONE, spare=1), "bytes 1 to 3"),
    Attack("an unknown front", 9, chain(0, PLACE, ONE), "codec 0"),
    Attack("a front without values", 9, chain(QSGD, PLACE, ONE), "leaves no values"),
    Attack("a chain as front", 9, chain(CHAIN, PLACE, ONE), "leaves no values"),
    Attack("front's header too long", 9, chain(TOPK, PLACE, ONE, size=999), "takes 999 bytes"),
    Attack("front of 4 GB", 9, chain(TOPK, PLACE, ONE, size=LONGEST), "takes 4294967295"),
    Attack("no packet inside", 9, chain(TOPK, PLACE, b""), "0 bytes, fewer than"),
    Attack("inside cut short", 9, chain(TOPK, PLACE, ONE[:-1]), "header says"),
    Attack("bytes after the inside", 9, chain(TOPK, PLACE, ONE + b"\0"), "header says"),
    Attack("inside of two values", 9, chain(RANDK, u4(1, 1, 2, 0), ONE), "dim is 1 inside"),
    Attack("inside longer than outside", 9, chain(HADAMARD, KEY, ONE), "dim is 1 inside"),
    Attack("place beyond", 9, chain(TOPK, PLACE[:8] + u4(9), ONE), "ascending places below 9"),
    Attack("key too long", 9, chain(HADAMARD, KEY + b"\0", HUGE), "1 bytes follow"),
    Attack("rand-k header too long", 9, chain(RANDK, u4(1, 1, 1, 0, 0), ONE), "4 bytes follow"),
    Attack("inside of nan", 9, chain(TOPK, PLACE, frame(IDENTITY, 1, f4(NAN))), "is nan"),
    Attack("rotated above float32", 9, chain(HADAMARD, KEY, HUGE), "decoded number"),
    Attack("damage inside", 9, chain(TOPK, PLACE, ONE[:-1] + b"\3"), "CRC-32"),
    # hadamard
    Attack("rotated values missing", 9, frame(HADAMARD, 9, KEY + f4(1)), "takes 36 bytes"),
    Attack("a rotated value too many", 1, frame(HADAMARD, 1, KEY + f4(1, 1)), "4 bytes follow"),
    Attack("rotated infinity", 1, frame(HADAMARD, 1, KEY + f4(INF)), "value 0 is inf"),
    Attack("rotation overflows", 2, frame(HADAMARD, 2, KEY + f4(3e38, 3e38)), "decoded number"),
    Attack("4 billion rotated", LONGEST, frame(HADAMARD, LONGEST, KEY), "takes 17179869180"),
    # drive
    Attack("drive's unknown scale", 2, drive(f4(1) + b"\1", scale=2), "scale 2"),
    Attack("drive's spare bytes", 2, drive(f4(1) + b"\1", spare=1), "bytes 9 to 11"),
    Attack("drive's scale below zero", 2, drive(f4(-1) + b"\1"), "below zero"),
    Attack("drive's scale is nan", 2, drive(f4(NAN) + b"\1"), "scale 0 is nan"),
    Attack("drive's padding", 2, drive(f4(1) + b"\7"), "padding"),
    Attack("drive overflows", 2, drive(f4(3e38) + b"\3"), "decoded number"),
    Attack("4 billion of drive", LONGEST, drive(f4(1), dim=LONGEST), "4294967295 codes do not"),
    # eden
    Attack("eden of no bits", 2, eden(f4(1) + b"\1", bits=0), "bits is 0"),
    Attack("eden of seven bits", 2, eden(f4(1) + b"\1\1", bits=7), "bits is 7"),
    Attack("eden's unknown scale", 2, eden(f4(1) + b"\1", scale=2), "scale 2"),
    Attack("eden's spare bytes", 2, eden(f4(1) + b"\1", spare=1), "bytes 10 and 11"),
    Attack("eden's scale below zero", 2, eden(f4(-1) + b"\1"), "below zero"),
    Attack("eden's padding", 2, eden(f4(1) + b"\x10"), "padding"),
    Attack("eden overflows", 2, eden(f4(3e38) + b"\0"), "overflows float32|decoded number"),
    Attack("4 billion of eden", LONGEST, eden(f4(1), dim=LONGEST), "4294967295 codes do not"),
]
