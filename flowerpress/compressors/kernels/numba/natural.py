"""Powers of two in 8 bits: the compiled half; `kernels.numpy.natural` says what each does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.jit import empty_words, jit
from flowerpress.compressors.kernels.numba.levels import rounding_words
from flowerpress.compressors.kernels.scratch import scratch

F32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating[Any]]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

BLOCK = 1024


@jit
def _codes_32(bits: U32, words: U32, codes: U8) -> None:
    for i in range(codes.size):
        noise = np.uint32(words[i] >> np.uint32(9))
        magnitude = np.uint32(bits[i] & np.uint32(0x7FFFFFFF))
        code = np.uint32(np.uint32(magnitude + noise) >> np.uint32(23))
        sign = np.uint32(np.uint32(bits[i] >> np.uint32(31)) << np.uint32(7))
        codes[i] = np.uint8(code | sign)


@jit
def _codes_64(bits: U64, words: U32, codes: U8) -> None:
    for i in range(codes.size):
        noise = (np.uint64(words[i]) << np.uint64(20)) + np.uint64(1 << 19)
        magnitude = bits[i] & np.uint64(0x7FFFFFFFFFFFFFFF)
        sign = (bits[i] >> np.uint64(63)) << np.uint64(7)
        codes[i] = np.uint8(((magnitude + noise) >> np.uint64(52)) | sign)


@jit
def _natural_pack(
    x: Floats,
    first: Any,
    second: Any,
    k0: np.uint32,
    k1: np.uint32,
    scaled: Floats,
    bits: Any,
    codes: U8,
) -> None:
    words = empty_words(BLOCK)
    for start in range(0, x.size, BLOCK):
        part, target = x[start : start + BLOCK], codes[start : start + BLOCK]
        rounding_words(k0, k1, start // BLOCK, words)
        for i in range(part.size):
            scaled[i] = part[i] * first * second
        if x.itemsize == 4:
            _codes_32(bits, words, target)
        else:
            _codes_64(bits, words, target)


@jit
def _largest_bits(bits: Any, mask: Any) -> Any:
    """Return the largest magnitude's bits, whose order is that of the magnitudes."""
    largest = bits[0] & mask
    for i in range(bits.size):
        value = bits[i] & mask
        largest = value if value > largest else largest
    return largest


@jit
def _natural_add(codes: U8, unit: Any, values: F32, bits: U32, out: Floats) -> None:
    for start in range(0, out.size, BLOCK):
        part, target = codes[start : start + BLOCK], out[start : start + BLOCK]
        for i in range(part.size):
            code = np.uint32(part[i])
            sign = np.uint32(np.uint32(code >> np.uint32(7)) << np.uint32(31))
            bits[i] = np.uint32(np.uint32(np.uint32(code & np.uint32(127)) << np.uint32(23)) | sign)
        for i in range(part.size):
            target[i] += unit * values[i]


def natural_pack(x: Floats, first: Any, second: Any, key: tuple[int, int]) -> U8:
    """Return the codes of ``x * first * second``."""
    codes = scratch.empty(x.size)
    scaled = empty_words(2 * BLOCK).view(x.dtype)
    bits = scaled.view(np.uint32 if x.dtype == np.float32 else np.uint64)
    k0, k1 = np.uint32(key[0]), np.uint32(key[1])
    _natural_pack(x, first, second, k0, k1, scaled, bits, codes)
    return codes


def largest_magnitude(x: Floats) -> float:
    """Return the largest ``|x|``; NaN or infinity if there is one."""
    unsigned: Any = np.uint32 if x.dtype == np.float32 else np.uint64
    mask = unsigned((1 << (8 * x.itemsize - 1)) - 1)
    return float(np.array([_largest_bits(x.view(unsigned), mask)], dtype=unsigned).view(x.dtype)[0])


def natural_add(codes: U8, unit: Any, out: Floats) -> None:
    """Add ``unit`` times the power of two of its code, at most one, to each coordinate."""
    values = empty_words(BLOCK).view(np.float32)
    _natural_add(codes, unit, values, values.view(np.uint32), out)
