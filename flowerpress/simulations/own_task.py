"""Tasks of a user's own, by the name of a file or a module."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flowerpress.simulations.tasks import make_task_fn, task_names
from flowerpress.suggestions import unknown
from flowerpress.user_code import is_file, load_module, split_name

if TYPE_CHECKING:
    from flowerpress.clients import Task
    from flowerpress.simulations.recorder import EvaluateFn

DEFAULT = "task_fn"
_WAYS = "a file or a module with task_fn is named ./my_task.py, ./my_task.py:NAME or package.module"


class TaskSource(NamedTuple):
    """What a run needs of its task.

    Attributes
    ----------
    task_fn : callable
        ``task_fn(partition_id, num_partitions)`` returns a client's task.
    evaluate_fn : callable or None
        Evaluates the server's model, if there is such a thing.
    """

    task_fn: Callable[[int, int], Task]
    evaluate_fn: EvaluateFn | None


def find_task(name: str, seed: int = 0, options: dict[str, Any] | None = None) -> TaskSource:
    """Return the task that a name stands for.

    Parameters
    ----------
    name : str
        A shipped task's name, or ``FILE.py``, ``FILE.py:NAME``, ``MODULE`` or ``MODULE:NAME``,
        where NAME is a task function, by default ``task_fn``. An ``evaluate_fn`` of the function's
        or else of its module's evaluates the server's model.
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
        shipped = make_task_fn(name, seed=seed, **given)
        return TaskSource(shipped, shipped.evaluate_fn)
    if not is_own(name):
        raise ValueError(f"{unknown(f'unknown task {name!r}', task_names())}; {_WAYS}")
    if given:
        option = next(iter(given)).replace("_", "-")
        raise ValueError(
            f"{option!r} is an option of shipped tasks: {name} is your own, so set it there"
        )
    source, wanted = split_name(name, DEFAULT)
    module = load_module(source)
    task_fn = getattr(module, wanted, None)
    if not callable(task_fn):
        what = "is not callable" if hasattr(module, wanted) else "is not there"
        raise ValueError(
            f"{source}: {wanted} {what}; define {wanted}(partition_id, num_partitions), "
            "which returns a client's task"
        )
    evaluate = getattr(task_fn, "evaluate_fn", None) or getattr(module, "evaluate_fn", None)
    return TaskSource(task_fn, evaluate)


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
    if is_file(source) or source != name or "." in source:
        return True
    return source.isidentifier() and (_beside(source) or find_spec(source) is not None)


def _beside(name: str) -> bool:
    return Path(f"{name}.py").is_file()
