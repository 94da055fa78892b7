"""Task `npy`: a small network on arrays in a folder, in numpy; each client has its own folder.

A folder holds `x.npy` (one example a row) and `y.npy` (class numbers), and for evaluation
`x_test.npy` and `y_test.npy`, if it has any. The files may be larger than memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np

from flowerpress.simulations.tasks import options
from flowerpress.simulations.tasks.base import ShippedTaskFn
from flowerpress.simulations.tasks.network import Examples, NetworkTask
from flowerpress.simulations.tasks.npy_file import NpyRows, count_classes, open_examples
from flowerpress.simulations.tasks.partition import Indices

Files: TypeAlias = tuple[NpyRows, NpyRows]
"""Inputs and class numbers."""

CLIENT = "{client}"
"""Stands in `path` for the client's number, and on the server for `server`."""


class NpyTaskFn(ShippedTaskFn):
    """A network of one hidden layer, or softmax regression, on each client's own arrays.

    The server needs no data: `dim` and `classes` say what the model is. Where it has a folder with
    examples, it measures the model on them.
    """

    name = "npy"
    summary_line = "a small network (hidden) on x.npy and y.npy of each client's folder, numpy"
    citation = "Harris et al., Array programming with NumPy, Nature 585, 2020"
    options = {  # noqa: RUF012  (read only)
        "path": options.path,
        "dim": options.whole(1),
        "classes": options.whole(2),
        "hidden": options.whole(0),
        "batch_size": options.batch_size,
    }
    shared_out = False

    def __init__(
        self,
        *,
        path: str | None = None,
        partition: str = "iid",
        seed: int = 0,
        dim: int | None = None,
        classes: int | None = None,
        hidden: int = 0,
        batch_size: int | None = 32,
    ) -> None:
        """Remember the options: folders are opened where their data are used.

        Parameters
        ----------
        path : str
            The folder; `{client}` in it stands for the client's number.
        partition : str
            Nothing but the default: clients do not share data out.
        seed : int, default 0
            Fixes the initial model.
        dim, classes : int, optional
            Numbers in an example, and number of classes. Default: those of the data at hand, which
            must then be the same everywhere.
        hidden : int, default 0
            Width of the hidden layer; 0: none, softmax regression.
        batch_size : int or None, default 32
            Examples in a batch; None: all.
        """
        if partition != "iid":
            raise ValueError("task 'npy' has no partition: each client has its own folder")
        super().__init__(seed)
        self._path, self._dim, self._classes = path, dim, classes
        self._hidden, self._batch_size = hidden, batch_size
        self._held_out: NetworkTask | None = None

    def __call__(self, partition_id: int, num_partitions: int) -> NetworkTask:
        """Return the task of client `partition_id`, on the data of its folder."""
        self.check_client(partition_id, num_partitions)
        folder = self._folder(str(partition_id))
        if folder is None:
            raise ValueError(
                "task 'npy' needs path=FOLDER with x.npy and y.npy, on each client its own: "
                "--node-config 'path=\"FOLDER\"'"
            )
        return self._task(open_examples(folder), _test(folder))

    def check_host(self, partition_id: int) -> None:
        """Raise `ValueError` or `OSError` where a client's folder has no data that fit."""
        self(partition_id, partition_id + 1)

    def shards(self, num_partitions: int) -> list[Indices]:
        """Return for each client the indices of all examples in its folder."""
        if num_partitions > 1 and CLIENT not in (self._path or CLIENT):
            raise ValueError(
                f"all {num_partitions} clients would read the one folder {self._path}: write "
                f"{CLIENT} in path where it has the client's number"
            )
        self.held_out()  # whether the server knows the model
        sizes = [self(i, num_partitions).num_examples for i in range(num_partitions)]
        return [np.arange(size) for size in sizes]

    def held_out(self) -> NetworkTask:
        """Return what the server measures: the test data of its folder, or else all its data."""
        if self._held_out is None:
            folder = self._folder("server")
            test = _test(folder) if folder else None
            if test is None and folder and (folder / "x.npy").exists():
                test = open_examples(folder)
            self._held_out = self._task(test, test)
        return self._held_out

    def _folder(self, who: str) -> Path | None:
        return None if self._path is None else Path(self._path.replace(CLIENT, who))

    def _task(self, train: Files | None, test: Files | None) -> NetworkTask:
        dim, classes = self._dim, self._classes
        for inputs, targets in filter(None, (train, test)):
            dim = _checked_width(inputs, dim)
            classes = _checked_classes(targets, classes, grow=self._classes is None)
        if dim is None or classes is None:
            raise ValueError(
                "task 'npy': the server has no data to tell the model's size from: give dim "
                "(numbers in an example) and classes, such as dim=784 and classes=10"
            )
        nothing = np.empty((0, dim), np.float32), np.empty(0, np.int64)
        return NetworkTask(
            Examples(*(train or nothing)),
            classes=classes,
            hidden=self._hidden,
            batch_size=self._batch_size,
            seed=self._seed,
            test=Examples(*test) if test else None,
        )


def _test(folder: Path) -> Files | None:
    names = [name for name in ("x_test.npy", "y_test.npy") if (folder / name).exists()]
    return open_examples(folder, "_test") if names else None


def _checked_width(inputs: NpyRows, dim: int | None) -> int:
    width = inputs.shape[1]
    if dim not in (None, width):
        raise ValueError(f"{inputs.path}: an example has {width} numbers, but the model {dim}")
    return width


def _checked_classes(targets: NpyRows, classes: int | None, *, grow: bool) -> int:
    found = count_classes(targets)
    if not grow and classes is not None and found > classes:
        raise ValueError(f"{targets.path}: label {found - 1} is none of {classes} classes")
    return max(found, classes or 2)
