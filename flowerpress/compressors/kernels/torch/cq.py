"""Correlated rounding by torch operations; `kernels.numpy.cq` says what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.device import DeviceVector, to_device, to_host
from flowerpress.compressors.kernels.numpy.cq import Keys, fixed_digits, group_blocks, orders
from flowerpress.compressors.kernels.packing import BLOCK, U8, U32
from flowerpress.compressors.kernels.torch.words import packed, pieces, rounding_words, unsigned

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.floating[Any]]
I64 = npt.NDArray[np.int64]


def beyond(x: DeviceVector, reaches: Floats) -> U32:
    """Return the places of the coordinates whose magnitude is above their block's reach."""
    import torch

    device = x.tensor.device
    parts = [np.zeros(0, dtype=np.uint32)]
    for start, stop in pieces(x.size):
        reach = _spread(to_device(reaches, device), start, stop)
        found = torch.nonzero(x.tensor[start:stop].abs() > reach)[:, 0] + start
        parts.append(to_host(found).astype(np.uint32))
    return np.concatenate(parts)


def correlated_pack(
    x: DeviceVector,
    reaches: Floats,
    scale: Any,
    offsets: I64,
    top: int,
    width: int,
    cohort: int,
    rank: int,
    keys: Keys,
) -> U8:
    """Round each coordinate to a code from 0 to `top` with the cohort's shared order, and pack."""
    import torch

    device, digits = x.tensor.device, fixed_digits(top)
    order = orders(x.size, cohort, rank, keys.order)
    block_order = np.repeat(order, group_blocks(cohort))[: reaches.size]
    ranges, shifts, ranks = (to_device(v, device) for v in (reaches, offsets, block_order))
    factor = torch.full((1,), float(scale), dtype=x.tensor.dtype, device=device)

    def codes(start: int, stop: int) -> Tensor:
        word = unsigned(rounding_words(keys.shift, start, stop, device))
        place = (((word * cohort) >> 32) + _spread(ranks, start, stop)) % cohort
        own = unsigned(rounding_words(keys.own, start, stop, device))
        share = (x.tensor[start:stop] / _spread(ranges, start, stop)).clamp(-1, 1)
        fixed = (share * factor).to(torch.int64) + _spread(shifts, start, stop)
        fixed = fixed.clamp(0, top << digits)
        rest = ((fixed & ((1 << digits) - 1)) * cohort) << (32 - digits)
        return ((fixed >> digits) + ((place << 32) + own < rest)).to(torch.int32)

    return packed(x.size, width, device, codes)


def _spread(values: Tensor, start: int, stop: int) -> Tensor:
    """Return, for each coordinate from `start`, a multiple of 1024, the value of its block."""
    first, last = start // BLOCK, -(-stop // BLOCK)
    return values[first:last].repeat_interleave(BLOCK)[: stop - start]
