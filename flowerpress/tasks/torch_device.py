"""Whether torch is there, and whether it finds a device."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

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


def own_loss(loss: Any, device: torch.device) -> Any:
    """Return the loss on `device`; a copy where it holds tensors, such as class weights."""
    import torch

    if not isinstance(loss, torch.nn.Module):
        return loss
    names = [name for name, value in loss.named_parameters() if value.requires_grad]
    if names:
        warnings.warn(
            f"the loss has parameters of its own ({', '.join(names)}), which are not trained: make "
            "them a part of the model, or freeze them with requires_grad_(False)",
            stacklevel=4,
        )
    tensors = [*loss.parameters(), *loss.buffers()]
    return copy.deepcopy(loss).to(device).requires_grad_(False) if tensors else loss
