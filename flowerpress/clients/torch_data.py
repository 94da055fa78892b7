"""What `TorchTask` needs around its model: torch itself, a device, and examples by index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowerpress.extras import import_failure

if TYPE_CHECKING:
    import torch


def require_torch() -> None:
    """Check that torch can be imported, or say how to install it.

    Raises
    ------
    ImportError
        If torch is not installed.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise import_failure(error, "a TorchTask", "torch") from error


def checked_device(device: str) -> torch.device:
    """Return the torch device named `device`.

    Raises
    ------
    ValueError
        If torch does not know the name, or finds no such device on this machine.
    """
    import torch

    try:
        found = torch.device(device)
        torch.empty(1, device=found).cpu()  # the only sure proof that a device works
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        there = ", ".join(_devices())
        raise ValueError(
            f"device {device!r} can't be used here; torch {torch.__version__} finds: {there}. "
            "Choose one of these, or install a torch built for the device"
        ) from error
    return found


def _devices() -> list[str]:
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


class Examples(ABC):
    """Inputs and targets of which any may be taken by index."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, indices: npt.NDArray[np.int64]) -> tuple[Any, torch.Tensor]:
        """Return the inputs and targets at `indices`, stacked along axis 0."""

    def to(self, device: torch.device) -> Examples:
        """Return these examples on `device`, where they can be held there at all."""
        return self


class TensorExamples(Examples):
    """Two tensors with one example a row."""

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self._inputs = inputs
        self._targets = targets

    def __len__(self) -> int:
        return len(self._targets)

    def take(self, indices: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows at `indices`."""
        import torch

        index = torch.from_numpy(indices).to(self._inputs.device)
        return self._inputs[index], self._targets[index]

    def to(self, device: torch.device) -> Examples:
        """Return these examples on `device`."""
        return TensorExamples(self._inputs.to(device), self._targets.to(device))


class DatasetExamples(Examples):
    """A map-style torch dataset of (input, target) pairs, read example by example."""

    def __init__(self, dataset: Any, real: torch.dtype) -> None:
        self._dataset = dataset
        self._real = real

    def __len__(self) -> int:
        return len(self._dataset)

    def take(self, indices: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Read and stack the examples at `indices`."""
        from torch.utils.data import default_collate

        inputs, targets = default_collate([self._dataset[int(index)] for index in indices])
        return _as_tensor(inputs, self._real), _as_tensor(targets, self._real)


def as_examples(data: Any, name: str, real: torch.dtype) -> Examples:
    """Wrap `(X, y)` or a dataset, with real values cast to `real` and integers to int64.

    Raises
    ------
    TypeError
        If `data` is neither a pair nor a map-style dataset.
    ValueError
        If it is empty, or the lengths of `X` and `y` differ.
    """
    if isinstance(data, tuple | list) and len(data) == 2:
        inputs, targets = (_as_tensor(part, real) for part in data)
        if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
            shapes = f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
            raise ValueError(f"{name}: X and y need one row an example, but have shapes {shapes}")
        examples: Examples = TensorExamples(inputs, targets)
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        examples = DatasetExamples(data, real)
    else:
        raise TypeError(
            f"{name} must be a pair (X, y) or a dataset with len() and [], "
            f"not {type(data).__name__}"
        )
    if len(examples) == 0:
        raise ValueError(f"{name} holds no example")
    return examples


def _as_tensor(data: Any, real: torch.dtype) -> torch.Tensor:
    import torch

    # np.array copies: torch neither takes read-only arrays nor should share the caller's.
    tensor = data if torch.is_tensor(data) else torch.from_numpy(np.array(data))
    cast: torch.Tensor = tensor.to(real if tensor.is_floating_point() else torch.int64)
    return cast
