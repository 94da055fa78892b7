"""Arms from the names of tasks, strategies and their options."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flowerpress.server.theory import Smoothness
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.options import Option
from flowerpress.simulations.reproduce.claims import Arm
from flowerpress.simulations.tasks import make_task_fn
from flowerpress.strategies import strategy_options

Options = Mapping[str, Option]
Grid = tuple[float, ...]


def arm(
    name: str,
    strategy: str,
    compressor: str | None = None,
    grid: Grid = (),
    *,
    task: str,
    task_options: Options | None = None,
    clients: int,
    rounds: int,
    **options: Option,
) -> Arm:
    """Return a method's row.

    Parameters
    ----------
    name, strategy, compressor, task, task_options, clients, rounds
        As of `Experiment`; the name is the row's.
    grid : tuple of float
        As of `Arm`.
    **options
        Of the strategy. All workers count alike unless it says otherwise.
    """
    given = dict(task_options or {})
    alike: Options = {"weights": "uniform"} if "weights" in strategy_options(strategy) else {}

    def make(seed: int) -> Experiment:
        return Experiment(
            task=task,
            strategy=strategy,
            compressor=compressor,
            clients=clients,
            rounds=rounds,
            seed=seed,
            task_options=given,
            strategy_options={**alike, **options},
        )

    return Arm(name, make, grid)


@lru_cache(maxsize=64)
def smoothness(
    task: str, options: tuple[tuple[str, Option], ...], clients: int, seed: int
) -> Smoothness:
    """Return a task's smoothness constants; raises `ValueError` where it knows none."""
    given: dict[str, Any] = dict(options)
    found = make_task_fn(task, seed=seed, **given).smoothness_of(clients)
    if found is None:
        raise ValueError(f"task {task!r} knows no smoothness constants")
    return found


def vision(quick: bool, rounds: int, **task: Option) -> tuple[dict[str, Any], str]:
    """Return arguments of `arm` for images shared out among 8 workers, and what they are in words.

    Quick it is a small problem and fewer rounds.

    Parameters
    ----------
    quick : bool
    rounds : int
        When quick; else 300.
    **task
        Further options of the task.
    """
    common: dict[str, Any] = {"clients": 8, "task_options": {"batch_size": 32, **task}}
    if quick:
        said = f"softmax regression on digits, 8 workers, batch 32, {rounds} rounds"
        return {**common, "task": "digits", "rounds": rounds}, said
    common["task_options"]["model"] = "mlp"
    said = "one hidden layer on MNIST's 5,000 images (d = 50,890), 8 workers, batch 32, 300 rounds"
    return {**common, "task": "mnist", "rounds": 300}, said


def powers(first: int, last: int) -> Grid:
    """Return powers of two as a grid.

    Examples
    --------
    >>> powers(-2, 1)
    (0.25, 0.5, 1.0, 2.0)
    """
    return tuple(2.0**i for i in range(first, last + 1))
