"""Tasks of PyTorch models. torch is imported when a `TorchTask` is made, and not before."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from flowerpress.clients.task import Batch, FlatVector, Task, draw_indices
from flowerpress.clients.torch_data import Examples, as_examples, checked_device, require_torch

if TYPE_CHECKING:
    import torch

_CHUNK = 1024  # Examples in one forward pass when a pass over all the data is asked for.
_GLOBAL_GENERATOR = threading.Lock()


class TorchBatch(NamedTuple):
    """One minibatch: which examples, and the seed of the model's own draws (dropout)."""

    indices: npt.NDArray[np.int64]
    seed: int


class TorchTask(Task):
    """A PyTorch model, its loss and its data.

    The trainable arrays are the parameters with `requires_grad`, under their own names and in
    their own order. Frozen parameters stay on the client and never travel. Buffers (batch-norm
    statistics) travel beside the vector.

    Parameters
    ----------
    model : torch.nn.Module
        The model, with float32 or float64 parameters. A copy is taken, so clients of one process
        may be given the same one. Its values are where the run starts: seed them alike everywhere.
    loss : callable
        `loss(output, target) -> scalar tensor`, the mean over the examples of a batch.
    train_data : (X, y) or torch.utils.data.Dataset
        Arrays or tensors with one example a row, or a map-style dataset of such pairs. Real values
        are cast to the model's dtype, integers to int64.
    test_data : same, optional
        What `evaluate` measures on. Default: the training data.
    batch_size : int or None, default 32
        Examples in a batch, drawn without replacement. None, or no fewer than there are examples:
        all the data.
    device : str, default "cpu"
        Where the model and the data live, such as `"cuda"` or `"cuda:1"`. Vectors and gradients
        are on the host all the same.

    Raises
    ------
    ImportError
        If torch is not installed.
    ValueError
        If the device is not there, the data is empty or its lengths differ, `batch_size` is below
        1, or the model has no trainable parameter.
    TypeError
        If a parameter is neither float32 nor float64, or the data is of no known kind.

    Notes
    -----
    A gradient is a function of (x, buffers, batch) and torch's thread count alone. Models that
    draw (dropout) do so from the batch's own seed, so two gradients on one batch see one mask;
    torch draws from one generator per process, hence such gradients run one at a time.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        loss: Callable[[Any, Any], torch.Tensor],
        train_data: Any,
        *,
        test_data: Any = None,
        batch_size: int | None = 32,
        device: str = "cpu",
    ) -> None:
        require_torch()
        import torch

        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, or None for all, not {batch_size}")
        self._device = checked_device(device)
        self._model = copy.deepcopy(model).to(self._device)
        self._loss = loss
        self._parameters = {
            name: value for name, value in self._model.named_parameters() if value.requires_grad
        }
        self._real = _vector_dtype(self._parameters)
        self._size = sum(value.numel() for value in self._parameters.values())
        self._buffers = {
            name: value
            for name, value in self._model.state_dict(keep_vars=True).items()
            if torch.is_tensor(value) and not isinstance(value, torch.nn.Parameter)
        }
        self._draws = any(_draws_randomly(module) for module in self._model.modules())
        self._train = as_examples(train_data, "train_data", self._real).to(self._device)
        self._test = (
            None
            if test_data is None
            else as_examples(test_data, "test_data", self._real).to(self._device)
        )
        self.num_examples = len(self._train)
        self.num_test_examples = 0 if self._test is None else len(self._test)
        self._batch_size = batch_size

    def to(self, device: str) -> TorchTask:
        """Move the model and the data to `device`; return this task.

        Raises
        ------
        ValueError
            If torch does not know the device or does not find it on this machine.
        """
        self._device = checked_device(device)
        # Module.to keeps the parameter objects but replaces buffers: look those up anew.
        self._model.to(self._device)
        state = self._model.state_dict(keep_vars=True)
        self._buffers = {name: state[name] for name in self._buffers}
        self._train = self._train.to(self._device)
        if self._test is not None:
            self._test = self._test.to(self._device)
        return self

    def initial_arrays(self) -> ArrayRecord:
        """Return the model's current parameters, then its buffers, as numpy arrays by name."""
        named = {**self._parameters, **self._buffers}
        return ArrayRecord({name: Array(_to_numpy(value)) for name, value in named.items()})

    def buffer_names(self) -> tuple[str, ...]:
        """Name the model's persistent buffers."""
        return tuple(self._buffers)

    def buffers(self) -> dict[str, npt.NDArray[Any]]:
        """Return copies of the buffers, as the last forward passes left them."""
        return {name: _to_numpy(value) for name, value in self._buffers.items()}

    def load_buffers(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace buffers by `values`, cast to their dtypes."""
        import torch

        for name, value in values.items():
            if name not in self._buffers:
                known = ", ".join(self._buffers) or "none"
                raise ValueError(f"the model has no buffer {name!r}; its buffers: {known}")
            buffer = self._buffers[name]
            if tuple(value.shape) != tuple(buffer.shape):
                raise ValueError(
                    f"buffer {name!r} has shape {tuple(buffer.shape)}, not {value.shape}"
                )
            with torch.no_grad():
                buffer.copy_(torch.from_numpy(np.array(value)))

    def draw(self, rng: np.random.Generator) -> TorchBatch | None:
        """Draw a minibatch without replacement; None when a batch is all the data."""
        indices = draw_indices(rng, self.num_examples, self._batch_size)
        if not self._draws:
            return None if indices is None else TorchBatch(indices, 0)
        everything = np.arange(self.num_examples)
        return TorchBatch(everything if indices is None else indices, int(rng.integers(2**63)))

    def gradient(self, x: FlatVector, batch: Batch) -> tuple[float, FlatVector]:
        """Return the mean loss on `batch` and its gradient at `x`, in training mode."""
        import torch

        self._load(x)
        self._model.train()
        parameters = list(self._parameters.values())
        indices = np.arange(self.num_examples) if batch is None else batch.indices
        gradient = torch.zeros(self._size, dtype=self._real, device=self._device)
        loss = 0.0
        with self._seeded(0 if batch is None else batch.seed):
            for inputs, targets, share in self._chunks(self._train, indices):
                value = self._loss(self._model(inputs), targets) * share
                parts = torch.autograd.grad(
                    value, parameters, allow_unused=True, materialize_grads=True
                )
                gradient += torch.cat([part.reshape(-1) for part in parts])
                loss += float(value.detach())
        return loss, _to_numpy(gradient)

    def evaluate(self, x: FlatVector) -> dict[str, float]:
        """Return the mean `loss`, and `accuracy` where targets are class numbers."""
        import torch

        self._load(x)
        self._model.eval()
        data = self._train if self._test is None else self._test
        loss, correct = 0.0, 0
        classes = False
        with torch.no_grad():
            for inputs, targets, share in self._chunks(data, np.arange(len(data))):
                outputs = self._model(inputs)
                loss += float(self._loss(outputs, targets)) * share
                classes = targets.dtype == torch.int64 and outputs.ndim == targets.ndim + 1 == 2
                if classes:
                    correct += int((outputs.argmax(1) == targets).sum())
        return {"loss": loss} | ({"accuracy": correct / len(data)} if classes else {})

    def _load(self, x: FlatVector) -> None:
        """Copy the flat vector into the parameters."""
        import torch

        if x.shape != (self._size,):
            raise ValueError(f"the model has {self._size} values, but x has shape {x.shape}")
        flat = torch.from_numpy(x if x.flags.writeable else x.copy()).to(self._device)
        start = 0
        with torch.no_grad():
            for value in self._parameters.values():
                value.copy_(flat[start : start + value.numel()].view(value.shape))
                start += value.numel()

    def _chunks(
        self, data: Examples, indices: npt.NDArray[np.int64]
    ) -> Iterator[tuple[Any, torch.Tensor, float]]:
        """Yield (inputs, targets, share of the whole), bounding what one forward pass holds."""
        step = max(_CHUNK, self._batch_size or 0)
        for start in range(0, len(indices), step):
            part = indices[start : start + step]
            inputs, targets = data.take(part)
            yield inputs.to(self._device), targets.to(self._device), len(part) / len(indices)

    @contextlib.contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        if not self._draws:
            yield
            return
        import torch

        devices = [] if self._device.type == "cpu" else [self._device]
        with _GLOBAL_GENERATOR, torch.random.fork_rng(devices, device_type=self._device.type):
            torch.manual_seed(seed)
            yield


def _vector_dtype(parameters: Mapping[str, torch.Tensor]) -> torch.dtype:
    """Return float64 if all parameters are, else float32."""
    import torch

    if not parameters:
        raise ValueError("the model has no trainable parameter (one with requires_grad)")
    for name, value in parameters.items():
        if value.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"parameter {name!r} is {value.dtype}; use float32 or float64")
    wide = all(value.dtype == torch.float64 for value in parameters.values())
    return torch.float64 if wide else torch.float32


def _draws_randomly(module: torch.nn.Module) -> bool:
    """Tell whether a module draws random numbers in training: dropout, in its various guises."""
    from torch.nn.modules.dropout import _DropoutNd

    if isinstance(module, _DropoutNd):
        return module.p > 0
    # Recurrent and attention layers hold their dropout rate as a plain number.
    rate = getattr(module, "dropout", 0.0)
    return isinstance(rate, float | int) and rate > 0


def _to_numpy(value: torch.Tensor) -> npt.NDArray[Any]:
    # torch's CPU tensors share memory with their numpy views: copy, so that no caller holds ours.
    array: npt.NDArray[Any] = value.detach().cpu().numpy()
    return np.array(array, order="C")
