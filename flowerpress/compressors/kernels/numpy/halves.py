"""Numbers of 16 bits: numpy's half; `kernels.numba.halves` has their compiled twins.

Rounding is to the nearest, ties to the even code. The factor of a packet comes as two powers of
two, applied one after the other, because their product may lie outside the dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.packing import pieces

Floats = npt.NDArray[np.floating[Any]]
U16 = npt.NDArray[np.uint16]

_MANTISSA = {np.dtype(np.float32): 23, np.dtype(np.float64): 52}


def fp16_pack(x: Floats, first: Any, second: Any) -> U16:
    """Return the codes of ``x * first * second``, which are below 65504 in magnitude."""
    codes = np.empty(x.size, dtype=np.uint16)
    for start, stop in pieces(x.size):
        scaled = x[start:stop] * first * second
        codes[start:stop] = scaled.astype(np.float16).view(np.uint16)
    return codes


def bf16_pack(x: Floats, first: Any, second: Any) -> U16:
    """Return the codes of ``x * first * second``: the upper half of a float32, rounded."""
    codes = np.empty(x.size, dtype=np.uint16)
    for start, stop in pieces(x.size):
        scaled = x[start:stop] * first * second
        codes[start:stop] = _bf16_codes(scaled)
    return codes


def _bf16_codes(scaled: Floats) -> U16:
    """Round the mantissa to 7 bits as an integer; the carry runs into the exponent, as it must."""
    unsigned: Any = np.uint32 if scaled.dtype.itemsize == 4 else np.uint64
    bits = scaled.view(unsigned)
    drop = _MANTISSA[scaled.dtype] - 7
    odd = (bits >> unsigned(drop)) & unsigned(1)
    bits = (bits + unsigned((1 << (drop - 1)) - 1) + odd) >> unsigned(drop) << unsigned(drop)
    rounded: npt.NDArray[np.float32] = bits.view(scaled.dtype).astype(np.float32)
    codes: U16 = (rounded.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    return codes


def fp16_add(codes: U16, first: Any, second: Any, weight: Any, out: Floats) -> None:
    """Add ``weight * (code * first * second)`` to `out`; see `halves_add`."""
    _add(codes, first, second, weight, out, _fp16_values)


def bf16_add(codes: U16, first: Any, second: Any, weight: Any, out: Floats) -> None:
    """Add ``weight * (code * first * second)`` to `out`."""
    _add(codes, first, second, weight, out, _bf16_values)


def _fp16_values(codes: U16) -> npt.NDArray[np.float32]:
    return codes.view(np.float16).astype(np.float32)


def _bf16_values(codes: U16) -> npt.NDArray[np.float32]:
    return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _add(codes: U16, first: Any, second: Any, weight: Any, out: Floats, values: Any) -> None:
    """Add in the dtype of `weight`, which is the wider of the packet's and that of `out`."""
    for start, stop in pieces(out.size):
        decoded = values(codes[start:stop]).astype(first.dtype, copy=False) * first * second
        out[start:stop] += (decoded.astype(weight.dtype, copy=False) * weight).astype(
            out.dtype, copy=False
        )
