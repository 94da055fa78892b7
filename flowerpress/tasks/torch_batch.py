"""How a batch becomes a call of the model and of the loss, and what is found in the output.

================================================  =================================  ==============
batch                                             the model is called as             target
================================================  =================================  ==============
``(inputs, target)``                              ``model(inputs)``                  ``target``
``(a, b, ..., target)``, ``((a, b), target)``     ``model(a, b, ...)``               ``target``
``({"a": a, "b": b}, target)``                    ``model(a=a, b=b)``                ``target``
``{"a": a, "b": b, "labels": target}``, or with   ``model(a=a, b=b)``; with the      ``target``
``"label"``                                       labels where ``forward`` takes
                                                  them
one tensor ``x``, or ``(x,)``                     ``model(x)``                       ``x``
================================================  =================================  ==============

A tuple may be a list as well. The loss is then called as ``loss(output, target)``; boolean targets
are class numbers. Anything else is said with ``TorchTask(forward=...)``: a function of the model
and the batch that returns the output and the target.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import torch

Forward: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]
"""`forward(model, batch) -> (output, target)`."""

LABELS = ("labels", "label")


def plain_forward(model: torch.nn.Module) -> Forward:
    """Return the function that calls `model` as the table says, of batches that `put` returned."""
    import torch

    try:
        parameters = dict(inspect.signature(model.forward).parameters)
    except ValueError:  # a scripted module has none
        parameters = {}
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())

    def forward(module: Any, batch: Any) -> tuple[Any, Any]:
        if torch.is_tensor(batch):
            return module(batch), batch
        if isinstance(batch, Mapping):
            label = next(name for name in LABELS if name in batch)
            kept = label in parameters or (takes_all and label == "labels")
            named = {name: batch[name] for name in batch if kept or name != label}
            return module(**named), _classes(batch[label])
        *inputs, target = batch if len(batch) > 1 else (batch[0], batch[0])
        if len(inputs) > 1 or torch.is_tensor(inputs[0]):
            return module(*inputs), _classes(target)
        if isinstance(inputs[0], Mapping):
            return module(**inputs[0]), _classes(target)
        inputs = inputs[0] if isinstance(inputs[0], list) else inputs
        return module(*inputs), _classes(target)

    return forward


def check_batch(batch: Any, name: str) -> None:
    """Check that `plain_forward` knows what to do with a batch.

    Raises
    ------
    TypeError
        It does not: says what the batch is, and what to give.
    """
    import torch

    remedy = (
        "give the TorchTask forward=, a function of (model, batch) that returns (output, target)"
    )
    if isinstance(batch, Mapping):
        if not any(label in batch for label in LABELS):
            raise TypeError(
                f"{name}: a batch is a dict of {list(batch)} without 'labels': {remedy}"
            )
        if not all(isinstance(key, str) for key in batch):
            raise TypeError(f"{name}: the keys {list(batch)} are no names of inputs: {remedy}")
    elif not (torch.is_tensor(batch) or (isinstance(batch, tuple | list) and len(batch))):
        raise TypeError(f"{name}: a batch is a {type(batch).__name__}: {remedy}")


def put(batch: Any, device: torch.device, real: torch.dtype) -> Any:
    """Return a batch on `device`, its tensors cast as the model needs them.

    Real tensors get the dtype `real`, complex ones that of the same precision, integers int64;
    booleans stay. Tuples become lists. What is no tensor but has a method ``to`` (a packed
    sequence, a graph) is moved as it is.
    """
    import torch

    if torch.is_tensor(batch):
        return batch.to(device, cast_dtype(batch.dtype, real))
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, np.ndarray | np.generic):  # of a collate function that knows no torch
        return put(torch.from_numpy(np.array(batch)), device, real)
    if isinstance(batch, Mapping):
        return {name: put(part, device, real) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return [put(part, device, real) for part in batch]
    return batch


def cast_dtype(dtype: torch.dtype, real: torch.dtype) -> torch.dtype:
    """Return the dtype in which numbers of `dtype` are given to a model of dtype `real`."""
    import torch

    if dtype.is_floating_point:
        return real
    if dtype.is_complex:
        return torch.complex128 if real == torch.float64 else torch.complex64
    return dtype if dtype == torch.bool else torch.int64


def logits_of(output: Any) -> torch.Tensor | None:
    """Return the tensor that may hold the classes' scores, None if there is none.

    It is the output itself, the first of several, or the one named ``logits``.
    """
    import torch

    if isinstance(output, Mapping):
        output = output.get("logits")
    elif isinstance(output, tuple | list) and not hasattr(output, "logits"):
        output = output[0] if output else None
    elif not torch.is_tensor(output):
        output = getattr(output, "logits", None)
    return output if torch.is_tensor(output) else None


def _classes(target: Any) -> Any:
    import torch

    return target.long() if torch.is_tensor(target) and target.dtype == torch.bool else target
