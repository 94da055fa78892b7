"""Whether runs are of one task, however its file was named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from flowerpress.simulations.compare.runs import source_hash
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.own_task import DEFAULT, all_task_names
from flowerpress.user_code import is_file, split_name


def require_one_task(outcomes: Sequence[Outcome]) -> None:
    """Raise `ValueError` where runs are of different tasks: says which, and what to do.

    A file of one's own is named as it lies from where a run was started, and by `serve` with its
    whole path, on another machine maybe, where it is a copy. So files are compared by their names
    without a folder, by their functions, and by what is in those that are there from here.
    """
    tasks = Counter(outcome.experiment.task for outcome in outcomes)
    if same_task(list(tasks)):
        return
    told = ", ".join(f"{task} ({count}x)" for task, count in sorted(tasks.items()))
    alike = len({_short(task) for task in tasks}) == 1
    why = " (files of one name, and not of one content)" if alike else ""
    raise ValueError(
        f"runs are of different tasks{why}: {told}; name the folders of one of them (they have the "
        "task in their names, as in runs/*-digits-*)"
    )


def same_task(names: Sequence[str]) -> bool:
    """Return whether names stand for one task.

    Examples
    --------
    >>> same_task(["./mine.py", "/srv/app/mine.py:task_fn"]), same_task(["a.py", "a.py:other"])
    (True, False)
    >>> same_task(["digits", "digits"]), same_task(["digits", "mnist"])
    (True, False)
    """
    short = {_short(name) for name in names}
    content = {source_hash(str(path)) for name in names if (path := _file(name)) is not None}
    return len(short) <= 1 and len(content) <= 1


def _short(name: str) -> tuple[str, str]:
    """Return a file's name without its folder, or a task's, and its function."""
    if name in all_task_names():
        return name, ""
    source, function = split_name(name, DEFAULT)
    # Both slashes: results may come from another system.
    return source.replace("\\", "/").rpartition("/")[2] if is_file(source) else source, function


def _file(name: str) -> Path | None:
    """Return the file that a name means, where it is there."""
    source, _ = split_name(name, DEFAULT)
    return Path(source) if is_file(source) and Path(source).is_file() else None
