"""Shards: which examples each client holds, by flwr-datasets' partitioners, from data in memory.

| spec | each client gets |
|---|---|
| `iid` | an equal share of the shuffled examples |
| `contiguous` | an equal share of the examples in their own order |
| `dirichlet:ALPHA` | of each class a share drawn from a symmetric Dirichlet law [1] |
| `pathological:K` | examples of K classes, the first by turns, the others drawn [2] |

[1] Yurochkin et al., arXiv:1905.12022. [2] Li et al., arXiv:2102.02079 (flwr-datasets'
`first-deterministic` mode).

The first two need numpy alone: `iid` is what flwr-datasets' `IidPartitioner` gives on a dataset
shuffled by the seed, index for index.
"""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from flowerpress.extras import import_failure
from flowerpress.suggestions import did_you_mean

Indices: TypeAlias = npt.NDArray[np.int64]

_KINDS = ("iid", "contiguous", "dirichlet", "pathological")
_CHOICES = "iid, contiguous, dirichlet:ALPHA (a number above 0), pathological:K (a whole number)"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Partition:
    """A parsed partition spec.

    Attributes
    ----------
    kind : str
        `iid`, `contiguous`, `dirichlet` or `pathological`.
    value : float
        Concentration alpha, or classes a client; 0 for the other kinds.
    """

    kind: str
    value: float = 0.0

    @property
    def spec(self) -> str:
        """The text that parses to this partition."""
        return f"{self.kind}:{self.value:g}" if self.value else self.kind


def parse_partition(spec: str) -> Partition:
    """Parse a partition spec.

    Raises
    ------
    ValueError
        If the spec is none of the known ones; says which these are.

    Examples
    --------
    >>> parse_partition("dirichlet:0.5")
    Partition(kind='dirichlet', value=0.5)
    """
    kind, colon, text = str(spec).partition(":")
    if kind in ("iid", "contiguous") and not colon:
        return Partition(kind)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    whole = value == math.floor(value) if math.isfinite(value) else False
    if kind == "dirichlet" and math.isfinite(value) and value > 0:
        return Partition(kind, value)
    if kind == "pathological" and whole and value >= 1:
        return Partition(kind, value)
    guess = "" if kind in _KINDS else did_you_mean(kind, _KINDS)
    raise ValueError(f"unknown partition {spec!r}; valid: {_CHOICES}{guess}")


def shards(
    labels: npt.NDArray[Any], partition: Partition, num_partitions: int, seed: int
) -> list[Indices]:
    """Return the example indices of each client, disjoint and none empty.

    Parameters
    ----------
    labels : array, shape (N,)
        Classes of the examples.
    partition : Partition
        The law of the shards. All but `pathological` cover every example; that one leaves out
        classes that no client was given, and says so in the log.
    num_partitions : int
        Number of clients, from 1 to N.
    seed : int
        Fixes the shards. `contiguous` does not use it.

    Raises
    ------
    ValueError
        If some client would hold no example.
    ImportError
        If the partition needs flwr-datasets and it is not installed.

    Examples
    --------
    >>> [part.tolist() for part in shards(np.zeros(5), Partition("contiguous"), 2, seed=0)]
    [[0, 1, 2], [3, 4]]
    """
    count = len(labels)
    if not 1 <= num_partitions <= count:
        raise ValueError(
            f"{count} examples can't be split over {num_partitions} clients, one or more each"
        )
    if partition.kind in ("iid", "contiguous"):
        rng = np.random.default_rng(seed)
        order = np.arange(count) if partition.kind == "contiguous" else rng.permutation(count)
        return np.array_split(order, num_partitions)
    try:
        parts = _by_flwr_datasets(labels, partition, num_partitions, seed)
    except ValueError as error:
        raise ValueError(
            f"partition {partition.spec!r} over {num_partitions} clients is not possible; take "
            f"fewer clients, or a larger alpha or fewer classes ({' '.join(str(error).split())})"
        ) from error
    if empty := [index for index, part in enumerate(parts) if len(part) == 0]:
        raise ValueError(
            f"partition {partition.spec!r} leaves {len(empty)} of {num_partitions} clients, the "
            f"first being client {empty[0]}, without examples; take fewer clients"
        )
    if unused := count - sum(map(len, parts)):
        _log.warning(
            "partition %r over %d clients leaves out %d of %d examples: those of classes that no "
            "client was given",
            partition.spec,
            num_partitions,
            unused,
            count,
        )
    return parts


def _by_flwr_datasets(
    labels: npt.NDArray[Any], partition: Partition, num_partitions: int, seed: int
) -> list[Indices]:
    try:
        from datasets import Dataset
        from flwr_datasets.partitioner import DirichletPartitioner, PathologicalPartitioner
    except ImportError as error:
        what = f"partition {partition.spec!r} (iid and contiguous need nothing)"
        raise import_failure(error, what, "flwr-datasets", "flwr_datasets", "datasets") from error
    partitioner: Any
    if partition.kind == "dirichlet":
        partitioner = DirichletPartitioner(
            num_partitions, "label", alpha=partition.value, min_partition_size=1, seed=seed
        )
    else:
        partitioner = PathologicalPartitioner(
            num_partitions,
            "label",
            num_classes_per_partition=int(partition.value),
            class_assignment_mode="first-deterministic",
            seed=seed,
        )
    partitioner.dataset = Dataset.from_dict(
        {"label": labels.tolist(), "index": list(range(len(labels)))}
    )
    with warnings.catch_warnings():
        # flwr-datasets warns of every retry, and of unused classes, which `shards` does better.
        warnings.simplefilter("ignore")
        parts = [partitioner.load_partition(index) for index in range(num_partitions)]
    return [np.asarray(part.with_format("numpy")["index"][:], dtype=np.int64) for part in parts]
