"""MNIST by a network of 814,090 numbers: long enough that its updates show what a link carries."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flowerpress.simulations.tasks.mnist import load_mnist
from flowerpress.simulations.tasks.network import Examples, NetworkTask

HIDDEN = 1024


@cache
def _data() -> tuple[Any, Any, Any]:
    images, labels = load_mnist()
    inputs = (images.astype(np.float32) / 255 - 0.1307) / 0.3081
    held_out = np.arange(len(labels)) % 5 == 0
    return inputs, labels, held_out


def task_fn(client: int, clients: int) -> NetworkTask:
    inputs, labels, held_out = _data()
    mine = np.flatnonzero(~held_out)[client::clients]
    test = Examples(inputs[held_out], labels[held_out])
    train = Examples(inputs[mine], labels[mine])
    return NetworkTask(train, classes=10, hidden=HIDDEN, batch_size=64, test=test)


def evaluate_fn(server_round: int, arrays: Any) -> Any:
    """Evaluate; ``WIDE_MNIST_REACHED`` is a file that is made once ``WIDE_MNIST_TARGET`` is."""
    metrics = _evaluate()(server_round, arrays)
    target = float(os.environ.get("WIDE_MNIST_TARGET", "inf"))
    if metrics is not None and metrics["accuracy"] >= target:
        Path(os.environ["WIDE_MNIST_REACHED"]).touch()
    return metrics


@cache
def _evaluate() -> Any:
    return task_fn(0, 1).evaluate_fn()
