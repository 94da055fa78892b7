"""Attacks on the codecs of quantized values."""

from __future__ import annotations

import struct

from tests.hostile.attacks import INF, LONGEST, NAN, Attack, f4, frame, u4

TERNGRAD, LOGGRID, RANDSIGN, SIGNTOPK, THRESHOLD = 8, 9, 10, 11, 14
UNIFORM, NATURAL, FP16, BF16, CQ, PERMK = 6, 7, 12, 13, 15, 16


def half(exponent: int, *codes: int, spare: int = 0) -> bytes:
    return struct.pack("<hH", exponent, spare) + struct.pack(f"<{len(codes)}H", *codes)


def kept(k: int, tag: int = 0, *, least: float = 1.0) -> bytes:
    return struct.pack("<IBBHd", k, tag, 0, 0, least)


def ranged(kind, *, tag=0, k=0, bucket=0, number=None, spare=0, rest=b"\0\0\x80?") -> bytes:
    """Return a payload of `cq` with two levels, one range and its long head."""
    if number is None:
        number = {0: 3.0, 3: 3.0, 4: 1.0}.get(kind, 0.0)
    head = struct.pack("<BBBBIId", kind, tag, 0, spare, bucket, k, number)
    return u4(0x40002) + head + rest + b"\1"


def beyond(value: float, *, place: int = 0, reach: float = 1.0) -> bytes:
    """Return the same with one value beyond the range."""
    return ranged(0, k=1, rest=f4(reach, value) + u4(place))


ATTACKS = [
    # uniform
    Attack("no bits", 2, frame(UNIFORM, 2, u4(0, 0)), "bits is 0"),
    Attack("nine bits", 2, frame(UNIFORM, 2, u4(9, 0)), "bits is 9"),
    Attack("unknown rounding", 2, frame(UNIFORM, 2, u4(0x201, 0)), "rounding 2"),
    Attack("uniform's spare bytes", 2, frame(UNIFORM, 2, u4(0x10001, 0)), "bytes 2 and 3"),
    Attack("maximum below zero", 2, frame(UNIFORM, 2, u4(1, 0) + f4(-1) + b"\1"), "below zero"),
    Attack("maximum is nan", 2, frame(UNIFORM, 2, u4(1, 0) + f4(NAN) + b"\1"), "maximum 0 is nan"),
    Attack("maximum is inf", 2, frame(UNIFORM, 2, u4(1, 0) + f4(INF) + b"\1"), "maximum 0 is inf"),
    Attack("padding after the points", 2, frame(UNIFORM, 2, u4(1, 0) + f4(1) + b"\4"), "padding"),
    Attack("code of no point", 2, frame(UNIFORM, 2, u4(0x102, 0) + f4(1) + b"\x0c"), "is above 2"),
    Attack("4 billion maxima", LONGEST, frame(UNIFORM, LONGEST, u4(4, 1)), "4294967295 maxima"),
    Attack("one range, no codes", LONGEST, frame(UNIFORM, LONGEST, u4(1, 0) + f4(1)), "codes take"),
    # natural
    Attack("power above float32", 1, frame(NATURAL, 1, half(128) + b"\1"), "exponent is 128"),
    Attack("power below float32", 1, frame(NATURAL, 1, half(-150) + b"\1"), "exponent is -150"),
    Attack(
        "natural's spare bytes", 1, frame(NATURAL, 1, half(0, spare=9) + b"\1"), "bytes 2 and 3"
    ),
    Attack("a power too few", 2, frame(NATURAL, 2, half(0) + b"\1"), "codes takes 2 bytes"),
    Attack("a power too many", 1, frame(NATURAL, 1, half(0) + b"\1\1"), "1 bytes follow"),
    Attack("4 billion powers", LONGEST, frame(NATURAL, LONGEST, half(0)), "takes 4294967295"),
    # terngrad, loggrid, randsign
    Attack("ternary code 3", 2, frame(TERNGRAD, 2, f4(1) + b"\x0d"), "code 1 is above 2|code 0 is"),
    Attack("ternary of inf", 2, frame(TERNGRAD, 2, f4(INF) + b"\1"), "magnitude 0 is inf"),
    Attack("ternary padding", 2, frame(TERNGRAD, 2, f4(1) + b"\x10"), "padding"),
    Attack("4 billion ternary", LONGEST, frame(TERNGRAD, LONGEST, f4(1)), "codes take"),
    Attack("grid of no powers", 2, frame(LOGGRID, 2, u4(0) + f4(1) + b"\0"), "k is 0"),
    Attack("grid of 64 powers", 2, frame(LOGGRID, 2, u4(64) + f4(1) + b"\0\0"), "k is 64"),
    Attack("grid's spare bytes", 2, frame(LOGGRID, 2, u4(0x103) + f4(1) + b"\0"), "bytes 1 to 3"),
    Attack("code of no power", 2, frame(LOGGRID, 2, u4(3) + f4(1) + b"\x38"), "code 1 is above 6"),
    Attack("grid of nan", 2, frame(LOGGRID, 2, u4(3) + f4(NAN) + b"\0"), "magnitude 0 is nan"),
    Attack("grid below zero", 2, frame(LOGGRID, 2, u4(3) + f4(-1) + b"\0"), "below zero"),
    Attack("random range of nan", 2, frame(RANDSIGN, 2, f4(NAN) + b"\1"), "range 0 is nan"),
    Attack("random padding", 2, frame(RANDSIGN, 2, f4(1) + b"\4"), "padding"),
    Attack("4 billion random signs", LONGEST, frame(RANDSIGN, LONGEST, f4(1)), "codes take"),
    # signtopk and threshold
    Attack("no signs of top-k", 9, frame(SIGNTOPK, 9, u4(0, 0) + f4(1)), "k is 0"),
    Attack("more signs than places", 9, frame(SIGNTOPK, 9, u4(10, 0) + f4(1)), "k is 10"),
    Attack("signs' spare bytes", 9, frame(SIGNTOPK, 9, u4(1, 1 << 16) + f4(1)), "bytes 6 and 7"),
    Attack("signs of nan", 9, frame(SIGNTOPK, 9, u4(1, 0) + f4(NAN) + b"\1"), "scale 0 is nan"),
    Attack("padding of kept signs", 9, frame(SIGNTOPK, 9, u4(1, 0) + f4(1) + b"\2"), "padding"),
    Attack("kept sign's place", 9, frame(SIGNTOPK, 9, u4(1, 2) + f4(1) + b"\1\x09"), "ids reach 9"),
    Attack("4 billion kept signs", LONGEST, frame(SIGNTOPK, LONGEST, u4(LONGEST, 2)), "takes 4"),
    Attack("more than all", 2, frame(THRESHOLD, 2, kept(3) + f4(1, 1, 1)), "count is 3"),
    Attack("threshold of zero", 2, frame(THRESHOLD, 2, kept(0, least=0.0)), "threshold is 0.0"),
    Attack("threshold of nan", 2, frame(THRESHOLD, 2, kept(0, least=NAN)), "threshold is nan"),
    Attack(
        "below the threshold", 2, frame(THRESHOLD, 2, kept(1, 2) + f4(0.5) + b"\1"), "below 1.0"
    ),
    Attack(
        "above, but nan", 2, frame(THRESHOLD, 2, kept(1, 2) + f4(NAN) + b"\1"), "value 0 is nan"
    ),
    Attack("ids of nothing", 2, frame(THRESHOLD, 2, kept(0) + b"\1"), "ids, but no values"),
    Attack("code of nothing", 2, frame(THRESHOLD, 2, kept(0, 2)), "ids, but no values"),
    Attack("threshold's place", 2, frame(THRESHOLD, 2, kept(1, 2) + f4(1) + b"\2"), "ids reach 2"),
    Attack("4 billion kept", LONGEST, frame(THRESHOLD, LONGEST, kept(LONGEST)), "takes 171798"),
    # cq
    Attack("cq of one level", 2, frame(CQ, 2, u4(1, 0)), "levels is 1"),
    Attack("cq of 257 levels", 2, frame(CQ, 2, u4(257, 0)), "levels is 257"),
    Attack("unknown range", 2, frame(CQ, 2, u4(0x50002) + f4(1) + b"\1"), "range of kind 5"),
    Attack("no such range", 2, frame(CQ, 2, ranged(5)), "range 5 is not known"),
    Attack("byte before the bucket", 2, frame(CQ, 2, ranged(0, spare=1)), "byte 7 is 0x01"),
    Attack("bucket of 100", 2, frame(CQ, 2, ranged(0, bucket=100)), "multiple of 1024"),
    Attack("buckets of one range", 2, frame(CQ, 2, ranged(3, bucket=1024)), "bucket must be 0"),
    Attack("c of zero", 2, frame(CQ, 2, ranged(0, number=0.0)), "c must be a number of at least 1"),
    Attack("c of nan", 2, frame(CQ, 2, ranged(0, number=NAN)), "c must be a number of at least 1"),
    Attack("c of a maximum", 2, frame(CQ, 2, ranged(1, number=2.0)), "must be zero"),
    Attack("number of zero", 2, frame(CQ, 2, ranged(4, number=0.0)), "range must be a positive"),
    Attack("own range missing", 2, frame(CQ, 2, ranged(3)[:-1]), "2 ranges do not fit 4"),
    Attack("own range absurd", 2, frame(CQ, 2, ranged(3, rest=f4(1, 1e30))), "the sender's own"),
    Attack("range of another", 2, frame(CQ, 2, ranged(3, rest=f4(3, 1))), "the sender's own"),
    Attack(
        "beyond a maximum", 2, frame(CQ, 2, ranged(1, k=1, rest=f4(1, 1) + u4(0))), "is the max"
    ),
    Attack("more beyond than all", 2, frame(CQ, 2, ranged(0, k=3)), "value takes 12 bytes"),
    Attack("beyond by nan", 2, frame(CQ, 2, beyond(NAN)), "value 0 is nan"),
    Attack("beyond by too much", 2, frame(CQ, 2, beyond(3e38, reach=3e38)), "overflows"),
    Attack("beyond the vector", 2, frame(CQ, 2, beyond(1.0, place=2)), "ids"),
    Attack("places of nothing", 2, frame(CQ, 2, ranged(0)[:-1] + b"\1\1"), "places, but no values"),
    Attack("code of no places", 2, frame(CQ, 2, ranged(0, tag=2)), "places, but no values"),
    Attack("4 billion beyond", LONGEST, frame(CQ, LONGEST, ranged(0, k=LONGEST)), "takes 171798"),
    Attack("4 billion ranges", LONGEST, frame(CQ, LONGEST, ranged(0, bucket=1024)), "do not fit"),
    Attack("range below zero", 2, frame(CQ, 2, u4(2) + f4(-1) + b"\1"), "below zero"),
    Attack("range is inf", 2, frame(CQ, 2, u4(2) + f4(INF) + b"\1"), "range 0 is inf"),
    Attack("range of nan", 2, frame(CQ, 2, u4(4, 1, 1) + f4(NAN) + b"\1"), "range 0 is nan"),
    Attack("grid without a key", 2, frame(CQ, 2, u4(4) + f4(1)), "header takes 8 bytes"),
    Attack("code of no level", 2, frame(CQ, 2, u4(3, 1, 1) + f4(1) + b"\x0c"), "code 1 is above 2"),
    Attack("padding after the bits", 2, frame(CQ, 2, u4(2) + f4(1) + b"\4"), "padding"),
    Attack("4 billion bits", LONGEST, frame(CQ, LONGEST, u4(2) + f4(1)), "codes take"),
    # perm-k
    Attack("cohort of none", 4, frame(PERMK, 4, u4(0, 0, 1, 1)), "rank is 0"),
    Attack("rank beyond the cohort", 4, frame(PERMK, 4, u4(2, 2, 1, 1) + f4(1, 1)), "rank is 2"),
    Attack("share too small", 4, frame(PERMK, 4, u4(2, 0, 1, 1) + f4(1)), "value takes 8 bytes"),
    Attack("share too large", 4, frame(PERMK, 4, u4(2, 0, 1, 1) + f4(1, 1, 1)), "4 bytes follow"),
    Attack("share cut short", 4, frame(PERMK, 4, u4(2, 0, 1, 1) + f4(1, 1)[:-1]), "value takes 8"),
    Attack("share of nan", 4, frame(PERMK, 4, u4(2, 0, 1, 1) + f4(1, NAN)), "value 1 is nan"),
    Attack("perm-k place beyond", 4, frame(PERMK, 4, u4(5, 0, 4) + f4(1)), "place is 4"),
    Attack("two places", 4, frame(PERMK, 4, u4(5, 0, 1) + f4(1, 1)), "4 bytes follow"),
    Attack("no place", 4, frame(PERMK, 4, u4(LONGEST, 0)), "header takes 4 bytes"),
    Attack("4 billion shares", LONGEST, frame(PERMK, LONGEST, u4(1, 0, 1, 1)), "takes 17179869180"),
    # fp16 and bf16
    Attack("half of infinity", 2, frame(FP16, 2, half(0, 0, 0x7C00)), "number 1 is not finite"),
    Attack("half of nan", 1, frame(FP16, 1, half(0, 0xFE01)), "number 0 is not finite"),
    Attack("bfloat16 of infinity", 1, frame(BF16, 1, half(0, 0xFF80)), "number 0 is not finite"),
    Attack("halves above float32", 1, frame(FP16, 1, half(113, 0x7BFF)), "overflow float32"),
    Attack("bfloat16 above float32", 1, frame(BF16, 1, half(9, 0x7F00)), "overflow float32"),
    Attack("exponent above float32", 1, frame(FP16, 1, half(114, 1)), "exponent is 114"),
    Attack("exponent below float32", 1, frame(BF16, 1, half(-164, 1)), "exponent is -164"),
    Attack("halves' spare bytes", 1, frame(FP16, 1, half(0, 1, spare=1)), "bytes 2 and 3"),
    Attack("half a half", 1, frame(FP16, 1, half(0, 1)[:-1]), "number takes 2 bytes"),
    Attack("a half too many", 1, frame(FP16, 1, half(0, 1, 1)), "2 bytes follow"),
    Attack("4 billion halves", LONGEST, frame(BF16, LONGEST, half(0, 1)), "takes 8589934590"),
]
