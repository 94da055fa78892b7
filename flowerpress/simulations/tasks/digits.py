"""Task `digits`: softmax regression on scikit-learn's 8x8 digits, in numpy or torch.

Both backends have one layout (the names of `torch.nn.Linear`), the same initial values and the same
draws, so clients with and without torch take part in one run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from flowerpress.clients.task import Batch, FlatVector, Task, draw_indices
from flowerpress.simulations.tasks import options
from flowerpress.simulations.tasks.base import ShippedTaskFn, split_every_fifth
from flowerpress.simulations.tasks.partition import Indices

_CLASSES = 10


class SoftmaxTask(Task):
    """Softmax regression in numpy: cross-entropy of `weight @ a + bias`.

    Parameters
    ----------
    inputs : array, shape (m, p), float32
        One example a row.
    targets : array, shape (m,), int64
        Class numbers from 0 to 9.
    batch_size : int or None
        Examples in a batch; None: all.
    """

    def __init__(
        self,
        inputs: npt.NDArray[np.float32],
        targets: npt.NDArray[np.int64],
        batch_size: int | None,
    ) -> None:
        self._inputs = inputs
        self._targets = targets
        self._batch_size = batch_size
        self.num_examples = len(targets)

    def initial_arrays(self) -> ArrayRecord:
        """Return zeros: `weight` of shape (10, p), `bias` of shape (10,)."""
        features = self._inputs.shape[1]
        return ArrayRecord(
            {
                "weight": Array(np.zeros((_CLASSES, features), np.float32)),
                "bias": Array(np.zeros(_CLASSES, np.float32)),
            }
        )

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw example indices without replacement."""
        return draw_indices(rng, self.num_examples, self._batch_size)

    def gradient(self, x: FlatVector, batch: Batch) -> tuple[float, FlatVector]:
        """Return the mean cross-entropy on the examples `batch` and its gradient."""
        rows = slice(None) if batch is None else batch
        inputs, targets = self._inputs[rows], self._targets[rows]
        log_probabilities = self._log_probabilities(x, inputs)
        count = np.arange(len(targets))
        loss = -float(log_probabilities[count, targets].mean())
        # d loss / d logits = (softmax - one-hot) / m
        residual = np.exp(log_probabilities)
        residual[count, targets] -= 1
        residual /= np.float32(len(targets))
        return loss, np.concatenate([(residual.T @ inputs).ravel(), residual.sum(axis=0)])

    def evaluate(self, x: FlatVector) -> dict[str, float]:
        """Return the mean cross-entropy `loss` and the `accuracy` on all examples."""
        log_probabilities = self._log_probabilities(x, self._inputs)
        picked = log_probabilities[np.arange(self.num_examples), self._targets]
        hits = log_probabilities.argmax(axis=1) == self._targets
        return {"loss": -float(picked.mean()), "accuracy": float(hits.mean())}

    def _log_probabilities(
        self, x: FlatVector, inputs: npt.NDArray[np.float32]
    ) -> npt.NDArray[Any]:
        """Return log softmax of the logits, shape (m, 10)."""
        weight, bias = x[:-_CLASSES].reshape(_CLASSES, -1), x[-_CLASSES:]
        logits: npt.NDArray[Any] = inputs @ weight.T + bias
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return logits


class DigitsTaskFn(ShippedTaskFn):
    """Softmax regression on 1,797 digits of 8x8 pixels; every fifth of a class is held out."""

    name = "digits"
    summary_line = "softmax regression on scikit-learn's 1,797 digits of 8x8 pixels, numpy or torch"
    citation = "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998"
    options = {  # noqa: RUF012  (read only)
        "backend": options.choice("numpy", "torch"),
        "batch_size": options.batch_size,
    }

    def __init__(
        self,
        *,
        partition: str = "iid",
        seed: int = 0,
        backend: str = "numpy",
        batch_size: int | None = 32,
    ) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError(
                "task 'digits' needs scikit-learn: pip install 'flowerpress[demo]'"
            ) from error
        inputs, labels = load_digits(return_X_y=True)
        train, test = split_every_fifth(labels)
        self._inputs = (inputs / 16).astype(np.float32)  # pixels are 0 to 16
        self._targets = labels.astype(np.int64)
        self._train, self._test = train, test
        self._backend = backend
        self._batch_size = batch_size
        super().__init__(self._targets[train], partition, seed)

    def shard(self, indices: Indices) -> Task:
        """Return the task on the training examples at `indices`."""
        return self._task(self._train[indices])

    def held_out(self) -> Task:
        """Return the task on the held-out examples."""
        return self._task(self._test)

    def _task(self, rows: Indices) -> Task:
        inputs, targets = self._inputs[rows], self._targets[rows]
        if self._backend == "numpy":
            return SoftmaxTask(inputs, targets, self._batch_size)
        from flowerpress.clients.torch_data import require_torch
        from flowerpress.clients.torch_task import TorchTask

        require_torch()
        from torch import nn

        # Made without drawing values: torch's generator belongs to the process.
        model = nn.Linear(inputs.shape[1], _CLASSES, device="meta").to_empty(device="cpu")
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        data = (inputs, targets)
        return TorchTask(model, nn.CrossEntropyLoss(), data, batch_size=self._batch_size)
