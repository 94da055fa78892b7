"""Task `digits`: softmax regression on scikit-learn's 8x8 digits, in numpy or torch.

Both backends have one layout (the names of `torch.nn.Linear`), the same initial values and the same
draws, so clients with and without torch take part in one run.
"""

from __future__ import annotations

import numpy as np

from flowerpress.extras import import_failure
from flowerpress.simulations.tasks import options
from flowerpress.simulations.tasks.base import PartitionedTaskFn, split_every_fifth
from flowerpress.simulations.tasks.network import Examples, NetworkTask
from flowerpress.simulations.tasks.partition import Indices
from flowerpress.tasks.task import Task

_CLASSES = 10


class DigitsTaskFn(PartitionedTaskFn):
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
            raise import_failure(error, "task 'digits'", "scikit-learn", "sklearn") from error
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
            data = Examples(inputs, targets)
            return NetworkTask(data, classes=_CLASSES, batch_size=self._batch_size)
        from flowerpress.tasks.torch_device import require_torch
        from flowerpress.tasks.torch_task import TorchTask

        require_torch()
        from torch import nn

        # Made without drawing values: torch's generator belongs to the process.
        model = nn.Linear(inputs.shape[1], _CLASSES, device="meta").to_empty(device="cpu")
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        loss = nn.CrossEntropyLoss()
        return TorchTask(model, loss, (inputs, targets), batch_size=self._batch_size)
