"""Logistic regression with a non-convex regularizer, in numpy and float64.

    f(x) = 1/m sum_j log(1 + exp(-b_j <a_j, x>)) + lam sum_k x_k^2 / (1 + x_k^2)

The experiments of EF21 (Richtarik, Sokolov, Fatkhullin, arXiv:2106.05203) and MARINA (Gorbunov,
Burlachenko, Li, Richtarik, arXiv:2102.07845) are on this problem with lam = 0.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from flowerpress.server.theory import Smoothness
from flowerpress.simulations.tasks.base import PartitionedTaskFn
from flowerpress.simulations.tasks.logistic_constants import logistic_smoothness
from flowerpress.simulations.tasks.partition import Indices
from flowerpress.tasks.task import Batch, FlatVector, Task, draw_indices

Matrix = npt.NDArray[np.float64]


class LogisticTask(Task):
    """Logistic regression with the regularizer above; without it for lam = 0.

    Parameters
    ----------
    features : array, shape (m, d), float64
        The examples a_j.
    labels : array, shape (m,), float64
        The labels b_j, -1 or +1.
    lam : float, default 0.1
        Weight of the regularizer.
    x0 : array, shape (d,), optional
        Initial model. Default: zeros.
    batch_size : int or None, default None
        Examples in a batch. None: all, a full gradient.

    Examples
    --------
    >>> task = LogisticTask(np.array([[3.0, 4.0]]), np.array([1.0]))
    >>> loss, gradient = task.gradient(np.zeros(2), None)
    >>> round(loss, 6), gradient
    (0.693147, array([-1.5, -2. ]))
    >>> task.smoothness()  # 25 / 4 + 2 * 0.1
    6.45
    """

    def __init__(
        self,
        features: Matrix,
        labels: Matrix,
        lam: float = 0.1,
        x0: Matrix | None = None,
        batch_size: int | None = None,
    ) -> None:
        self._features = features
        self._labels = labels
        self._lam = lam
        self._x0 = np.zeros(features.shape[1]) if x0 is None else x0
        self._batch_size = batch_size
        self.num_examples = len(labels)

    def initial_arrays(self) -> ArrayRecord:
        """Return the initial model: one array `x` of shape (d,), float64."""
        return ArrayRecord({"x": Array(self._x0)})

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw example indices without replacement."""
        return draw_indices(rng, self.num_examples, self._batch_size)

    def gradient(self, x: FlatVector, batch: Batch) -> tuple[float, FlatVector]:
        """Return f on the examples `batch`, regularizer included, and its gradient."""
        rows = slice(None) if batch is None else batch
        features, labels = self._features[rows], self._labels[rows]
        margins = labels * (features @ x)
        squares = x * x
        loss = np.logaddexp(0, -margins).mean() + self._lam * np.sum(squares / (1 + squares))
        # d/dz log(1 + exp(-z)) = -1 / (1 + exp(z)), written so that nothing overflows
        slopes = -np.exp(-np.logaddexp(0, margins)) * labels / len(labels)
        gradient = features.T @ slopes + 2 * self._lam * x / (1 + squares) ** 2
        return float(loss), gradient

    def evaluate(self, x: FlatVector) -> dict[str, float]:
        """Return `loss` (f), `gradient_norm_sq` (of the full gradient) and `accuracy`."""
        loss, gradient = self.gradient(x, None)
        return {
            "loss": loss,
            "gradient_norm_sq": float(gradient @ gradient),
            "accuracy": self.accuracy(x),
        }

    def accuracy(self, x: FlatVector) -> float:
        """Return the share of examples on the right side; those on the border are wrong."""
        return float(np.mean(self._labels * (self._features @ x) > 0))

    def smoothness(self) -> float:
        """Return L = lambda_max(A^T A) / (4 m) + 2 lam, a Lipschitz constant of the gradient."""
        largest = np.linalg.norm(self._features, 2) ** 2
        return float(largest / (4 * self.num_examples) + 2 * self._lam)


class LogisticTaskFn(PartitionedTaskFn):
    """Logistic regression on rows in memory, shared out among the clients.

    Parameters
    ----------
    features : array, shape (N, d), float64
    labels : array, shape (N,), float64
        -1 or +1.
    partition : str
        A partition spec; `contiguous` is the papers'.
    seed : int
        Fixes the shards and `x0="normal"`.
    lam : float
        Weight of the regularizer.
    x0 : str
        `zeros`, or `normal`: independent N(0, 1).
    equal_shards : int
        Drop the last N mod `equal_shards` rows, so that this many clients get equal shards, as in
        the papers. 0: drop none.
    batch_size : int or None
        Examples in a batch; None: a full gradient.
    test : LogisticTask, optional
        What the accuracy is measured on. Default: the training rows.
    source : str
        Where the rows come from, for messages.
    """

    def __init__(
        self,
        features: Matrix,
        labels: Matrix,
        *,
        partition: str,
        seed: int,
        lam: float,
        x0: str,
        equal_shards: int,
        batch_size: int | None,
        test: LogisticTask | None = None,
        source: str = "the data",
    ) -> None:
        kept = len(labels) - (len(labels) % equal_shards if equal_shards else 0)
        if kept == 0:
            raise ValueError(f"{source}: {len(labels)} rows are too few for {equal_shards} shards")
        super().__init__(labels[:kept], partition, seed)
        self._features, self._targets = features[:kept], labels[:kept]
        self._lam, self._batch_size, self._test = lam, batch_size, test
        width = features.shape[1]
        self._x0 = np.zeros(width)
        if x0 == "normal":
            self._x0 += np.random.default_rng(seed).standard_normal(width)

    def shard(self, indices: Indices) -> LogisticTask:
        """Return the task on the rows at `indices`; a view where they are contiguous."""
        rows = _rows(indices)
        return LogisticTask(
            self._features[rows], self._targets[rows], self._lam, self._x0, self._batch_size
        )

    def held_out(self) -> Task:
        """Return what the server measures: the whole training problem, and the test rows."""
        return _Measured(self._features, self._targets, self._lam, self._x0, test=self._test)

    def smoothness(self, num_partitions: int = 1) -> Matrix:
        """Return the clients' smoothness constants L_i; of one client, the L of the whole."""
        tasks = (self.shard(part) for part in self.shards(num_partitions))
        return np.array([task.smoothness() for task in tasks])

    def smoothness_of(self, num_partitions: int, weights: str = "uniform") -> Smoothness:
        """Return bounds of all constants; see `logistic_smoothness`."""
        parts = self.shards(num_partitions)
        sizes = np.array([len(part) for part in parts], np.float64)
        mass = sizes if weights == "num-examples" else np.ones(num_partitions)
        return logistic_smoothness(
            [self._features[_rows(part)] for part in parts],
            mass / mass.sum(),
            self._lam,
            self._batch_size,
        )


def _rows(indices: Indices) -> Any:
    """Return the indices, or a slice where they are contiguous."""
    first, last = int(indices[0]), int(indices[-1])
    if len(indices) == last - first + 1 and np.all(np.diff(indices) == 1):
        return slice(first, last + 1)
    return indices


class _Measured(LogisticTask):
    """The training problem, with the accuracy of other rows where there are any."""

    def __init__(
        self,
        features: Matrix,
        labels: Matrix,
        lam: float,
        x0: Matrix,
        *,
        test: LogisticTask | None,
    ) -> None:
        super().__init__(features, labels, lam, x0)
        self._test = test

    def accuracy(self, x: FlatVector) -> float:
        return super().accuracy(x) if self._test is None else self._test.accuracy(x)
