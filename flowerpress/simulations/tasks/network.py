"""Classification by a small network in numpy: softmax regression, or with one hidden layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from flowerpress.tasks.task import Batch, FlatVector, Task, draw_indices

Matrix = npt.NDArray[Any]
_CHUNK = 2**20  # numbers of one array in a pass over many examples


class Rows(Protocol):
    """Examples or their labels: an array, or a file that is read as far as it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of examples, then the shape of one."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Return the rows of a slice or of indices, as an array."""


class Examples(NamedTuple):
    """Inputs of shape (m, p), real numbers, and class numbers of shape (m,)."""

    inputs: Rows
    targets: Rows

    def __len__(self) -> int:
        """Return the number of examples."""
        return self.targets.shape[0]


class NetworkTask(Task):
    """Cross-entropy of `weight @ a + bias`, or of a network with one hidden layer of ReLUs.

    Parameters
    ----------
    train : Examples
        What gradients are taken on. May be empty where only a model is asked for.
    classes : int
        Class numbers are 0 to `classes - 1`.
    hidden : int, default 0
        Width of the hidden layer; 0: none, softmax regression.
    batch_size : int or None, default 32
        Examples in a batch, drawn without replacement; None: all.
    seed : int, default 0
        Fixes the initial model.
    test : Examples, optional
        What `evaluate` measures on. Default: `train`.

    Examples
    --------
    >>> data = Examples(np.eye(2, dtype=np.float32), np.array([0, 1]))
    >>> task = NetworkTask(data, classes=2)
    >>> loss, gradient = task.gradient(np.zeros(6, np.float32), None)
    >>> round(loss, 6), gradient.tolist()
    (0.693147, [-0.25, 0.25, 0.25, -0.25, 0.0, 0.0])
    """

    def __init__(
        self,
        train: Examples,
        *,
        classes: int,
        hidden: int = 0,
        batch_size: int | None = 32,
        seed: int = 0,
        test: Examples | None = None,
    ) -> None:
        self._train, self._test = train, test or train
        self._batch_size, self._seed = batch_size, seed
        dim = train.inputs.shape[1]
        self._shapes: dict[str, tuple[int, ...]] = {"weight": (classes, dim), "bias": (classes,)}
        if hidden:  # the names of a torch module with layers `hidden` and `output`
            self._shapes = {
                "hidden.weight": (hidden, dim),
                "hidden.bias": (hidden,),
                "output.weight": (classes, hidden),
                "output.bias": (classes,),
            }
        self._chunk = max(1, _CHUNK // max(dim, hidden, classes))
        self.num_examples, self.num_test_examples = len(train), len(self._test)

    def initial_arrays(self) -> ArrayRecord:
        """Return zeros, or for a hidden layer what `torch.nn.Linear` draws from, by the seed."""
        rng = np.random.default_rng(self._seed)
        arrays, bound = {}, np.float32(0)
        for name, shape in self._shapes.items():
            if len(self._shapes) == 2:
                arrays[name] = Array(np.zeros(shape, np.float32))
                continue
            if len(shape) == 2:  # a bias has the bound of its layer
                bound = np.float32(shape[1] ** -0.5)
            arrays[name] = Array(bound * (2 * rng.random(shape, np.float32) - 1))
        return ArrayRecord(arrays)

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw example indices without replacement."""
        return draw_indices(rng, self.num_examples, self._batch_size)

    def gradient(self, x: FlatVector, batch: Batch) -> tuple[float, FlatVector]:
        """Return the mean cross-entropy on the examples `batch` and its gradient."""
        total = self.num_examples if batch is None else len(batch)
        gradient, loss = np.zeros_like(x), 0.0
        parts, sums = self._parts(x), self._parts(gradient)
        for inputs, targets in self._chunks(self._train, total, batch):
            layers, log_probabilities = _forward(parts, inputs)
            count = np.arange(len(targets))
            loss -= float(log_probabilities[count, targets].mean()) * (len(targets) / total)
            # d loss / d logits = (softmax - one-hot) / m
            residual = np.exp(log_probabilities)
            residual[count, targets] -= 1
            residual /= np.float32(total)
            _backward(parts, sums, layers, residual)
        return loss, gradient

    def evaluate(self, x: FlatVector) -> dict[str, float]:
        """Return the mean cross-entropy `loss` and the `accuracy`; nothing without examples."""
        total = len(self._test)
        if not total:
            return {}
        parts, loss, hits = self._parts(x), 0.0, 0
        for inputs, targets in self._chunks(self._test, total):
            log_probabilities = _forward(parts, inputs)[1]
            picked = log_probabilities[np.arange(len(targets)), targets]
            loss -= float(picked.mean()) * (len(targets) / total)
            hits += int(np.sum(log_probabilities.argmax(axis=1) == targets))
        return {"loss": loss, "accuracy": hits / total}

    def _chunks(
        self, examples: Examples, total: int, indices: npt.NDArray[np.int64] | None = None
    ) -> Iterator[tuple[Matrix, npt.NDArray[np.int64]]]:
        """Yield inputs and targets, bounding what one pass over many examples holds."""
        for start in range(0, total, self._chunk):
            part: Any = slice(start, start + self._chunk)
            if indices is not None:
                part = indices[part]
            yield (
                np.asarray(examples.inputs[part], np.float32),
                np.asarray(examples.targets[part], np.int64),
            )

    def _parts(self, x: FlatVector) -> list[Matrix]:
        """Return views of a flat vector: weight and bias, of each layer in turn."""
        parts, start = [], 0
        for shape in self._shapes.values():
            size = math.prod(shape)
            parts.append(x[start : start + size].reshape(shape))
            start += size
        return parts


def _forward(parts: list[Matrix], inputs: Matrix) -> tuple[list[Matrix], Matrix]:
    """Return each layer's inputs, and log softmax of the logits, shape (m, classes)."""
    layers = [inputs]
    if len(parts) == 4:
        hidden = inputs @ parts[0].T
        hidden += parts[1]
        layers.append(np.maximum(hidden, 0, out=hidden))
    logits = layers[-1] @ parts[-2].T + parts[-1]
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return layers, logits


def _backward(
    parts: list[Matrix], sums: list[Matrix], layers: list[Matrix], residual: Matrix
) -> None:
    """Add to `sums` the gradient of the parts, given that of the logits."""
    for layer in reversed(range(len(layers))):
        inputs = layers[layer]
        weight, bias = sums[2 * layer : 2 * layer + 2]
        weight += residual.T @ inputs
        bias += residual.sum(axis=0)
        if layer:
            residual = residual @ parts[2 * layer]
            residual *= inputs > 0
