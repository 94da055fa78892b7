"""Powers of two in 8 bits: numpy's half; `kernels.numba.natural` has the compiled twins.

Numbers are first scaled so that the largest is at most one, and so that the smallest power of two
with a code is the smallest normal number of the dtype. The exponent's bits are then the code, and
the mantissa's bits are the chance of the next one: adding as many random bits carries into the
exponent with exactly that chance. What is below the smallest code is subnormal, so the same sum
rounds it to zero or to the smallest code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.packing import BLOCK, U8, pieces
from flowerpress.compressors.kernels.philox import rounding_words

Floats = npt.NDArray[np.floating[Any]]

# The exponents of one in the scaled numbers: that of code 127.
TOP_EXPONENT = {np.dtype(np.float32): 0, np.dtype(np.float64): -896}


def natural_pack(x: Floats, first: Any, second: Any, key: tuple[int, int]) -> U8:
    """Return the codes of ``x * first * second``: the sign in bit 7, 0 for zero, 127 for one."""
    codes = np.empty(x.size, dtype=np.uint8)
    for start, stop in pieces(x.size):
        scaled = x[start:stop] * first * second
        word = rounding_words(key, start // BLOCK, -(-stop // BLOCK) - start // BLOCK).reshape(-1)
        word = word[: stop - start]
        if x.dtype == np.float32:
            bits = np.abs(scaled).view(np.uint32)
            code = (bits + (word >> np.uint32(9))) >> np.uint32(23)
        else:
            noise = (word.astype(np.uint64) << np.uint64(20)) + np.uint64(1 << 19)
            code = (np.abs(scaled).view(np.uint64) + noise) >> np.uint64(52)
        codes[start:stop] = code + np.uint32(128) * np.signbit(scaled)
    return codes


def largest_magnitude(x: Floats) -> float:
    """Return the largest ``|x|``; NaN or infinity if there is one."""
    return abs(max(float(x.max()), -float(x.min())))  # of zeros it may be -0.0


def natural_add(codes: U8, unit: Any, out: Floats) -> None:
    """Add ``unit`` times the power of two of its code, at most one, to each coordinate."""
    for start, stop in pieces(out.size):
        code = codes[start:stop].astype(np.uint32)
        bits = (code & np.uint32(127)) << np.uint32(23) | (code >> np.uint32(7)) << np.uint32(31)
        out[start:stop] += unit * bits.view(np.float32).astype(out.dtype, copy=False)
