"""Numbers of 16 bits: the compiled half; `kernels.numpy.halves` says what each does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.jit import jit
from flowerpress.compressors.kernels.numpy import halves
from flowerpress.compressors.kernels.scratch import scratch

Floats = npt.NDArray[np.floating[Any]]
F32 = npt.NDArray[np.float32]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]

BLOCK = 1024


@jit
def _fp16_codes(bits: U32, tiny: U32, codes: U16) -> None:
    """Round scaled numbers: `bits` are theirs, `tiny` those of their magnitudes plus one half."""
    for i in range(codes.size):
        u = np.uint32(bits[i] & np.uint32(0x7FFFFFFF))
        # Below 2**-14 codes count multiples of 2**-24, the last place of numbers from 1/2 to 1.
        small = np.uint32(tiny[i] - np.uint32(126 << 23))
        odd = np.uint32(np.uint32(u >> np.uint32(13)) & np.uint32(1))
        rebased = np.uint32(np.uint32(u - np.uint32(112 << 23)) + np.uint32(0xFFF))
        large = np.uint32(np.uint32(rebased + odd) >> np.uint32(13))
        code = small if u < np.uint32(113 << 23) else large
        sign = np.uint32(np.uint32(bits[i] >> np.uint32(16)) & np.uint32(0x8000))
        codes[i] = np.uint16(code | sign)


@jit
def _fp16_pack(
    x: F32, first: Any, second: Any, scaled: F32, bits: U32, moved: F32, tiny: U32, codes: U16
) -> None:
    for start in range(0, x.size, BLOCK):
        part = x[start : start + BLOCK]
        for i in range(part.size):
            scaled[i] = np.float32(part[i] * first) * second
        for i in range(part.size):
            moved[i] = abs(scaled[i]) + np.float32(0.5)
        _fp16_codes(bits, tiny, codes[start : start + BLOCK])


def fp16_pack(x: Floats, first: Any, second: Any) -> U16:
    """Return the codes of ``x * first * second``."""
    if x.dtype != np.float32:
        return halves.fp16_pack(x, first, second)
    codes: U16 = scratch.empty(2 * x.size).view(np.uint16)
    scaled, moved = np.empty(BLOCK, dtype=np.float32), np.empty(BLOCK, dtype=np.float32)
    views = scaled, scaled.view(np.uint32), moved, moved.view(np.uint32)
    _fp16_pack(x, first, second, *views, codes)
    return codes


@jit
def _bf16_pack(x: F32, first: Any, second: Any, scaled: F32, bits: U32, codes: U16) -> None:
    for start in range(0, x.size, BLOCK):
        part, target = x[start : start + BLOCK], codes[start : start + BLOCK]
        for i in range(part.size):
            scaled[i] = np.float32(part[i] * first) * second
        for i in range(part.size):
            odd = np.uint32(np.uint32(bits[i] >> np.uint32(16)) & np.uint32(1))
            rounded = np.uint32(np.uint32(bits[i] + np.uint32(0x7FFF)) + odd)
            target[i] = np.uint16(rounded >> np.uint32(16))


def bf16_pack(x: Floats, first: Any, second: Any) -> U16:
    """Return the codes of ``x * first * second``."""
    if x.dtype != np.float32:
        return halves.bf16_pack(x, first, second)
    codes: U16 = scratch.empty(2 * x.size).view(np.uint16)
    scaled = np.empty(BLOCK, dtype=np.float32)
    _bf16_pack(x, first, second, scaled, scaled.view(np.uint32), codes)
    return codes


@jit
def _halves_add(
    codes: U16, fp16: bool, first: Any, second: Any, weight: Any, values: F32, bits: U32, out: Any
) -> None:
    for start in range(0, out.size, BLOCK):
        part, target = codes[start : start + BLOCK], out[start : start + BLOCK]
        if fp16:
            for i in range(part.size):
                code = np.uint32(part[i])
                sign = np.uint32(np.uint32(code & np.uint32(0x8000)) << np.uint32(16))
                rest = np.uint32(np.uint32(code & np.uint32(0x7FFF)) << np.uint32(13))
                bits[i] = np.uint32(rest | sign)
            # The exponent's bias differs by 112; the product is exact, below 2**-14 too.
            for i in range(part.size):
                values[i] *= np.float32(2.0**112)
        else:
            for i in range(part.size):
                bits[i] = np.uint32(np.uint32(part[i]) << np.uint32(16))
        for i in range(part.size):
            target[i] += (values[i] * first * second) * weight


def fp16_add(codes: U16, first: Any, second: Any, weight: Any, out: Floats) -> None:
    """Add ``weight * (code * first * second)`` to `out`."""
    _add(codes, True, first, second, weight, out)


def bf16_add(codes: U16, first: Any, second: Any, weight: Any, out: Floats) -> None:
    """Add ``weight * (code * first * second)`` to `out`."""
    _add(codes, False, first, second, weight, out)


def _add(codes: U16, fp16: bool, first: Any, second: Any, weight: Any, out: Floats) -> None:
    if out.dtype != weight.dtype:  # a float64 packet into float32: rounded once, by numpy
        half = halves.fp16_add if fp16 else halves.bf16_add
        half(codes, first, second, weight, out)
        return
    values = np.empty(BLOCK, dtype=np.float32)
    _halves_add(codes, fp16, first, second, weight, values, values.view(np.uint32), out)
