"""What may be compressed, and what is said of anything else."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels import kernels_of, twin
from flowerpress.compressors.kernels.device import device_vector, on_device, stays_on_device
from flowerpress.compressors.wire.packet import MAX_DIM

Vector: TypeAlias = npt.NDArray[np.floating[Any]]
"""A 1-D array of float32 or float64."""

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class Tensor(Protocol):
    """The part of a torch tensor that is used to view it as an array."""

    def detach(self) -> Tensor: ...

    def cpu(self) -> Tensor: ...

    def numpy(self) -> Vector: ...


class TooLargeError(ValueError):
    """A number that must be sent does not fit the dtype; `args` has what it is."""


def as_vector(x: Vector | Tensor, keep: bool = False) -> Vector:
    """Return `x` as a contiguous, writeable 1-D array; see `Compressor.compress`.

    With `keep`, a tensor that can be compressed where it is stays there.
    """
    if type(x) is np.ndarray and x.dtype in _DTYPES and x.ndim == 1 and 1 <= x.size <= MAX_DIM:
        flags = x.flags
        if flags.c_contiguous and flags.writeable and flags.aligned:
            return x
    if on_device(x):  # on its way to a compressor inside another
        return cast(Vector, x)
    if keep and stays_on_device(x):
        return _require_vector(cast(Vector, device_vector(x)))
    array = _require_vector(_own_order(_to_array(x)))
    # Kernels are compiled for arrays that may be written to; others are copied, and so is what
    # lies at odd addresses. No subclass of an array comes through.
    return np.require(array, requirements=["C", "A", "W", "E"])


def _require_vector(array: Vector) -> Vector:
    if array.dtype not in _DTYPES:
        raise ValueError(_wrong_dtype(array.dtype, "x.astype('float32')"))
    if array.ndim != 1:
        raise ValueError(
            f"compress: a vector has one dimension, got shape {array.shape}: "
            "flatten it first, as in x.reshape(-1)"
        )
    if not 1 <= array.size <= MAX_DIM:
        raise ValueError(f"compress: length must be in [1, 2**32), got {array.size}")
    return array


def _wrong_dtype(dtype: object, remedy: str) -> str:
    return (
        f"compress: dtype must be float32 or float64, got {dtype}: convert it first, as in {remedy}"
    )


def _own_order(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array of the other byte order in this machine's."""
    own = array.dtype.newbyteorder("=")
    return array.astype(own) if own != array.dtype and own in _DTYPES else array


def _to_array(x: Any) -> npt.NDArray[Any]:
    if isinstance(x, np.ma.MaskedArray):
        if np.ma.is_masked(x):
            raise ValueError(
                f"compress: of a masked array {int(np.ma.getmaskarray(x).sum())} numbers are "
                "masked: say what they are, as in x.filled(0)"
            )
        return np.asarray(x.data)
    if isinstance(x, np.ndarray):
        return x
    # By its methods and not by its type, so that torch is not imported here.
    if not all(hasattr(x, name) for name in ("detach", "cpu", "numpy")):
        raise ValueError(
            f"compress: expected a numpy array or a torch tensor, got {type(x).__name__}"
        )
    return _from_tensor(x)


def _from_tensor(x: Any) -> npt.NDArray[Any]:
    """Return a tensor as an array, a view where that is possible."""
    layout, dtype = str(getattr(x, "layout", "torch.strided")), str(getattr(x, "dtype", ""))
    if layout != "torch.strided":
        raise ValueError(
            f"compress: a tensor of layout {layout} is no plain vector: x.to_dense() is one"
        )
    if getattr(x, "is_meta", False):
        raise ValueError("compress: a tensor on the device 'meta' has no numbers")
    if dtype.startswith("torch.") and dtype not in ("torch.float32", "torch.float64"):
        raise ValueError(_wrong_dtype(dtype, "x.float()"))
    try:
        if (
            hasattr(x, "is_neg") and x.is_neg()
        ):  # a view of which torch remembers that its numbers are the negatives
            x = x.resolve_neg()
        return np.asarray(x.detach().cpu().numpy())
    except Exception as error:  # torch's wrappers of tensors raise what they like
        why = str(error).partition("\n")[0]
        raise ValueError(f"compress: this tensor cannot be read as an array: {why}") from error


def refuse_nonfinite(x: Vector) -> None:
    """Raise ValueError that names the first NaN or infinity of `x`, if there is one."""
    position = kernels_of(x).nonfinite_position(x)
    if position >= 0:
        raise ValueError(f"compress: x[{position}] is {x[position]}; nothing was sent")


def largest(x: Vector) -> float:
    """Return the largest magnitude; ValueError that names the first NaN or infinity."""
    found: float = twin("natural", x).largest_magnitude(x)
    if not np.isfinite(found):
        refuse_nonfinite(x)
    return found


def too_large(what: object, x: Vector) -> ValueError:
    """Return the error that names the largest number of `x`, of which `what` overflows."""
    place = int(kernels_of(x).top_ids(x, 1)[0])
    return ValueError(
        f"compress: {what} overflows {x.dtype}: the largest number, x[{place}], is {x[place]}; "
        "scale the vector down"
    )
