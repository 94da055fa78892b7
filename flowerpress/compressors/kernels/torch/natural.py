"""Powers of two in 8 bits by torch operations; `kernels.numpy.natural` says what each does."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowerpress.compressors.kernels.device import DeviceVector, to_host
from flowerpress.compressors.kernels.packing import U8
from flowerpress.compressors.kernels.torch.words import (
    float_bits,
    magnitude_bits,
    pieces,
    rounding_words,
    shifted,
    unsigned,
)


def natural_pack(x: DeviceVector, first: Any, second: Any, key: tuple[int, int]) -> U8:
    """Return the codes of ``x * first * second``: the sign in bit 7, 0 for zero, 127 for one."""
    import torch

    codes = torch.empty(x.size, dtype=torch.uint8, device=x.tensor.device)
    for start, stop in pieces(x.size):
        scaled = x.tensor[start:stop] * float(first) * float(second)
        bits, magnitude = float_bits(scaled), magnitude_bits(scaled)
        word = rounding_words(key, start, stop, scaled.device)
        if x.dtype == np.float32:
            code = (magnitude + shifted(word, 9)) >> 23
        else:
            code = (magnitude + (unsigned(word) << 20) + (1 << 19)) >> 52
        codes[start:stop] = code | torch.where(bits < 0, 128, 0).to(code.dtype)
    return to_host(codes)


def largest_magnitude(x: DeviceVector) -> float:
    """Return the largest ``|x|``; NaN or infinity if there is one."""
    import torch

    low, high = torch.aminmax(x.tensor)
    return max(float(high), -float(low))
