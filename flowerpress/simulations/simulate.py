"""`simulate`: a whole federated run in this process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import ArrayRecord, MetricRecord

from flowerpress.clients import Task, client_app
from flowerpress.protocol import Ledger
from flowerpress.simulations.engine import InProcessGrid, NodeConfig
from flowerpress.simulations.faults import Faults
from flowerpress.strategies import CompressedStrategy

TaskFn = Callable[[int, int], Task]
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


@dataclass(frozen=True)
class RoundRecord:
    """What one round gave.

    Parameters
    ----------
    round : int
        0 is the initial model.
    metrics : dict
        What ``evaluate_fn`` returned; numbers only.
    train : dict
        The workers' averaged training metrics, such as "loss".
    up_bytes, down_bytes : int
        Payload and framing of this round alone, as sent.
    seconds : float
        Since the round before.
    up_collected : int
        Of the uplink's bytes, those of nodes' own models that were asked for (gossip).
    nodes : dict
        What ``node_evaluate_fn`` returned for each node's own model, by client, where these were
        collected.
    """

    round: int
    metrics: dict[str, float]
    train: dict[str, float]
    up_bytes: int
    down_bytes: int
    seconds: float
    up_collected: int = 0
    nodes: dict[int, dict[str, float]] = field(default_factory=dict)


@dataclass
class SimulationResult:
    """A finished run: final model, bytes, history, and wall-clock seconds."""

    arrays: ArrayRecord
    ledger: Ledger
    history: list[RoundRecord] = field(default_factory=list)
    seconds: float = 0.0


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
    on_round: Callable[[RoundRecord], None] | None = None,
    node_evaluate_fn: EvaluateFn | None = None,
    timeout: float = 3600.0,
    verbose: bool = False,
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
        ``evaluate_fn(server_round, arrays)`` returns a MetricRecord or None, as in Flower: called
        for round 0 (the initial model), then after each round.
    threads : int, optional
        Clients computed at the same time; the result does not depend on it.
    state_dir : path, optional
        Keep the workers' memory on disk there instead of in this process.
    node_configs : mapping, optional
        Node config entries by client, for example ``{0: {"compressor": "topk:0.001"}}``.
    faults : Faults, optional
        Messages to lose and clients to kill.
    on_round : callable, optional
        Called with each round's `RoundRecord` as soon as it is there.
    node_evaluate_fn : callable, optional
        Like `evaluate_fn`, for strategies whose nodes train models of their own: called with each
        of these in the rounds in which they were collected.
    timeout : float
        Seconds to wait for a round's replies.
    verbose : bool
        Let Flower log every round.

    Returns
    -------
    SimulationResult

    Raises
    ------
    ValueError
        `num_clients` or `num_rounds` is out of range, or the algorithm cannot use an option.
    RuntimeError
        All clients of a round failed, or cannot take part: says what the first of them said.

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
    if num_rounds < 0:
        raise ValueError(f"num_rounds is {num_rounds}: expected 0 or more")
    strategy.reset()
    strategy.seed = seed
    common: dict[str, str] = {}
    if state_dir is not None:
        common = {"state-store": "disk", "state-dir": str(state_dir)}
    recorder = Recorder(strategy, evaluate_fn, on_round, node_evaluate_fn)
    start = time.perf_counter()
    with (
        InProcessGrid(
            lambda: client_app(task_fn),
            num_clients,
            threads=threads,
            node_config=common,
            node_configs=node_configs,
            faults=faults,
        ) as grid,
        _quiet_flower(quiet=not verbose),
        _at_most(strategy, num_clients),
    ):
        initial = _initial_arrays(task_fn, num_clients)
        result = strategy.start(
            grid,
            initial,
            num_rounds=num_rounds,
            timeout=timeout,
            evaluate_fn=recorder,
        )
    arrays = result.arrays if len(result.arrays) else initial
    return SimulationResult(arrays, strategy.ledger, recorder.history, time.perf_counter() - start)


def _initial_arrays(task_fn: TaskFn, num_clients: int) -> ArrayRecord:
    make = getattr(task_fn, "initial_arrays", None)
    arrays = make() if make is not None else task_fn(0, num_clients).initial_arrays()
    if not isinstance(arrays, ArrayRecord):
        raise TypeError(f"initial_arrays() gave a {type(arrays).__name__}, not an ArrayRecord")
    return arrays


class Recorder:
    """Flower's evaluate_fn: calls the user's, and notes bytes and time."""

    def __init__(
        self,
        strategy: CompressedStrategy,
        evaluate_fn: EvaluateFn | None,
        on_round: Callable[[RoundRecord], None] | None,
        node_evaluate_fn: EvaluateFn | None = None,
    ) -> None:
        self._strategy, self._evaluate_fn, self._on_round = strategy, evaluate_fn, on_round
        self._node_evaluate_fn = node_evaluate_fn
        self._last = time.perf_counter()
        self.history: list[RoundRecord] = []

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        metrics = self._evaluate_fn(server_round, arrays) if self._evaluate_fn else None
        nodes = self._nodes(server_round) if server_round else {}
        used = self._strategy.ledger.round_bytes(server_round)
        now = time.perf_counter()
        record = RoundRecord(
            server_round,
            _numbers(metrics),
            _numbers(self._strategy.train_metrics if server_round else None),
            used.up_bytes,
            used.down_bytes,
            now - self._last,
            used.up_collected,
            nodes,
        )
        self._last = now
        self.history.append(record)
        if self._on_round is not None:
            self._on_round(record)
        return metrics

    def _nodes(self, server_round: int) -> dict[int, dict[str, float]]:
        """Evaluate the nodes' own models, where they were collected."""
        evaluate = self._node_evaluate_fn
        if evaluate is None:
            return {}
        models = self._strategy.local_models()
        return {i: _numbers(evaluate(server_round, arrays)) for i, arrays in models}


def _numbers(metrics: Mapping[str, object] | None) -> dict[str, float]:
    return {
        str(name): float(value)
        for name, value in (metrics or {}).items()
        if isinstance(value, int | float)
    }


@contextmanager
def _at_most(strategy: CompressedStrategy, num_clients: int) -> Iterator[None]:
    """Ask for no more nodes than there are, for as long as this lasts."""
    names = ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes")
    before = {name: getattr(strategy, name) for name in names}
    for name, count in before.items():
        setattr(strategy, name, min(count, num_clients))
    try:
        yield
    finally:
        for name, count in before.items():
            setattr(strategy, name, count)


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
