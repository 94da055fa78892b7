"""Attacks on packets inside packets and on what is built on rotations."""

from __future__ import annotations

import struct

import numpy as np

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

HADAMARD, DRIVE, EDEN, SKETCH, CHAIN = 20, 21, 22, 23, 25
INDUCED, SCALED, RANS, HUFFMAN, BLOCKED = 26, 27, 28, 29, 30
TERNGRAD = 8


def chain(
    front: int, header: bytes, inside: bytes, *, dim: int = 9, size: int | None = None, spare=0
) -> bytes:
    head = struct.pack("<BBHI", front, spare, 0, len(header) if size is None else size)
    return frame(CHAIN, dim, head + header + inside)


ONE = frame(SIGN, 1, u4(0, 0) + f4(1) + b"\1")
FLAT, TWO = frame(IDENTITY, 1, f4(1)), frame(IDENTITY, 2, f4(1, 2))
ENDLESS = frame(IDENTITY, 1, f4(1), length=(1 << 64) - 1)
WIDE = frame(IDENTITY, 1, struct.pack("<d", 1.0), dtype=2)
HUGE = frame(IDENTITY, 9, f4(*[3e38] * 9))
PLACE = struct.pack("<IBBH", 1, 0, 0, 0) + u4(3)
KEY = u4(1, 2)


def drive(payload: bytes, *, scale: int = 0, spare: int = 0, dim: int = 2) -> bytes:
    return frame(DRIVE, dim, KEY + struct.pack("<BBH", scale, spare, 0) + payload)


def eden(payload: bytes, *, bits: int = 2, scale: int = 0, spare: int = 0, dim: int = 2) -> bytes:
    return frame(EDEN, dim, KEY + struct.pack("<BBH", bits, scale, spare) + payload)


def scaled(factor: float, inside: bytes) -> bytes:
    return frame(SCALED, 1, struct.pack("<d", factor) + inside)


def induced(size: int, inside: bytes) -> bytes:
    return frame(INDUCED, 1, struct.pack("<Q", size) + inside)


def blocked(size: int, inside: bytes, dim: int = 3) -> bytes:
    return frame(BLOCKED, dim, struct.pack("<I", size) + inside)


def sketch(cells: bytes, *, scheme=1, rows=1, spare=0, columns=2, dim: int = 9) -> bytes:
    return frame(SKETCH, dim, KEY + struct.pack("<BBHI", scheme, rows, spare, columns) + cells)


BIG = frame(IDENTITY, 1, f4(3e38))


def rans(
    table: tuple[int, ...] = (16384,),
    code: bytes = u4(*[65536] * 32),
    *,
    inside: int = SIGN,
    width: int = 1,
    first: int = 1,
    count: int = 40,
    spare: int = 0,
    cut: int = 12,
    entries: int | None = None,
    dim: int = 40,
) -> bytes:
    """Forty signs, all of them plus, in no words at all."""
    size = len(table) if entries is None else entries
    head = struct.pack("<BBHIHHQ", inside, width, first, count, size, spare, cut)
    before = u4(0, 0) + f4(1)
    return frame(RANS, dim, head + before + np.array(table, dtype="<u2").tobytes() + code)


def huffman(
    table: bytes = b"\x21\x02",
    sizes: tuple[int, ...] = (1, 1, 1, 1),
    words: tuple[int, ...] = (0xD0, 0xD0, 0xD0, 0xD0),
    *,
    entries: int = 3,
    count: int = 24,
    first: int = 0,
    more: bytes = b"",
    dim: int = 24,
) -> bytes:
    """Twenty-four codes in words of 1, 2 and 2 bits: each of four streams is 0 0 0 0 1 2."""
    head = struct.pack("<BBHIHHQ", TERNGRAD, 2, first, count, entries, 0, 4)
    return frame(HUFFMAN, dim, head + f4(1) + table + u4(*sizes) + u4(*words) + more)


ATTACKS = [
    # scaled and induced
    Attack("factor is nan", 1, scaled(NAN, ONE), "factor is nan"),
    Attack("factor is zero", 1, scaled(0.0, ONE), "factor is 0.0"),
    Attack("factor above one", 1, scaled(1.5, ONE), "factor is 1.5"),
    Attack("factor of nothing", 1, scaled(0.5, b""), "0 bytes, fewer than"),
    Attack("factor of two values", 1, scaled(0.5, HUGE), "dim is 9 inside"),
    Attack("first packet too long", 1, induced(999, ONE + ONE), "takes 999 bytes"),
    Attack("first of 2**64", 1, induced((1 << 64) - 1, ONE + ONE), "takes 18446744073709551615"),
    Attack("first packet cut short", 1, induced(len(ONE) - 1, ONE + ONE), "header says"),
    Attack("no second packet", 1, induced(len(ONE), ONE), "0 bytes, fewer than"),
    Attack("second of two values", 1, induced(len(ONE), ONE + HUGE), "dim is 9 inside"),
    Attack("the sum overflows", 1, induced(len(BIG), BIG + BIG), "decoded number 0 is inf"),
    # blocked
    Attack("blocks of no coordinates", 3, blocked(0, FLAT * 3), "blocks of no coordinates"),
    Attack("fewer blocks than said", 3, blocked(1, FLAT), "are no 3 packets"),
    Attack("a block cut short", 3, blocked(1, FLAT * 2 + FLAT[:27]), "takes 28 bytes"),
    Attack("one block too many", 3, blocked(1, FLAT * 4), "28 bytes follow"),
    Attack("a block of another length", 3, blocked(2, FLAT * 2), "a packet that leaves 2"),
    Attack("a last block too long", 3, blocked(2, TWO * 2), "a packet that leaves 1"),
    Attack("a block of 2**64 bytes", 1, blocked(1, ENDLESS, 1), "takes 1844674407370955"),
    Attack("a block in another dtype", 1, blocked(1, WIDE, 1), "float64 inside a packet of"),
    Attack("blocks of two codecs", 2, blocked(1, FLAT + ONE, 2), "blocks of codecs 1 and 4"),
    # countsketch
    Attack("an unknown hash", 9, sketch(f4(1, 1), scheme=2), "hash 2"),
    Attack("no rows", 9, sketch(b"", rows=0), "rows is 0"),
    Attack("two rows", 9, sketch(f4(1, 1, 1, 1), rows=2), "rows is 2"),
    Attack("17 rows", 9, sketch(f4(*[1] * 34), rows=17), "rows is 17"),
    Attack("sketch's spare bytes", 9, sketch(f4(1, 1), spare=1), "bytes 10 and 11"),
    Attack("no columns", 9, sketch(b"", columns=0), "columns is 0"),
    Attack("more columns than needed", 9, sketch(f4(*[1] * 10), columns=10), "columns is 10"),
    Attack("a cell too few", 9, sketch(f4(1)), "cell takes 8 bytes"),
    Attack("a cell too many", 9, sketch(f4(1, 1, 1)), "4 bytes follow"),
    Attack("a cell is nan", 9, sketch(f4(1, NAN)), "cell 1 is nan"),
    Attack(
        "4 billion columns", LONGEST, sketch(b"", columns=LONGEST, dim=LONGEST), "takes 17179869180"
    ),
    # rans
    Attack("rans of nothing", 40, frame(RANS, 40, b""), "header takes 20 bytes"),
    Attack("rans' spare bytes", 40, rans(spare=1), "bytes 10 and 11"),
    Attack("rans of an unknown codec", 40, rans(inside=0), "codec 0"),
    Attack("before the symbols too long", 40, rans(cut=1 << 60), "takes 1152921504606846976"),
    Attack("symbols of 13 bits", 40, rans(width=13), "symbols of 13 bits"),
    Attack("no symbols", 40, rans(count=0), "0 symbols"),
    Attack("more symbols than coordinates", 40, rans(count=41), "41 symbols of 1 bits"),
    Attack("4 billion symbols", 40, rans(count=LONGEST), "4294967295 symbols"),
    Attack("a thousand million bytes", 40, rans(width=8, count=10**9), "symbols of 8 bits"),
    Attack("no table", 40, rans(table=()), "symbols 1 to 0"),
    Attack("symbols beyond their bits", 40, rans(table=(8192, 8192)), "symbols 1 to 2"),
    Attack("table cut short", 40, rans(width=8, entries=255), "the table takes 510 bytes"),
    Attack("frequencies too small", 40, rans(table=(16383,)), "add up to 16383"),
    Attack("frequencies too large", 40, rans((65535, 1), first=0), "add up to 65536"),
    Attack("a zero at the end", 40, rans((16384, 0), first=0), "must not be zero"),
    Attack("a zero at the start", 40, rans((0, 16384), first=0), "must not be zero"),
    Attack("31 lanes", 40, rans(code=u4(*[65536] * 31)), "lanes takes 128 bytes"),
    Attack("a lane too low", 40, rans(code=u4(*[65536] * 31, 65535)), "lane 31 is below"),
    Attack("a lane too high", 40, rans(code=u4(*[65536] * 31, 65537)), "do not hold 40"),
    Attack("half a word", 40, rans(code=u4(*[65536] * 32) + b"\0"), "half a word"),
    Attack("a word too many", 40, rans(code=u4(*[65536] * 32) + b"\0\0"), "do not hold 40"),
    Attack("a word too few", 40, rans((1, 16383), u4(*[65536] * 32), first=0), "do not hold 40"),
    Attack("too few symbols inside", 40, rans(count=30), "codes takes 5 bytes"),
    Attack("symbols that are sent as they are", 40, rans(width=0), "has no symbols"),
    Attack(
        "stored and more",
        40,
        rans((), b"", width=0, first=0, count=0, cut=5),
        "7 bytes follow",
    ),
    # huffman
    Attack("huffman of nothing", 24, frame(HUFFMAN, 24, b""), "header takes 20 bytes"),
    Attack("huffman's first beyond", 24, huffman(first=2), "symbols 2 to 4"),
    Attack("no lengths", 24, huffman(b"", (), ()), "codes takes 2 bytes"),
    Attack("padding after the lengths", 24, huffman(b"\x21\x12"), "padding"),
    Attack("a first length of zero", 24, huffman(b"\x10\x01"), "must not be zero"),
    Attack("a last length of zero", 24, huffman(b"\x11\x00"), "must not be zero"),
    Attack("too many words", 24, huffman(b"\x11\x01"), "not those of a complete"),
    Attack("too few words", 24, huffman(b"\x22\x02"), "not those of a complete"),
    Attack("words that are too long", 24, huffman(b"\xff\x0f"), "not those of a complete"),
    Attack("a bit for a lone symbol", 24, huffman(b"\x01", entries=1), "not those of a complete"),
    Attack("a stream of a lone symbol", 24, huffman(b"\0", entries=1), "do not hold 24"),
    Attack("three streams", 24, huffman(sizes=(1, 1, 1), words=()), "streams takes 16 bytes"),
    Attack("a stream of 16 GB", 24, huffman(sizes=(1, 1, 1, LONGEST)), "of 4294967298 words"),
    Attack("a stream too many", 24, huffman(words=(0xD0,) * 5), "4 words in 20 bytes"),
    Attack("a byte after the streams", 24, huffman(more=b"\0"), "4 words in 17 bytes"),
    Attack("no streams", 24, huffman(sizes=(0, 0, 0, 0), words=()), "0 words are too few"),
    Attack(
        "4 billion symbols in none",
        LONGEST,
        huffman(sizes=(0,) * 32, words=(), count=LONGEST, dim=LONGEST),
        "0 words are too few",
    ),
    Attack("one stream is another's", 24, huffman(sizes=(2, 0, 1, 1)), "do not hold 24"),
    Attack(
        "a stream that goes on", 24, huffman(sizes=(1, 1, 1, 2), words=(0xD0,) * 4 + (0,)), "do not"
    ),
    Attack("a bit after a stream", 24, huffman(words=(0xD0, 0x1D0, 0xD0, 0xD0)), "do not hold 24"),
    Attack(
        "streams into each other",
        200,
        huffman(sizes=(2, 2, 2, 2), words=(LONGEST,) * 8, count=200, dim=200),
        "do not hold 200",
    ),
    Attack("a code that is not inside", 24, huffman(first=1), "code 5 is above 2"),
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
