"""The kernels of encoding by torch operations, for vectors that are on a device.

Each function here has a twin of the same name in ``kernels.numpy.common``, which says what it does
and gives the same bytes; only the packed result comes to the host. Integer operations are exact. Of
the float operations, products, sums and quotients of two tensors and conversions round to the
nearest, as IEEE 754 has it, on the CPU and on CUDA; nothing is divided by a number, which CUDA
turns into a product. Decoding runs on the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.device import DeviceVector, to_device, to_host
from flowerpress.compressors.kernels.packing import U8, U32
from flowerpress.compressors.kernels.rounding import SCALED_UP, TINY_NORM, fixed_digits
from flowerpress.compressors.kernels.sums import F64, Offsets
from flowerpress.compressors.kernels.torch.sums import block_sums, quick_norms, scaled_blocks
from flowerpress.compressors.kernels.torch.words import (
    magnitude_bits,
    packed,
    pieces,
    rounding_words,
    shifted,
    spread,
    unsigned,
)

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.floating[Any]]

__all__ = [
    "block_sums",
    "levels_pack",
    "nonfinite_position",
    "norm_levels_pack",
    "scaled_blocks",
    "sign_pack",
    "sign_pack_with_sums",
    "top_ids",
]


def nonfinite_position(x: DeviceVector) -> int:
    """Return the position of the first NaN or infinity, or -1."""
    import torch

    for start, stop in pieces(x.size):
        wrong = ~torch.isfinite(x.tensor[start:stop])
        if wrong.any():
            return start + int(torch.nonzero(wrong)[0])
    return -1


def top_ids(x: DeviceVector, k: int) -> U32:
    """Return the places of the k largest ``|x|``, ascending; ties go to the lowest place."""
    import torch

    if k >= x.size:
        return np.arange(x.size, dtype=np.uint32)
    # |x| as integers: the order of non-negative floats is that of their bits.
    keys = magnitude_bits(x.tensor)
    threshold = torch.topk(keys, k, sorted=False).values.min()
    kept = keys > threshold
    equal = torch.nonzero(keys == threshold)[: k - int(kept.sum())]
    kept[equal] = True
    ids: U32 = to_host(torch.nonzero(kept)[:, 0].to(torch.int32)).view(np.uint32)
    return ids


def sign_pack(x: DeviceVector) -> U8:
    """Pack one bit for each coordinate: 1 where ``x >= 0``."""
    import torch

    def codes(start: int, stop: int) -> Tensor:
        return (x.tensor[start:stop] >= 0).to(torch.int32)

    return packed(x.size, 1, x.tensor.device, codes)


def sign_pack_with_sums(x: DeviceVector, offsets: Offsets, square: bool) -> tuple[F64, U8]:
    """Return the block sums and the packed signs."""
    return block_sums(x, offsets, square), sign_pack(x)


def levels_pack(
    x: DeviceVector, norms: Floats, offsets: Offsets, levels: int, width: int, key: tuple[int, int]
) -> U8:
    """Round each coordinate to a level of its block's norm and pack the codes."""
    rounding = _Rounding32 if x.dtype == np.float32 else _Rounding64
    return packed(x.size, width, x.tensor.device, rounding(x, norms, offsets, levels, key))


def norm_levels_pack(
    x: DeviceVector, bucket: int, levels: int, width: int, key: tuple[int, int]
) -> tuple[Floats, U8]:
    """Return the float32 norm of each bucket, whose size divides 1024, and the packed codes."""
    offsets = np.append(np.arange(0, x.size, bucket, dtype=np.int64), x.size)
    norms = quick_norms(x, offsets)
    if not np.isfinite(norms).all():
        return norms, np.empty(0, dtype=np.uint8)
    return norms, levels_pack(x, norms, offsets, levels, width, key)


class Scale32:
    """Products of float32 coordinates and ``reach / size`` of their block, without overflow.

    The factors come from the host: one division for each block, and none for a size of zero.
    """

    def __init__(
        self, x: DeviceVector, sizes: Floats, offsets: Offsets, reach: int, tiny: float
    ) -> None:
        small = sizes < np.float32(tiny)
        lift = np.where(small, np.float32(SCALED_UP), np.float32(1))
        factor = np.zeros_like(sizes)
        np.divide(np.float32(reach), sizes * lift, out=factor, where=sizes > 0)
        self.x, self.offsets, self.reach = x.tensor, offsets, float(np.float32(reach))
        self.lift = to_device(lift, self.x.device) if small.any() else None
        self.factor = to_device(factor, self.x.device)

    def __call__(self, start: int, stop: int) -> Tensor:
        """Return the products, cut to integers between minus and plus `reach`."""
        import torch

        part = self.x[start:stop]
        if self.lift is not None:
            part = part * spread(self.lift, self.offsets, start, stop)
        part = part * spread(self.factor, self.offsets, start, stop)
        return part.clamp(-self.reach, self.reach).to(torch.int32)


class _Rounding32:
    """Codes of float32 coordinates; see `kernels.rounding`."""

    def __init__(
        self, x: DeviceVector, norms: Floats, offsets: Offsets, levels: int, key: tuple[int, int]
    ) -> None:
        self.digits = fixed_digits(levels)
        self.middle, self.key = levels << self.digits, key
        self.scale = Scale32(x, norms, offsets, self.middle, TINY_NORM)

    def __call__(self, start: int, stop: int) -> Tensor:
        fixed = self.scale(start, stop)
        word = rounding_words(self.key, start, stop, fixed.device)
        return shifted(fixed + self.middle + shifted(word, 32 - self.digits), self.digits)


class _Rounding64:
    """Codes of float64 coordinates."""

    def __init__(
        self, x: DeviceVector, norms: Floats, offsets: Offsets, levels: int, key: tuple[int, int]
    ) -> None:
        self.x, self.offsets, self.levels, self.key = x.tensor, offsets, levels, key
        self.norms = to_device(norms, self.x.device)

    def __call__(self, start: int, stop: int) -> Tensor:
        import torch

        part, norm = self.x[start:stop], spread(self.norms, self.offsets, start, stop)
        share = torch.where(norm > 0, part.abs() / norm, 0.0)
        scaled = (share * self.levels).clamp(max=float(self.levels))
        level = scaled.floor()
        word = unsigned(rounding_words(self.key, start, stop, part.device))
        dither = (word * 2 + 1).to(torch.float64) * 2.0**-33
        level = level + (dither < scaled - level).to(torch.float64)
        signed = torch.where(part < 0, -level, level)
        return (signed + self.levels).to(torch.int32)
