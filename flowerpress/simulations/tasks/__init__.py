"""Shipped tasks, by name: problems of the papers, and on real data, that need no download.

A task function is called with `(partition_id, num_partitions)` for each client's task. It also has
`initial_arrays()`, the model all clients start from, and `evaluate_fn(server_round, arrays)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from flowerpress.simulations.tasks.base import ShippedTaskFn
from flowerpress.simulations.tasks.options import read_options
from flowerpress.suggestions import unknown

__all__ = [
    "ShippedTaskFn",
    "describe",
    "make_task_fn",
    "task_class",
    "task_names",
    "task_options",
]

# Imported on demand: the modules need packages (torch, scikit-learn) the others do without.
_TASKS = {
    "breast-cancer": "BreastCancerTaskFn",
    "digits": "DigitsTaskFn",
    "divergence": "DivergenceTaskFn",
    "libsvm": "LibsvmTaskFn",
    "mnist": "MnistTaskFn",
    "npy": "NpyTaskFn",
    "quadratic": "QuadraticTaskFn",
    "resnet": "ResnetTaskFn",
    "text": "TextTaskFn",
}


def task_names() -> list[str]:
    """Return the names of the shipped tasks.

    Examples
    --------
    >>> task_names()[:5]
    ['breast-cancer', 'digits', 'divergence', 'libsvm', 'mnist']
    """
    return sorted(_TASKS)


def make_task_fn(
    name: str, *, partition: str | None = None, seed: int = 0, **options: Any
) -> ShippedTaskFn:
    """Make the task function of a shipped task.

    Parameters
    ----------
    name : str
        One of `task_names()`.
    partition : str, optional
        `iid`, `contiguous`, `dirichlet:ALPHA` or `pathological:CLASSES`. Default: `iid`, and
        `by-text` for `text`.
    seed : int, default 0
        Fixes the shards and the initial model.
    **options
        The task's own options, see `task_options` and the page ``docs/tasks.md``. Values may be
        text. `batch_size` is 0 or None for all the data.

    Raises
    ------
    ValueError
        For an unknown name, option or value; says which are valid.
    FileNotFoundError
        If a data file is not there.
    ImportError
        If a package the task needs is not installed; says how to install it.
    """
    task: Any = task_class(name)
    given = read_options(name, task.options, options)
    if partition is not None:
        given["partition"] = partition
    made: ShippedTaskFn = task(seed=seed, **given)
    return made


def describe(name: str) -> tuple[str, str]:
    """Return the one-line summary and the citation of a shipped task.

    Raises
    ------
    ValueError
        For an unknown name; says which are valid.
    """
    task = task_class(name)
    return task.summary_line, task.citation


def task_options(name: str) -> list[str]:
    """Return the names of a shipped task's own options; raises `ValueError` for an unknown task."""
    return sorted(task_class(name).options)


def task_class(name: str) -> type[ShippedTaskFn]:
    """Return the class of a shipped task; raises `ValueError` for an unknown name."""
    if name not in _TASKS:
        where = "`flowerpress list tasks` shows all"
        raise ValueError(unknown(f"unknown task {name!r}", name, task_names(), where=where))
    module = import_module(f"flowerpress.simulations.tasks.{name.replace('-', '_')}")
    task: type[ShippedTaskFn] = getattr(module, _TASKS[name])
    return task
