"""A comparison in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowerpress.simulations.compare.comparison import Comparison, OnRuns, Plan
from flowerpress.simulations.compare.methods import Method, parse_method
from flowerpress.simulations.compare.settings import Settings
from flowerpress.simulations.compare.written import write


def compare(
    task: str,
    methods: Sequence[str | Method],
    folder: str | Path,
    *,
    jobs: int | None = None,
    resume: bool = False,
    on_runs: OnRuns | None = None,
    **settings: Any,
) -> Comparison:
    """Compare methods on a task, and write report, tables and figures into a folder.

    Processes do the runs, so a script must call this below ``if __name__ == "__main__":``.

    Parameters
    ----------
    task : str
        A shipped task, another package's, or one's own (``./my_task.py``).
    methods : sequence of str or Method
        Such as ``"ef14 topk:0.01 lr=0.1"``: see `parse_method`.
    folder : str or Path
        See `written` for what it gets.
    jobs : int, optional
        Runs at a time. Default: as many as this machine has cores and memory for.
    resume : bool (default: False)
        Whether to go on with what the folder has.
    on_runs : callable, optional
        Is told of the runs that are to be, and of each that has ended.
    **settings
        Those of `Settings`: seeds, tuning_seeds, lrs, clients, rounds, options, task_options,
        metric, targets, link.

    Raises
    ------
    ValueError, OSError, ImportError
        Something is wrong with a method, the task or the folder: nothing has run.
    """
    named = tuple(parse_method(each) if isinstance(each, str) else each for each in methods)
    chosen = Settings(task=task, methods=named, **settings)
    plan = Plan(chosen)
    chosen.keep(Path(folder), resume=resume)
    comparison = plan.run(Path(folder), jobs, on_runs)
    write(Path(folder), comparison)
    return comparison
