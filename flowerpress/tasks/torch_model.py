"""A torch model as a task sees it: a vector of trained parameters, buffers, and modes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from flowerpress.protocol.layout import DTYPES
from flowerpress.tasks.torch_views import LARGE, Views, can_be_view

if TYPE_CHECKING:
    import torch


class TorchModel:
    """A copy of a model, on a device.

    Parameters
    ----------
    model : torch.nn.Module
    device : torch.device

    Attributes
    ----------
    module : torch.nn.Module
        The copy.
    parameters : dict of str to Parameter
        What is trained, in the order of the vector. A parameter with several names has the first.
    real : torch.dtype
        Of the vector: float64 if all parameters are, else float32.
    size : int
        Its length.
    writes : bool
        Whether it was seen to write to its parameters in a forward pass.

    Raises
    ------
    TypeError
        It is no module; a parameter is neither float32 nor float64, or a buffer of a dtype that
        cannot travel.
    ValueError
        There is no trainable parameter, or one whose shape is not known yet.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        self.module = _copy_of(model).to(device)
        named = dict(self.module.named_parameters())
        self.parameters = {name: value for name, value in named.items() if value.requires_grad}
        self.real = _vector_dtype(self.parameters)
        self.size = sum(value.numel() for value in self.parameters.values())
        self._shapes = [value.shape for value in self.parameters.values()]
        self.writes = False
        self._empty = False  # whether the parameters hold no values, see `on_views`
        _check_buffers(self.module.state_dict(), self._places())
        self._resting = _kept_modes(self.module)
        self._awake = [each for each in self.module.modules() if each not in set(self._resting)]
        self._begin_training()
        self._buffered = [module for module in self.module.modules() if module._buffers]

    def to(self, device: torch.device) -> None:
        """Move the model; its parameters stay the same objects."""
        self.module.to(device)

    def train(self) -> None:
        """Put the model in training mode, but for the modules that its user keeps from it."""
        # Looking is many times faster than setting, which goes through Module.__setattr__.
        if not all(each.training for each in self._awake):
            self._begin_training()

    def _begin_training(self) -> None:
        self.module.train()
        for module in self._resting:
            module.training = False

    def evaluation(self) -> None:
        """Put the model in evaluation mode."""
        self.module.eval()

    def load(self, x: Any) -> None:
        """Copy a flat vector, an array or a tensor, into the parameters."""
        import torch

        if x.shape != (self.size,):
            raise ValueError(f"the model has {self.size} values, but x has shape {x.shape}")
        if self._empty:
            self._refill()
        device = next(iter(self.parameters.values())).device
        if not torch.is_tensor(x) and not x.flags.writeable:
            x = x.copy()
        flat = _tensor(x).to(device)
        start = 0
        with torch.no_grad():
            for value in self.parameters.values():
                value.copy_(flat[start : start + value.numel()].view(value.shape))
                start += value.numel()

    def values(self) -> dict[str, torch.nn.Parameter]:
        """Return the parameters; raises `ValueError` while they have no values."""
        if self._empty:
            raise ValueError(
                "this model holds no values: its last gradient was taken where a worker's vectors "
                "are, which are not its own; evaluate it, or ask before its first gradient"
            )
        return self.parameters

    def takes_views(self, x: Any, out: Any) -> bool:
        """Whether the parameters can be views of `x`, and it pays."""
        import torch

        shape = (self.size,)
        if (
            self.writes
            or self.size < LARGE
            or (x.shape, out.shape) != (shape, shape)
            or x.dtype != out.dtype
        ):
            return False
        if not torch.is_tensor(x) and not x.flags.writeable:
            return False  # torch has no tensors that may not be written to
        return all(can_be_view(value, _tensor(x)) for value in self.parameters.values())

    @contextmanager
    def on_views(self, x: Any, out: Any) -> Iterator[Views]:
        """Have the parameters be views of `x`, and their gradients go to `out`."""
        self._empty = True  # whatever happens: they may not stay views of memory that is lent
        flat, total = _tensor(x), _tensor(out)
        views = Views(list(self.parameters.values()), self._shapes, flat, total)
        try:
            yield views
        finally:
            views.leave()

    def _refill(self) -> None:
        """Give the parameters memory of their own again, which is not written to yet."""
        for value, shape in zip(self.parameters.values(), self._shapes, strict=True):
            value.data = value.data.new_empty(shape)
        self._empty = False

    def buffers(self) -> dict[str, torch.Tensor]:
        """Return the persistent buffers by name, as they are now."""
        # By module and name each time: a forward pass may put another tensor in their place.
        return {name: getattr(module, key) for name, (module, key) in self._places().items()}

    def load_buffers(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace buffers by `values`.

        Raises
        ------
        ValueError
            A name, a shape, or a kind of number is not one of the model's buffers.
        """
        import torch

        places = self._places()
        for name, value in values.items():
            if name not in places:
                known = ", ".join(places) or "none"
                raise ValueError(f"the model has no buffer {name!r}; its buffers: {known}")
            module, key = places[name]
            buffer, array = getattr(module, key), np.array(value)
            if array.shape != tuple(buffer.shape):
                raise ValueError(
                    f"buffer {name!r} has shape {tuple(buffer.shape)}, not {array.shape}"
                )
            given = torch.from_numpy(array)
            if not torch.can_cast(given.dtype, buffer.dtype):
                raise ValueError(f"buffer {name!r} is {buffer.dtype}, not {given.dtype}")
            own = _writable(buffer)
            with torch.no_grad():
                own.copy_(given)
            if own is not buffer:
                module._buffers[key] = own

    def remember(self) -> Callable[[], None]:
        """Return a function that puts all buffers back, those that never travel too."""
        import torch

        kept = [
            (module, key, value, value.clone())
            for module in self._buffered
            for key, value in module._buffers.items()
            if value is not None
        ]

        def undo() -> None:
            with torch.no_grad():
                for module, key, value, before in kept:
                    module._buffers[key] = _writable(value).copy_(before)

        return undo

    def kept_names(self) -> dict[str, int | str]:
        """Return a CRC-32 of each frozen parameter, and for other names of one its first name."""
        first = {id(value): name for name, value in self.module.named_parameters()}
        kept: dict[str, int | str] = {}
        for name, value in self.module.named_parameters(remove_duplicate=False):
            if not value.requires_grad:
                kept[name] = _crc(value)
            elif first[id(value)] != name:
                kept[name] = first[id(value)]
        return kept

    def _places(self) -> dict[str, tuple[torch.nn.Module, str]]:
        """Return the module and the key of each persistent buffer, by its name in a state_dict."""
        return {
            f"{prefix}.{key}" if prefix else key: (module, key)
            for prefix, module in self.module.named_modules(remove_duplicate=False)
            for key, value in module._buffers.items()
            if value is not None and key not in module._non_persistent_buffers_set
        }


def _copy_of(model: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a model.

    Results that it keeps as attributes (weights of ``torch.nn.utils.weight_norm`` and ``prune``,
    activations of a forward pass) have no gradient in it: the next pass makes them anew.
    """
    import torch
    from torch.nn.parameter import is_lazy

    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {_kind(model)}")
    for what, values in (
        ("parameter", model.named_parameters()),
        ("buffer", model.named_buffers()),
    ):
        if name := next((name for name, value in values if is_lazy(value)), None):
            raise ValueError(
                f"{what} {name!r} has no shape yet: give the lazy module a batch first"
            )
    results = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if torch.is_tensor(value) and not value.is_leaf
    }
    return copy.deepcopy(model, results)


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _tensor(vector: Any) -> torch.Tensor:
    """Return a vector as a tensor, which shares the memory of an array."""
    import torch

    return vector if isinstance(vector, torch.Tensor) else torch.from_numpy(vector)


def to_numpy(value: torch.Tensor) -> npt.NDArray[Any]:
    """Return a copy on the host: torch's tensors there share memory with their numpy views."""
    array: npt.NDArray[Any] = value.detach().cpu().numpy()
    return np.array(array, order="C")


def _vector_dtype(parameters: Mapping[str, torch.Tensor]) -> torch.dtype:
    import torch

    if not parameters:
        raise ValueError("the model has no trainable parameter (one with requires_grad)")
    for name, value in parameters.items():
        if value.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"parameter {name!r} is {value.dtype}; use float32 or float64")
    wide = all(value.dtype == torch.float64 for value in parameters.values())
    return torch.float64 if wide else torch.float32


def _writable(value: torch.Tensor) -> torch.Tensor:
    """Return a buffer, or a copy if its elements share memory, as those made by ``expand`` do."""
    shared = any(
        size > 1 and not step for size, step in zip(value.shape, value.stride(), strict=True)
    )
    return value.contiguous() if shared else value


def _check_buffers(state: Mapping[str, Any], places: Mapping[str, Any]) -> None:
    for name in places:
        dtype = str(state[name].dtype).removeprefix("torch.")
        plain = dtype in DTYPES
        if not plain or str(state[name].layout) != "torch.strided":
            kind = dtype if not plain else str(state[name].layout)
            raise TypeError(
                f"buffer {name!r} is {kind}, which numpy and Flower's records do not have: "
                "register it with persistent=False, so that it stays on each client, or in another "
                "dtype"
            )


def _kept_modes(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the modules to keep in evaluation mode: where modes differ, those in it.

    A model that is in evaluation mode as a whole says nothing of how it is to be trained: many are
    left so after they were loaded or measured.
    """
    resting = [each for each in module.modules() if not each.training]
    return resting if any(each.training for each in module.modules()) else []


def _crc(value: torch.Tensor) -> int:
    import torch

    data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return crc32(data.numpy().data)
