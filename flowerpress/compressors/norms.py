"""How large a packet's vector is, found without making it where the packet is short."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import numpy as np

from flowerpress.compressors.base import Decoded, Vector
from flowerpress.compressors.chain import Expanded
from flowerpress.compressors.countsketch import Table
from flowerpress.compressors.identity import Dense
from flowerpress.compressors.induced import Sum
from flowerpress.compressors.kernels.subnormals import keeps_subnormals
from flowerpress.compressors.packet import Buffer, Packet
from flowerpress.compressors.payload import Sparse
from flowerpress.compressors.powersgd import Product, Tensors
from flowerpress.compressors.registry import codec
from flowerpress.compressors.scaled import Shrunk
from flowerpress.compressors.sign import Signs


@keeps_subnormals
def norm(packet: Packet | Buffer) -> float:
    """Return the l2 norm of the vector that a packet holds.

    The work is O(bytes of the packet), the memory too: quantized packets, which are about as long
    as their vector, are decoded for it; of all others the numbers they are made of are summed.

    Parameters
    ----------
    packet : Packet or bytes
        The packet or the bytes of its frame. Check its dim first: a damaged one may claim any.

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
        The packet is damaged.

    Examples
    --------
    >>> from flowerpress.compressors import make_compressor, norm
    >>> x = np.array([3.0, -4.0, 0.0, 1.0], dtype=np.float32)
    >>> norm(make_compressor("topk:k=2").compress(x)), norm(make_compressor("sign").compress(x))
    (5.0, 4.0)
    """
    packet = Packet.parse(packet)
    decoded = codec(packet.header.codec).decode(packet)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return _norm(decoded, packet.dim, packet.dtype)


@singledispatch
def _norm(decoded: Decoded, dim: int, dtype: np.dtype[Any]) -> float:
    """Return the norm of what a payload decodes to, `dim` numbers; here by decoding it."""
    out: Vector = np.zeros(dim, dtype)
    decoded.add_to(out, 1.0)
    return _length(out)


@_norm.register(Dense)
@_norm.register(Sparse)
def _(decoded: Dense | Sparse, dim: int, dtype: np.dtype[Any]) -> float:
    del dim, dtype
    return _length(decoded.values)


@_norm.register
def _(decoded: Signs, dim: int, dtype: np.dtype[Any]) -> float:
    del dim, dtype
    return _length(decoded.scales * np.sqrt(np.diff(decoded.offsets)))


@_norm.register
def _(decoded: Expanded, dim: int, dtype: np.dtype[Any]) -> float:
    del dim  # the front puts values at distinct places, or rotates them: their norm is the same
    return _norm(decoded.inner, decoded.expander.size, dtype)


@_norm.register
def _(decoded: Shrunk, dim: int, dtype: np.dtype[Any]) -> float:
    return decoded.factor * _norm(decoded.inner, dim, dtype)


@_norm.register
def _(decoded: Sum, dim: int, dtype: np.dtype[Any]) -> float:
    return _norm(decoded.first, dim, dtype) + _norm(decoded.second, dim, dtype)


@_norm.register
def _(decoded: Table, dim: int, dtype: np.dtype[Any]) -> float:
    del dim, dtype
    return _length(decoded.cells) / math.sqrt(decoded.rows)


@_norm.register
def _(decoded: Product, dim: int, dtype: np.dtype[Any]) -> float:
    """|L'R|^2 is the sum of (L L') * (R R'), of which both are rank by rank."""
    del dim, dtype
    left, right = (factor.astype(np.float64) for factor in (decoded.left, decoded.right))
    a, b = (float(np.abs(factor).max(initial=0.0)) or 1.0 for factor in (left, right))
    left, right = left / a, right / b
    square = float(np.sum((left @ left.T) * (right @ right.T)))
    return a * b * math.sqrt(max(square, 0.0))


@_norm.register
def _(decoded: Tensors, dim: int, dtype: np.dtype[Any]) -> float:
    del dim
    return math.hypot(*(_norm(part, stop - start, dtype) for start, stop, part in decoded.parts))


def _length(values: Vector) -> float:
    """Return the l2 norm of an array, in its own dtype unless the squares leave its range."""
    square, limits = float(np.dot(values, values)), np.finfo(values.dtype)
    if float(limits.tiny / limits.eps) < square < math.inf:
        return math.sqrt(square)
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    return largest * float(np.linalg.norm(values.astype(np.float64) / largest))
