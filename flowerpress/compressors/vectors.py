"""Arithmetic on vectors that are arrays, or tensors on a device: the same numbers, to the bit.

A worker whose model is on a GPU keeps its vectors there (`flowerpress.worker.worker`). What it does
with them is here once for each kind of vector, in the same IEEE operations and the same order.
Torch's operations of several steps (``addcmul``, ``lerp``, ``alpha=``) are not used: on some
devices they round once where numpy rounds twice. Nothing here imports torch for arrays.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.device import to_device, to_host

AnyVector: TypeAlias = Any
"""An array, or a torch tensor, of float32 or float64, shape (dim,)."""

_BLOCK = 1 << 18  # numbers of an array that are worked on at once: temporaries stay in the cache
_PART = 1 << 22  # numbers of a tensor


def is_tensor(vector: AnyVector) -> bool:
    """Whether a vector is a tensor."""
    return not isinstance(vector, np.ndarray)


def dtype_of(vector: AnyVector) -> np.dtype[Any]:
    """Return the dtype, that of the array where it is a tensor."""
    if is_tensor(vector):
        return np.dtype(str(vector.dtype).removeprefix("torch."))
    found: np.dtype[Any] = vector.dtype
    return found


def placed(vector: AnyVector, device: Any) -> AnyVector:
    """Return a vector on a device, or where that is None as an array; itself if it is there."""
    if isinstance(vector, np.ndarray):
        return vector if device is None else to_device(vector, device)
    return to_host(vector) if device is None else vector.to(device)


def copied(vector: AnyVector, out: AnyVector | None = None) -> AnyVector:
    """Return a copy, in `out` where there is one."""
    if out is None:
        return vector.clone() if is_tensor(vector) else vector.copy()
    out[:] = vector
    return out


def add(a: AnyVector, b: AnyVector, out: AnyVector | None = None) -> AnyVector:
    """Return a + b, in `out` where there is one."""
    return sys.modules["torch"].add(a, b, out=out) if is_tensor(a) else np.add(a, b, out=out)


def subtract(a: AnyVector, b: AnyVector, out: AnyVector | None = None) -> AnyVector:
    """Return a - b, in `out` where there is one."""
    if isinstance(a, np.ndarray):
        return np.subtract(a, b, out=out)
    return sys.modules["torch"].subtract(a, b, out=out)


def multiply(a: AnyVector, number: float, out: AnyVector | None = None) -> AnyVector:
    """Return number * a, the number rounded to the dtype of `a`."""
    factor = dtype_of(a).type(number)
    if is_tensor(a):
        return sys.modules["torch"].mul(a, float(factor), out=out)
    return np.multiply(a, factor, out=out)


def descend(x: AnyVector, rate: float, g: AnyVector) -> None:
    """Do x -= rate * g, the rate rounded to the dtype of `g`, without a vector of their length.

    Examples
    --------
    >>> x = np.array([1.0, 2.0])
    >>> descend(x, 0.5, np.array([2.0, 0.0]))
    >>> x
    array([0., 2.])
    """
    for part in pieces(x):
        x[part] -= multiply(g[part], rate)


def divide(a: AnyVector, number: float) -> AnyVector:
    """Return a / number, the number rounded to the dtype of `a`."""
    if is_tensor(a):  # by a tensor: a number's reciprocal would be multiplied by, on CUDA
        return a / a.new_full((1,), float(dtype_of(a).type(number)))
    return a / a.dtype.type(number)


def mix(alpha: Any, a: AnyVector, beta: Any, b: AnyVector, out: AnyVector) -> None:
    """Put alpha * a + beta * b into `out`, which may be `a` or `b`.

    Parameters
    ----------
    alpha, beta : numpy scalars
        Of the vectors' dtype.

    Examples
    --------
    >>> half = np.float64(0.5)
    >>> x = np.array([2.0, 4.0])
    >>> mix(half, x, half, np.array([0.0, 2.0]), out=x)
    >>> x
    array([1., 3.])
    """
    if is_tensor(out):
        for part in parts(len(out)):
            first = a[part] * float(alpha)
            out[part] = first.add_(b[part] * float(beta))
        return
    for part in pieces(out):
        out[part] = alpha * a[part] + beta * b[part]


def share_memory(a: AnyVector, b: AnyVector) -> bool:
    """Whether two vectors may lie in the same memory; an array and a tensor never do."""
    if is_tensor(a) != is_tensor(b):
        return False  # `placed` copies
    if is_tensor(a):
        same: bool = a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
        return same
    return bool(np.may_share_memory(a, b))


def pieces(vector: AnyVector) -> Iterable[slice]:
    """Return the slices of an array or a tensor that are worked on one after the other."""
    if is_tensor(vector):
        return parts(len(vector))
    return blocks(vector.size)


def blocks(size: int) -> Iterable[slice]:
    """Return the slices of an array that are worked on one after the other.

    >>> list(blocks(3))
    [slice(0, 3, None)]
    """
    if size <= _BLOCK:
        return (slice(0, size),) if size else ()
    return (slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK))


def parts(size: int) -> Iterable[slice]:
    """Return the slices of a tensor that are worked on one after the other."""
    return (slice(start, min(start + _PART, size)) for start in range(0, size, _PART))


def length_of(tensor: Any) -> float:
    """Return a tensor's l2 norm, summed in float64; not finite where a number is not.

    The sum's order is the device's: the last bits are not those of an array's norm.
    """
    square = _square_sum(tensor, 1.0)
    if math.isfinite(square):
        return math.sqrt(square)
    largest = float(tensor.abs().max())
    if not math.isfinite(largest):
        return largest
    return min(largest * math.sqrt(_square_sum(tensor, largest)), sys.float_info.max)


def _square_sum(tensor: Any, unit: float) -> float:
    square = 0.0
    for part in parts(len(tensor)):
        piece = tensor[part].double() / unit
        square += float((piece * piece).sum())
    return square


def add_terms(out: Any, ids: npt.NDArray[np.uint32], terms: npt.NDArray[Any]) -> None:
    """Do ``out[ids] += terms`` on a tensor; no place comes twice. 8 or 12 bytes a number cross."""
    places = to_device(ids.view(np.int32), out.device).long()
    if len(out) > 2**31:
        places &= 2**32 - 1
    # Not by index_add_, whose atomic additions on CUDA take subnormal numbers for zeros.
    out[places] = out[places] + to_device(terms, out.device)


def add_array(out: Any, terms: npt.NDArray[Any]) -> None:
    """Do ``out += terms`` on a tensor, in pieces."""
    for part in parts(len(out)):
        out[part] += to_device(terms[part], out.device)
