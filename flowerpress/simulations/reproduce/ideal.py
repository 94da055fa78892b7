"""The idealised EF21-SGD of Fatkhullin et al.'s Theorem 1, as a task for plain gradient descent.

Its memory is the exact gradient, so that a worker's estimate is grad f + top-1 of the noise. That
is sent whole: what is to be seen is where the method stops, not what it sends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord

from flowerpress.clients import FunctionTask
from flowerpress.simulations.tasks import make_task_fn


def task_fn(partition_id: int, num_partitions: int) -> FunctionTask:
    """Return a worker's task: the example `noise`, all but the exact gradient cut to top-1."""
    noisy = make_task_fn("divergence")(partition_id, num_partitions)
    start = next(iter(noisy.initial_arrays().values())).numpy()

    def gradient(x: Any, batch: Any) -> tuple[float, Any]:
        loss, exact = noisy.gradient(x, None)
        noise = noisy.gradient(x, batch)[1] - exact
        kept = np.where(np.arange(len(noise)) == np.abs(noise).argmax(), noise, 0.0)
        return loss, exact + kept

    return FunctionTask(start, gradient, draw=noisy.draw)


def evaluate_fn(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Measure the exact gradient."""
    return make_task_fn("divergence").evaluate_fn(server_round, arrays)
