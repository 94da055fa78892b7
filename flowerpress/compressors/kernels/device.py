"""Vectors that stay on their device: torch tensors that kernels of torch operations compress.

Nothing here imports torch: where a tensor is, torch is.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

VARIABLE = "FLOWERPRESS_TORCH"
# Other kinds of device lack float64 (MPS) or fuse operations, which rounds differently (XLA).
_KINDS = ("cuda",)


@dataclass(frozen=True, slots=True, eq=False)
class DeviceVector:
    """A tensor with as much of an array's interface as encoding needs.

    Parameters
    ----------
    tensor : torch.Tensor, shape (d,)
        float32 or float64, contiguous, without a gradient.
    dtype : numpy.dtype
        That of the array that the tensor would be on the host.
    """

    tensor: Tensor
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """The number of coordinates."""
        return self.tensor.numel()

    @property
    def ndim(self) -> int:
        """The number of dimensions; encoders only see one."""
        return self.tensor.dim()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, for messages."""
        return tuple(self.tensor.shape)

    def __getitem__(self, places: Any) -> Any:
        """Return the number at a place, or an array of those at an array of places."""
        if isinstance(places, np.ndarray):
            ids = to_device(places.astype(np.int64), self.tensor.device)
            return to_host(self.tensor[ids])
        return self.dtype.type(self.tensor[int(places)].item())


def to_device(values: npt.NDArray[Any], device: Any) -> Tensor:
    """Return a copy of `values` on the device."""
    import torch

    return torch.tensor(values, device=device)


def to_host(tensor: Tensor) -> npt.NDArray[Any]:
    """Return the tensor as an array."""
    array: npt.NDArray[Any] = tensor.cpu().numpy()
    return array


def on_device(x: object) -> TypeGuard[DeviceVector]:
    """Return whether `x` is compressed by torch operations."""
    return isinstance(x, DeviceVector)


def stays_on_device(x: Any) -> bool:
    """Return whether `x` is a tensor to be compressed where it is.

    These are float32 and float64 tensors on CUDA devices. The environment variable
    ``FLOWERPRESS_TORCH`` set to 1 adds those on the CPU, and set to 0 takes all out.

    Raises
    ------
    ValueError
        If the variable has another value.
    """
    torch = sys.modules.get("torch")
    if torch is None or isinstance(x, np.ndarray) or not isinstance(x, torch.Tensor):
        return False
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "0", "1"):
        raise ValueError(f"{VARIABLE} must be 0 or 1, got {wanted!r}")
    kinds = (*_KINDS, "cpu") if wanted == "1" else _KINDS
    # Subclasses, which may be wrappers without numbers, are left to the way by the host.
    plain = type(x) in (torch.Tensor, torch.nn.Parameter) and not x.is_nested
    dense = plain and x.layout == torch.strided and x.dtype in (torch.float32, torch.float64)
    return wanted != "0" and x.device.type in kinds and dense


def device_vector(x: Any) -> DeviceVector:
    """Return such a tensor as a vector; a tensor that is not contiguous is copied."""
    import torch

    kind = np.float32 if x.dtype == torch.float32 else np.float64
    # Not as torch's view of negatives, whose bits are those of the positives.
    return DeviceVector(x.detach().resolve_neg().contiguous(), np.dtype(kind))
