"""Tasks of a user's own, by the name of a file or a module."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from flowerpress.plugins import Plugins
from flowerpress.simulations.tasks import make_task_fn, task_names
from flowerpress.suggestions import unknown
from flowerpress.user_code import is_file, is_module, load_module, split_name

if TYPE_CHECKING:
    from flwr.app import ArrayRecord

    from flowerpress.clients import Task
    from flowerpress.simulations.recorder import EvaluateFn

DEFAULT = "task_fn"
GROUP = "flowerpress.tasks"  # of entry points, whose objects are task functions
_WAYS = "a file or a module with task_fn is named ./my_task.py, ./my_task.py:NAME or package.module"


class TaskSource(NamedTuple):
    """What a run needs of its task.

    Attributes
    ----------
    task_fn : callable
        ``task_fn(partition_id, num_partitions)`` returns a client's task.
    evaluate_fn : callable or None
        Evaluates the server's model, if there is such a thing.
    smoothness_of : callable or None
        ``smoothness_of(num_partitions)`` returns the constants that step sizes by theory need:
        a `Smoothness`, or L alone.
    """

    task_fn: Callable[[int, int], Task]
    evaluate_fn: EvaluateFn | None
    smoothness_of: Callable[..., Any] | None = None


def _read(_: str, loaded: Any, __: dict[str, Any]) -> Any:
    if not callable(loaded):
        raise ValueError(
            f"its entry point is a {type(loaded).__name__}, expected a function "
            "task_fn(partition_id, num_partitions)"
        )
    return loaded


@cache
def installed() -> Plugins[Any]:
    """Return the task functions of other packages, by name."""
    return Plugins("task", GROUP, task_names(), _read)


def all_task_names() -> list[str]:
    """Return the names of shipped tasks, and of tasks of other packages, sorted."""
    return sorted({*task_names(), *installed().found})


@dataclass(frozen=True)
class OwnTaskFn:
    """A user's task function, and the initial model that its module makes."""

    make: Callable[[int, int], Task]
    initial_arrays: Callable[[], ArrayRecord]

    def __call__(self, partition_id: int, num_partitions: int) -> Task:
        return self.make(partition_id, num_partitions)


def find_task(name: str, seed: int = 0, options: dict[str, Any] | None = None) -> TaskSource:
    """Return the task that a name stands for.

    Parameters
    ----------
    name : str
        A shipped task's name, or that of an entry point ``flowerpress.tasks`` of another package;
        or ``FILE.py``, ``FILE.py:NAME``, ``MODULE`` or ``MODULE:NAME``, where NAME is a task
        function, by default ``task_fn``. The function, or else its module, may have
        ``evaluate_fn(server_round, arrays)``, which evaluates the server's model,
        ``initial_arrays()``, which makes the first one (by default client 0's task does), and
        ``smoothness_of(num_partitions)``, see `TaskSource`.
    seed : int
        Of a shipped task.
    options : dict, optional
        Of a shipped task; one's own has none.

    Raises
    ------
    ValueError
        The name stands for nothing, an option is wrong, or the code raises: says where.
    """
    given = options or {}
    if name in task_names():
        installed().warn_if_taken(name)
        shipped = make_task_fn(name, seed=seed, **given)
        return TaskSource(shipped, shipped.evaluate_fn, shipped.smoothness_of)
    if name in installed().faults:
        raise ValueError(installed().faults[name])
    if name in installed().found:
        task_fn = installed().found[name]
        return _source(name, task_fn, sys.modules.get(task_fn.__module__), given)
    if not is_own(name):
        raise ValueError(f"{_unknown(name)}; {_WAYS}")
    source, wanted = split_name(name, DEFAULT)
    module = load_module(source)
    task_fn = getattr(module, wanted, None)
    if not callable(task_fn):
        what = "is not callable" if hasattr(module, wanted) else "is not there"
        raise ValueError(
            f"{source}: {wanted} {what}; define {wanted}(partition_id, num_partitions), "
            "which returns a client's task"
        )
    return _source(name, task_fn, module, given)


def _unknown(name: str) -> str:
    where = "`flowerpress list tasks` shows all"
    return unknown(f"unknown task {name!r}", name, all_task_names(), where=where)


def find_registered_task(
    name: str, seed: int = 0, options: dict[str, Any] | None = None
) -> TaskSource:
    """Return a shipped task or another package's, by name; see `find_task`.

    It is for names that come from a server: no file and no module is loaded by what it says.
    """
    if name not in (*all_task_names(), *installed().faults):
        raise ValueError(_unknown(name))
    return find_task(name, seed, options)


def _source(
    name: str, task_fn: Any, module: ModuleType | None, options: Mapping[str, Any]
) -> TaskSource:
    """Return what a run needs of a task function; raises `ValueError` where it is none."""
    if options:
        option = next(iter(options)).replace("_", "-")
        raise ValueError(
            f"{option!r} is an option of shipped tasks: {name} is your own, so set it there"
        )
    try:
        signature(task_fn).bind(0, 1)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must take (partition_id, num_partitions): {error}") from None
    # Where a class of tasks is the function, what it has is each task's.
    of_function = None if isinstance(task_fn, type) else task_fn
    found = {
        part: getattr(of_function, part, None) or getattr(module, part, None)
        for part in ("initial_arrays", "evaluate_fn", "smoothness_of")
    }
    if found["initial_arrays"] is not None:
        task_fn = OwnTaskFn(task_fn, found["initial_arrays"])
    return TaskSource(task_fn, found["evaluate_fn"], found["smoothness_of"])


def label_of(name: str) -> str:
    """Return a short name of a task, for folders and titles.

    Examples
    --------
    >>> label_of("digits"), label_of("tasks/mine.py:task_fn"), label_of("package.mine")
    ('digits', 'mine', 'mine')
    """
    source = split_name(name)[0]
    return Path(source).stem if is_file(source) else source.rpartition(".")[2]


def is_own(name: str) -> bool:
    """Whether a name means a file or a module, and not a shipped task."""
    source = split_name(name)[0]
    return is_file(source) or source != name or "." in source or is_module(source)
