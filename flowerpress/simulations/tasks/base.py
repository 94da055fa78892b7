"""What the shipped tasks share: data in memory, shards by client, evaluation on the server."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, MetricRecord

from flowerpress.simulations.tasks.partition import Indices, parse_partition, shards

if TYPE_CHECKING:
    from flowerpress.server.theory import Smoothness
    from flowerpress.simulations.tasks.options import Reader
    from flowerpress.tasks.task import Task

# Clients may be made in several threads. The lock belongs to the module, for objects that hold one
# can't be sent to the worker processes of Flower's simulation.
_SHARDING = threading.Lock()


class ShippedTaskFn(ABC):
    """A shipped task: `task_fn(partition_id, num_partitions)` makes the task of one client.

    Parameters
    ----------
    seed : int
        Fixes the initial model, and what else is drawn.
    """

    name: ClassVar[str]
    summary_line: ClassVar[str]
    citation: ClassVar[str]
    options: ClassVar[Mapping[str, Reader]]
    shared_out: ClassVar[bool] = True  # whether clients share data out, or each has its own

    def __init__(self, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"seed must be at least 0, not {seed}")
        self._seed = seed

    @abstractmethod
    def __call__(self, partition_id: int, num_partitions: int) -> Task:
        """Return the task of client `partition_id` of `num_partitions`.

        Raises
        ------
        ValueError
            If the client number is out of range, or the data do not fit.
        """

    @abstractmethod
    def shards(self, num_partitions: int) -> list[Indices]:
        """Return the example indices of each of `num_partitions` clients.

        Raises
        ------
        ValueError
            If there are no data for so many.
        """

    @abstractmethod
    def held_out(self) -> Task:
        """Return a task that evaluates on what the server measures: held-out data."""

    def expect(self, num_partitions: int) -> None:
        """Hear for how many clients a run is, before the server's model is evaluated."""
        del num_partitions  # most measure the same for any number

    def smoothness_of(self, num_partitions: int, weights: str = "uniform") -> Smoothness | None:
        """Return the smoothness constants of the clients' functions, or bounds of them.

        Parameters
        ----------
        num_partitions : int
            Number of clients.
        weights : {"uniform", "num-examples"}
            What a client counts for in the means, as the strategies' option of this name.

        Returns
        -------
        Smoothness or None
            None where the task does not know: networks have no such constants.
        """
        del num_partitions, weights
        return None

    def check_host(self, partition_id: int) -> None:
        """Raise `ValueError` or `OSError` where this host lacks what a client's task needs."""
        del partition_id  # what all need was there when this object was made

    def check_client(self, partition_id: int, num_partitions: int) -> None:
        """Raise `ValueError` for a client number out of range."""
        if not 0 <= partition_id < num_partitions:
            raise ValueError(f"client {partition_id} is not among 0 to {num_partitions - 1}")

    def initial_arrays(self) -> ArrayRecord:
        """Return the initial model, the same for all clients."""
        return self.held_out().initial_arrays()

    def evaluate_fn(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Evaluate the global model, as Flower's strategies ask for it each round.

        Raises
        ------
        ValueError
            If `arrays` are not a model of this task; says the first difference.
        """
        return self.held_out().evaluate_fn()(server_round, arrays)


class PartitionedTaskFn(ShippedTaskFn):
    """A shipped task whose data are in memory, shared out among the clients.

    Parameters
    ----------
    labels : array, shape (N,)
        Classes of the N training examples, by which they are shared out.
    partition : str
        A partition spec, such as `"iid"` or `"dirichlet:0.5"`.
    seed : int
        Fixes the shards and the initial model.
    """

    def __init__(self, labels: npt.NDArray[Any], partition: str, seed: int) -> None:
        super().__init__(seed)
        self._labels = labels
        self._partition = parse_partition(partition)
        self._shards: list[Indices] = []

    def __call__(self, partition_id: int, num_partitions: int) -> Task:
        """Return the task on the shard of client `partition_id` of `num_partitions`."""
        self.check_client(partition_id, num_partitions)
        return self.shard(self.shards(num_partitions)[partition_id])

    def shards(self, num_partitions: int) -> list[Indices]:
        """Return the example indices of each of `num_partitions` clients."""
        with _SHARDING:
            if len(self._shards) != num_partitions:
                self._shards = shards(self._labels, self._partition, num_partitions, self._seed)
            return self._shards

    @abstractmethod
    def shard(self, indices: Indices) -> Task:
        """Return a task whose training data are the examples at `indices`."""


def split_every_fifth(labels: npt.NDArray[Any]) -> tuple[Indices, Indices]:
    """Return (train, test) indices: of each class, every fifth example is held out.

    Examples
    --------
    >>> train, test = split_every_fifth(np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1]))
    >>> test.tolist()
    [4, 9]
    """
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[4::5]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
