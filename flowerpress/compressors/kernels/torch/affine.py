"""Codes on evenly spaced points by torch operations; `kernels.numpy.affine` says what each does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.device import DeviceVector, to_device
from flowerpress.compressors.kernels.numpy.affine import HALF, TINY, fixed_digits
from flowerpress.compressors.kernels.packing import U8
from flowerpress.compressors.kernels.sums import Offsets
from flowerpress.compressors.kernels.torch.common import Scale32
from flowerpress.compressors.kernels.torch.sums import block_maxima
from flowerpress.compressors.kernels.torch.words import (
    packed,
    rounding_words,
    shifted,
    signed,
    spread,
    unsigned,
)

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.floating[Any]]

__all__ = ["block_maxima", "max_uniform_pack", "uniform_pack"]


def uniform_pack(
    x: DeviceVector,
    maxima: Floats,
    offsets: Offsets,
    top: int,
    width: int,
    key: tuple[int, int] | None,
) -> U8:
    """Round each coordinate to a code from 0 to `top` over its block's range, and pack."""
    rounding = _rounding_32 if x.dtype == np.float32 else _rounding_64
    return packed(x.size, width, x.tensor.device, rounding(x, maxima, offsets, top, key))


def max_uniform_pack(
    x: DeviceVector, bucket: int, top: int, width: int, key: tuple[int, int] | None
) -> tuple[Floats, U8]:
    """Return the float32 maximum of each bucket, whose size divides 1024, and the packed codes."""
    offsets = np.append(np.arange(0, x.size, bucket, dtype=np.int64), x.size)
    maxima = block_maxima(x, offsets)
    if not np.isfinite(maxima).all():
        return maxima, np.empty(0, dtype=np.uint8)
    return maxima, uniform_pack(x, maxima, offsets, top, width, key)


def _words(key: tuple[int, int] | None, start: int, stop: int, device: Any) -> Tensor:
    import torch

    if key is None:
        return torch.full((stop - start,), signed(HALF), dtype=torch.int32, device=device)
    return rounding_words(key, start, stop, device)


def _rounding_32(
    x: DeviceVector, maxima: Floats, offsets: Offsets, top: int, key: tuple[int, int] | None
) -> Any:
    digits = fixed_digits(top)
    reach = top << (digits - 1)
    scale = Scale32(x, maxima, offsets, reach, TINY)
    filled = to_device((maxima > 0).astype(np.int32), x.tensor.device)

    def codes(start: int, stop: int) -> Tensor:
        fixed = scale(start, stop) + reach
        word = _words(key, start, stop, fixed.device)
        rounded = shifted(fixed + shifted(word, 32 - digits), digits)
        return rounded * spread(filled, offsets, start, stop)

    return codes


def _rounding_64(
    x: DeviceVector, maxima: Floats, offsets: Offsets, top: int, key: tuple[int, int] | None
) -> Any:
    import torch

    sizes = to_device(maxima, x.tensor.device)

    def codes(start: int, stop: int) -> Tensor:
        largest = spread(sizes, offsets, start, stop)
        place = x.tensor[start:stop] / largest * (top / 2) + top / 2
        word = unsigned(_words(key, start, stop, largest.device)).to(torch.float64)
        rounded = place + (word + 0.5) * 2.0**-32
        return torch.where(largest > 0, rounded, 0.0).to(torch.int32)

    return codes
