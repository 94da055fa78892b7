"""Attacks on the codecs of quantized values."""

from __future__ import annotations

import struct

from tests.hostile.attacks import LONGEST, Attack, frame

FP16, BF16 = 12, 13


def half(exponent: int, *codes: int, spare: int = 0) -> bytes:
    return struct.pack("<hH", exponent, spare) + struct.pack(f"<{len(codes)}H", *codes)


ATTACKS = [
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
