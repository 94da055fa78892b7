"""Numbers of 16 bits by torch operations; `kernels.numpy.halves` says what each does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.device import DeviceVector, to_host
from flowerpress.compressors.kernels.torch.words import float_bits, magnitude_bits, pieces

U16 = npt.NDArray[np.uint16]

# Bits of the mantissa, and the exponent's bias.
_FORMAT = {np.dtype(np.float32): (23, 127), np.dtype(np.float64): (52, 1023)}
_HALF_MANTISSA, _HALF_BIAS = 10, 15


def fp16_pack(x: DeviceVector, first: Any, second: Any) -> U16:
    """Return the codes of ``x * first * second``, which are below 65504 in magnitude."""

    # On the bits: torch's own cast of float64 goes through float32 and so rounds twice.
    def codes(scaled: Any) -> Any:
        import torch

        mantissa, bias = _FORMAT[x.dtype]
        drop, least = mantissa - _HALF_MANTISSA, 1 - _HALF_BIAS
        bits = magnitude_bits(scaled)
        # Below 2**-14 codes count multiples of 2**-24. That is the last place of numbers from
        # `moved` on, so that adding it rounds to such a multiple.
        moved = least - _HALF_MANTISSA + mantissa
        small = magnitude_bits(scaled.abs() + 2.0**moved) - ((bias + moved) << mantissa)
        odd = (bits >> drop) & 1
        rebased = bits - ((bias - _HALF_BIAS) << mantissa)
        large = (rebased + ((1 << (drop - 1)) - 1) + odd) >> drop
        code = torch.where(bits < ((bias + least) << mantissa), small, large)
        return code | torch.where(float_bits(scaled) < 0, 0x8000, 0).to(code.dtype)

    return _pack(x, first, second, codes)


def bf16_pack(x: DeviceVector, first: Any, second: Any) -> U16:
    """Return the codes of ``x * first * second``: the upper half of a float32, rounded."""

    def codes(scaled: Any) -> Any:
        import torch

        drop = _FORMAT[x.dtype][0] - 7
        bits = float_bits(scaled)
        bits = (bits + ((1 << (drop - 1)) - 1) + ((bits >> drop) & 1)) >> drop << drop
        return float_bits(bits.view(scaled.dtype).to(torch.float32)) >> 16

    return _pack(x, first, second, codes)


def _pack(x: DeviceVector, first: Any, second: Any, codes: Any) -> U16:
    import torch

    result = torch.empty(x.size, dtype=torch.int16, device=x.tensor.device)
    for start, stop in pieces(x.size):
        scaled = x.tensor[start:stop] * float(first) * float(second)
        result[start:stop] = codes(scaled).to(torch.int16)
    packed: U16 = to_host(result).view(np.uint16)
    return packed
