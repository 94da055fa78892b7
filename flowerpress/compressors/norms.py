"""How large a packet's vector is, found without making it where the packet is short."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial, singledispatch
from typing import Any

import numpy as np

from flowerpress.compressors.base import Decoded, Vector
from flowerpress.compressors.composed.blocked import Blocks
from flowerpress.compressors.composed.chain import Expanded
from flowerpress.compressors.composed.induced import Sum
from flowerpress.compressors.composed.scaled import Shrunk
from flowerpress.compressors.identity import Dense
from flowerpress.compressors.kernels import kernels
from flowerpress.compressors.kernels.arithmetic import by_default_rules
from flowerpress.compressors.kernels.packing import pieces
from flowerpress.compressors.kernels.paging import LARGE, sweep
from flowerpress.compressors.kernels.sums import CHUNK, F64, Offsets
from flowerpress.compressors.linear.countsketch import Table
from flowerpress.compressors.linear.powersgd import Tensors
from flowerpress.compressors.quantized.qsgd import Levels
from flowerpress.compressors.quantized.sign import Signs
from flowerpress.compressors.wire import budget, reading
from flowerpress.compressors.wire.packet import Buffer, Packet, PacketError
from flowerpress.compressors.wire.payload import Sparse
from flowerpress.compressors.wire.reading import Divisible, Opened

_SMALLEST = 2.0**-900  # of sums of squares: none of what counts in them underflowed
_PIECE = 1 << 19  # numbers that are decoded at a time, where all are: 2 or 4 MiB
_SHORT = 32  # coordinates of a bucket, on average, from which the sums in the kernel pay
# Products are measured, not made, where a matrix has at most so many ranks, so many coordinates on
# average, and so many for each number that is sent of it: else making them takes less.
_MANY, _LARGE, _THIN = 64, 1 << 15, 8


@by_default_rules
def norm(
    packet: Packet | Buffer | Opened, *, max_dim: int = 1 << 28, glance: bool = False
) -> float:
    """Return the l2 norm of the vector that a packet holds.

    The work is O(bytes of the packet). Quantized packets are decoded for it, half a million numbers
    at a time; of all others the numbers they are made of are summed. So the memory is a few MiB.
    What a compressor of another package decodes to takes a vector, unless it has `part`
    (`flowerpress.compressors.wire.reading.Divisible`).

    Parameters
    ----------
    packet : Packet, Opened or bytes
        The packet, or the bytes of its frame.
    max_dim : int, default 2**28
        The longest vector to measure: some packets of a few bytes must be decoded for it.
    glance : bool, default False
        Leave unread what the norm is not of, as the places of `topk`: whether they are right is
        not known then.

    Returns
    -------
    float
        Exact up to rounding, with two exceptions. ``induced``: the sum of both norms, which is an
        upper bound. ``countsketch``: the norm of the cells over the root of the rows, which is the
        root mean square of what the rows say of the vector's norm; the estimates that `decompress`
        gives are noisier and longer. Infinite where it overflows float64.

    Raises
    ------
    PacketError
        The packet is damaged, its dim is above `max_dim`, or it costs more than an honest one may
        (see `flowerpress.compressors.wire.budget`).

    Examples
    --------
    >>> from flowerpress.compressors import make_compressor, norm
    >>> x = np.array([3.0, -4.0, 0.0, 1.0], dtype=np.float32)
    >>> norm(make_compressor("topk:k=2").compress(x)), norm(make_compressor("sign").compress(x))
    (5.0, 4.0)
    """
    packet, decoded, left = reading.parse(packet)
    if packet.dim > max_dim:
        raise PacketError(
            f"frame: dim is {packet.dim}, above max_dim={max_dim}; pass a larger max_dim"
        )
    with left:
        return _norm(decoded or reading.decode(packet, glance=glance), packet.dim, packet.dtype)


def square_sum(x: Vector) -> float:
    """Return |x|^2 of float32 or float64 numbers, summed in float64 and in one fixed order.

    ``x @ x`` differs in its last bits from one BLAS to the next. What is sent, or decides what is
    sent, must not: the same run would send other bytes elsewhere.

    Examples
    --------
    >>> square_sum(np.array([3.0, -4.0], dtype=np.float32))
    25.0
    """
    return float(kernels().block_sums(x, np.array([0, x.size]), True)[0])


@singledispatch
def _norm(decoded: Decoded, dim: int, dtype: np.dtype[Any]) -> float:
    """Return the norm of what a payload decodes to, `dim` numbers; here by decoding it."""
    if not isinstance(decoded, Divisible):
        return _norm_by_decoding(decoded, dim, dtype)
    return _length(partial(_in_pieces, decoded, dim, dtype))


def _in_pieces(decoded: Divisible, dim: int, dtype: np.dtype[Any]) -> Iterator[Vector]:
    """Yield the numbers of a vector, so many at a time; each piece takes the place of the last."""
    room: Vector = np.empty(min(dim, _PIECE), dtype)
    for start in range(0, dim, _PIECE):
        piece = room[: min(_PIECE, dim - start)]
        piece.fill(0)
        decoded.part(start, start + piece.size).add_to(piece, 1.0)
        yield piece


def _norm_by_decoding(decoded: Decoded, dim: int, dtype: np.dtype[Any]) -> float:
    out: Vector = np.zeros(dim, dtype)
    decoded.add_to(out, 1.0)
    return _length_of(out)


@_norm.register
def _(decoded: Levels, dim: int, dtype: np.dtype[Any]) -> float:
    if dim < _SHORT * decoded.blocks.count:
        return _length(partial(_in_pieces, decoded, dim, dtype))
    return _length(partial(_in_pieces, decoded, dim, dtype), _total(decoded.squares()))


@_norm.register(Dense)
@_norm.register(Sparse)
def _(decoded: Dense | Sparse, dim: int, dtype: np.dtype[Any]) -> float:
    del dim, dtype
    return _length_of(decoded.values)


@_norm.register
def _(decoded: Signs, dim: int, dtype: np.dtype[Any]) -> float:
    del dim, dtype
    largest = float(decoded.scales.max())
    if largest == 0.0:
        return 0.0
    square = 0.0
    for _, _, first, last, offsets in decoded.blocks.segments():
        for start, stop in pieces(last - first):
            shares = decoded.scales[first + start : first + stop].astype(np.float64) / largest
            square += float(np.sum(np.square(shares) * np.diff(offsets[start : stop + 1])))
    return largest * math.sqrt(square)


@_norm.register
def _(decoded: Expanded, dim: int, dtype: np.dtype[Any]) -> float:
    del dim  # the front puts values at distinct places, or rotates them: their norm is the same
    return _norm(decoded.inner, decoded.expander.size, dtype)


@_norm.register
def _(decoded: Blocks, dim: int, dtype: np.dtype[Any]) -> float:
    del dim
    return math.hypot(*(_norm(part, place.stop - place.start, dtype) for place, part in decoded))


@_norm.register
def _(decoded: Shrunk, dim: int, dtype: np.dtype[Any]) -> float:
    return decoded.factor * _norm(decoded.inner, dim, dtype)


@_norm.register
def _(decoded: Sum, dim: int, dtype: np.dtype[Any]) -> float:
    total = 0.0
    for packet in (decoded.first, decoded.second):
        with budget.at(decoded.level), budget.released():
            total += _norm(reading.decode(packet), dim, dtype)
    return total


@_norm.register
def _(decoded: Table, dim: int, dtype: np.dtype[Any]) -> float:
    del dim, dtype
    return _length_of(decoded.cells) / math.sqrt(decoded.rows)


@_norm.register
def _(decoded: Tensors, dim: int, dtype: np.dtype[Any]) -> float:
    large = dim >= max(_LARGE * decoded.ranks.size, _THIN * decoded.values.size)
    if large and decoded.ranks.max() <= _MANY:
        return math.hypot(*(_product(*part) for part in decoded.parts()))
    return math.hypot(*(_of_matrices(group, dtype) for group in decoded.groups(_PIECE)))


def _of_matrices(group: Tensors, dtype: np.dtype[Any]) -> float:
    """Return the norm of a few matrices, or of a large one, without memory of its size."""
    if group.dim <= _PIECE:
        return _norm_by_decoding(group, group.dim, dtype)
    rank = int(group.ranks[0])
    if not rank:
        return _length_of(group.values)
    if rank <= _MANY:
        return _product(*next(group.parts()))
    bands = group.bands(_PIECE)
    return math.hypot(*(_norm_by_decoding(band, band.dim, dtype) for band in bands))


def _product(left: Vector, right: Vector) -> float:
    """|L'R|^2 is the sum of (L L') * (R R'), of which both are rank by rank."""
    left, right = (factor.astype(np.float64) for factor in (left, right))
    a, b = (float(np.abs(factor).max(initial=0.0)) or 1.0 for factor in (left, right))
    left, right = left / a, right / b
    square = float(np.sum((left @ left.T) * (right @ right.T)))
    return a * b * math.sqrt(square) if square > 0 else 0.0


def _length_of(values: Vector) -> float:
    """Return the l2 norm of an array."""
    if values.nbytes >= LARGE:
        return _length(lambda: (values[start:stop] for start, stop in sweep(values)))
    square = _sum_of_squares(values)
    if _SMALLEST < square < math.inf:
        return math.sqrt(square)
    return _length(lambda: [values], square)


def _length(values: Callable[[], Iterable[Vector]], square: float | None = None) -> float:
    """Return the l2 norm of a vector that comes in pieces, each of whole times 65536 numbers.

    The squares are in float64, their sum in the order of `kernels.sums`, unless they leave its
    range. `square` is their sum, where it is known.
    """
    if square is None:
        square = _total(kernels().block_sums(x, _chunks(x.size), True) for x in values())
    if _SMALLEST < square < math.inf:
        return math.sqrt(square)
    largest = max(float(max(x.max(initial=0.0), -x.min(initial=0.0))) for x in values())
    if largest == 0.0:
        return 0.0
    return largest * math.sqrt(
        sum(_sum_of_squares(x[a:b] / largest) for x in values() for a, b in pieces(x.size))
    )


def _total(sums: Iterable[F64]) -> float:
    """Return the sum of numbers that come in pieces, one added after the other."""
    total = np.zeros(1)
    for some in sums:
        total = np.add.accumulate(np.concatenate([total, some]))[-1:]
    return float(total[0])


def _chunks(count: int) -> Offsets:
    """Return the edges of the chunks whose sums are added in order."""
    return np.append(np.arange(0, count, CHUNK, dtype=np.int64), count)


def _sum_of_squares(values: Vector) -> float:
    """Return the sum in float64, by one thread: a BLAS may use several, for one packet of many."""
    if not values.size:
        return 0.0
    return float(kernels().block_sums(values, np.array([0, values.size]), True)[0])
