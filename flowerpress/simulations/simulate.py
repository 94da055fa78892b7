"""`simulate`: a whole federated run in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord

from flowerpress.clients import Task, client_app
from flowerpress.server.options import require
from flowerpress.server.rounds import ShouldStop
from flowerpress.simulations.engine import InProcessGrid, NodeConfig
from flowerpress.simulations.faults import Faults
from flowerpress.simulations.recorded import run_recorded
from flowerpress.simulations.recorder import EvaluateFn, OnRound, Recorder
from flowerpress.simulations.result import SimulationResult
from flowerpress.simulations.tasks import ShippedTaskFn
from flowerpress.strategies import Checkpoints, CompressedStrategy
from flowerpress.worker.node import IN_SIMULATIONS, check_node, warn_of_keys

TaskFn = Callable[[int, int], Task]


def simulate(
    strategy: CompressedStrategy,
    task_fn: TaskFn,
    num_clients: int = 4,
    num_rounds: int = 20,
    seed: int = 0,
    evaluate_fn: EvaluateFn | None = None,
    *,
    threads: int | None = None,
    state_dir: str | Path | None = None,
    node_configs: Mapping[int, NodeConfig] | None = None,
    faults: Faults | None = None,
    on_round: OnRound | None = None,
    node_evaluate_fn: EvaluateFn | None = None,
    train_config: Mapping[str, Any] | None = None,
    evaluate_config: Mapping[str, Any] | None = None,
    timeout: float = 3600.0,
    verbose: bool = False,
    checkpoint: str | Path | Checkpoints | None = None,
    resume: bool = False,
    checkpoint_every: int = 1,
    should_stop: ShouldStop | None = None,
) -> SimulationResult:
    """Run `strategy` on `num_clients` clients in this process.

    The same ClientApp and strategy run unchanged on Flower's engines; messages cross as bytes.

    Parameters
    ----------
    strategy : CompressedStrategy
        From `make_strategy`. Its ``seed`` is set to `seed`; where its minimum numbers of nodes are
        above `num_clients`, they are taken as that.
    task_fn : callable
        ``task_fn(partition_id, num_partitions)`` returns a client's `Task`. The initial model is
        ``task_fn.initial_arrays()`` if it has that, else client 0's ``initial_arrays()``.
    num_clients, num_rounds, seed : int
    evaluate_fn : callable, optional
        ``evaluate_fn(server_round, arrays)`` returns a MetricRecord or None, as in Flower, or any
        dictionary of numbers: called for round 0 (the initial model), then after each round.
    threads : int, optional
        Clients computed at the same time; the result does not depend on it.
    state_dir : path, optional
        Keep the workers' memory on disk there instead of in this process. It is written, and not
        flushed: ``node_configs={0: {"state-sync": True}}`` makes client 0 wait for the disk.
    node_configs : mapping, optional
        Node config entries by client, for example ``{0: {"compressor": "topk:0.001"}}``.
    faults : Faults, optional
        Messages to lose and clients to kill.
    on_round : callable, optional
        Called with each round's `RoundRecord` as soon as it is there, such as a tracker of
        `make_tracker`. Has it a method ``resumed``, a run that goes on from a checkpoint calls that
        with the records of the rounds before.
    node_evaluate_fn : callable, optional
        Like `evaluate_fn`, for strategies whose nodes train models of their own: called with each
        of these in the rounds in which they were collected.
    train_config, evaluate_config : mapping, optional
        As Flower's: what tasks with a `configure` hear before each round.
    timeout : float
        Seconds to wait for a round's replies.
    verbose : bool
        Let Flower log every round.
    checkpoint : path or Checkpoints, optional
        Folder in which the run is saved after each round; the workers' memory too, unless
        `state_dir` says where.
    resume : bool
        Go on from what is in that folder; where nothing is, begin.
    checkpoint_every : int
        Rounds between checkpoints, see `Checkpoints`.
    should_stop : callable, optional
        ``should_stop(server_round, result)`` ends the run after a round by returning True, as in
        Flower 1.43: `result` is Flower's, of the rounds so far, and must not be changed.

    Returns
    -------
    SimulationResult

    Raises
    ------
    ValueError
        `num_clients` or `num_rounds` is out of range, the algorithm cannot use an option, a node
        config has a value that cannot be, or a checkpoint is of another run.
    RuntimeError
        All clients of a round failed, or cannot take part: says what the first of them said.

    Notes
    -----
    Whatever ends a run before its time, Ctrl-C too, is raised with an attribute ``result``: the
    `SimulationResult` up to the last round that had ended. In a notebook that is
    ``sys.last_value.result``.

    Examples
    --------
    >>> import numpy as np
    >>> from flowerpress.clients import FunctionTask
    >>> from flowerpress.strategies import make_strategy
    >>> def task_fn(i, n):  # client i pulls towards (i, i)
    ...     return FunctionTask(np.zeros(2), lambda x, batch: (0.0, x - i))
    >>> result = simulate(make_strategy("ef21", compressor="topk:k=1", lr=0.2), task_fn, 3, 100)
    >>> result.arrays["x"].numpy().round(6)
    array([1., 1.])
    """
    num_clients, num_rounds, seed = _counts(num_clients, num_rounds, seed)
    _check_nodes(node_configs or {})
    strategy.reset()
    strategy.seed = seed
    recorder = Recorder(strategy, evaluate_fn, on_round, node_evaluate_fn)
    if not isinstance(checkpoint, Checkpoints) and checkpoint is not None:
        checkpoint = Checkpoints(Path(checkpoint), checkpoint_every, resume)
    if checkpoint is None and resume:
        raise ValueError("resume needs the folder of the checkpoints: give checkpoint too")
    if checkpoint is not None:
        checkpoint.facts, checkpoint.beside = {**checkpoint.facts, "clients": num_clients}, recorder
        state_dir = checkpoint.folder / "clients" if state_dir is None else state_dir
    common: dict[str, str | bool] = {}
    if state_dir is not None:
        # One process computes all: what a power cut takes of the clients it takes of the run.
        common = {"state-store": "disk", "state-dir": str(state_dir), "state-sync": False}
    with (
        InProcessGrid(
            lambda: client_app(task_fn),
            num_clients,
            threads=threads,
            node_config=common,
            node_configs=node_configs,
            faults=faults,
            run_id=checkpoint.run_id if checkpoint else None,
        ) as grid,
        _quiet_flower(quiet=not verbose),
        _for_as_long(strategy, num_clients, checkpoint),
    ):
        recorder.grid = grid
        initial = initial_arrays(task_fn, num_clients)

        return run_recorded(
            strategy,
            grid,
            initial,
            recorder,
            num_rounds=num_rounds,
            timeout=timeout,
            clients=num_clients,
            configs=(train_config, evaluate_config),
            should_stop=should_stop,
        )


def _counts(num_clients: int, num_rounds: int, seed: int) -> list[int]:
    """Return whole numbers, numpy's too, as Python's own; raises `ValueError` at others."""
    given: dict[str, Any] = {"num_clients": num_clients, "num_rounds": num_rounds, "seed": seed}
    found = []
    for name, value in given.items():
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        require(whole and 0 <= value < 2**63, name, value, "a whole number >= 0")
        found.append(int(value))
    return found


def _check_nodes(node_configs: Mapping[int, NodeConfig]) -> None:
    """Raise `ValueError` for a value that no client could use, and warn of what looks mistyped."""
    for client, config in node_configs.items():
        try:
            check_node(config, IN_SIMULATIONS)
        except ValueError as error:
            raise ValueError(f"node_configs: client {client}: {error}") from None
    warn_of_keys(dict.fromkeys(key for config in node_configs.values() for key in config))


def initial_arrays(task_fn: TaskFn, num_clients: int) -> ArrayRecord:
    """Return the model that a run starts from; raises `ValueError` where a task is none."""
    if isinstance(task_fn, ShippedTaskFn):
        task_fn.expect(num_clients)
    # A class of tasks is a task function, too: its `initial_arrays` is a task's.
    make = None if isinstance(task_fn, type) else getattr(task_fn, "initial_arrays", None)
    if make is None:
        task = task_fn(0, num_clients)
        make = getattr(task, "initial_arrays", None)
        if make is None:
            raise ValueError(f"task_fn(0, {num_clients}) gave a {type(task).__name__}, not a Task")
    arrays = make()
    if not isinstance(arrays, ArrayRecord):
        raise ValueError(f"initial_arrays() gave a {type(arrays).__name__}, not an ArrayRecord")
    return arrays


@contextmanager
def _for_as_long(
    strategy: CompressedStrategy, num_clients: int, checkpoints: Checkpoints | None
) -> Iterator[None]:
    """Ask for no more nodes than there are, and save checkpoints, for as long as this lasts."""
    names = ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes")
    before = {name: getattr(strategy, name) for name in (*names, "checkpoints")}
    for name in names:
        setattr(strategy, name, min(before[name], num_clients))
    strategy.checkpoints = checkpoints
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(strategy, name, value)


@contextmanager
def _quiet_flower(*, quiet: bool) -> Iterator[None]:
    """Keep Flower's round-by-round log off the screen."""
    logger = logging.getLogger("flwr")
    level = logger.level
    if quiet:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
