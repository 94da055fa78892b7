"""Sums in the order of `kernels.sums`, and maxima of blocks, by torch operations.

Each product and each sum is an operation of its own, so that none is fused: a fused one rounds once
where that order rounds twice. Lanes are added on the device; the chunks' sums, 8 bytes for 1024
coordinates, are added on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.device import DeviceVector, to_device, to_host
from flowerpress.compressors.kernels.sums import CHUNK, F64, LANES, SMALLEST_SQUARE, Offsets
from flowerpress.compressors.kernels.torch import words

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.floating[Any]]


def _equal_rows(x: DeviceVector, offsets: Offsets) -> Iterator[tuple[int, int, Tensor]]:
    """Cut `x` into matrices whose rows are neighbouring blocks of one size.

    Yields the first block, the one after the last, and the matrix, which has at most
    `words.PIECE` numbers if it has more than one row.
    """
    sizes = np.diff(offsets)
    edges = [0, *(np.flatnonzero(np.diff(sizes)) + 1).tolist(), sizes.size]
    for run, end in pairwise(edges):
        size = int(sizes[run])
        step = max(1, words.PIECE // size)
        for first in range(run, end, step):
            last = min(first + step, end)
            part = x.tensor[int(offsets[first]) : int(offsets[last])]
            yield first, last, part.reshape(last - first, size)


def block_maxima(x: DeviceVector, offsets: Offsets) -> Floats:
    """Return the largest magnitude of each block; not finite where the block is not."""
    import torch

    maxima = np.empty(offsets.size - 1, dtype=x.dtype)
    for first, last, rows in _equal_rows(x, offsets):
        low, high = torch.aminmax(rows, dim=1)
        maxima[first:last] = to_host(torch.maximum(-low, high))
    return np.abs(maxima)  # of a block of zeros, the larger of both may be a negative zero


def block_sums(x: DeviceVector, offsets: Offsets, square: bool) -> F64:
    """Return the sum of magnitudes or of squares over each block."""
    sums = np.empty(offsets.size - 1, dtype=np.float64)
    for first, last, rows in _equal_rows(x, offsets):
        # accumulate, unlike sum, adds strictly in order.
        sums[first:last] = np.add.accumulate(_chunk_sums(rows, square), axis=1)[:, -1]
    return sums


def quick_norms(x: DeviceVector, offsets: Offsets) -> npt.NDArray[np.float32]:
    """Return the norms of blocks of at most 1024 float32 numbers; see `sums.quick_norms`."""
    norms = np.empty(offsets.size - 1, dtype=np.float32)
    for first, last, rows in _equal_rows(x, offsets):
        squares = to_host(row_sums(rows, True, rows.dtype))
        part = np.sqrt(squares)
        odd = np.flatnonzero(~((squares >= SMALLEST_SQUARE) & (squares < np.inf)))
        if odd.size:
            exact = row_sums(rows[to_device(odd, rows.device)], True)
            with np.errstate(over="ignore"):
                part[odd] = np.sqrt(to_host(exact))
        norms[first:last] = part
    return norms


def _chunk_sums(rows: Tensor, square: bool) -> F64:
    """Return, for each row, the sums of its chunks."""
    count, size = rows.shape
    whole = size // CHUNK * CHUNK
    parts = []
    if whole:
        chunks = rows[:, :whole].reshape(-1, CHUNK)
        step = words.PIECE // CHUNK
        sums = [row_sums(chunks[at : at + step], square) for at in range(0, len(chunks), step)]
        parts.append(np.concatenate([to_host(each) for each in sums]).reshape(count, -1))
    if whole < size:
        parts.append(to_host(row_sums(rows[:, whole:], square))[:, None])
    return np.concatenate(parts, axis=1)


def row_sums(rows: Tensor, square: bool, dtype: Any = None) -> Tensor:
    """Return the sum of each row of at most 1024 numbers, added in `dtype`, default float64."""
    import torch

    count, size = rows.shape
    height = -(-size // LANES)
    padded = torch.nn.functional.pad(rows.to(dtype or torch.float64), (0, height * LANES - size))
    terms = (padded * padded if square else padded.abs()).reshape(count, height, LANES)
    lanes = terms[:, 0]
    for row in range(1, height):
        lanes = lanes + terms[:, row]
    half = LANES // 2
    while half:
        lanes = lanes[:, :half] + lanes[:, half:]
        half //= 2
    return lanes[:, 0]


def scaled_blocks(x: DeviceVector, exponents: npt.NDArray[Any], offsets: Offsets) -> DeviceVector:
    """Return float64 `x` times ``2**exponents[b]`` for each block b, rounded once."""
    import torch

    # One factor is a normal number, the other the rest, which comes first. A number that the first
    # factor makes subnormal, and so rounds, is made zero by the second.
    main = np.clip(exponents, -1022, 1023)
    first = to_device(np.ldexp(1.0, exponents - main), x.tensor.device)
    second = to_device(np.ldexp(1.0, main), x.tensor.device)
    scaled = torch.empty_like(x.tensor)
    for start, stop in words.pieces(x.size):
        part = x.tensor[start:stop] * words.spread(first, offsets, start, stop)
        scaled[start:stop] = part * words.spread(second, offsets, start, stop)
    return DeviceVector(scaled, x.dtype)
