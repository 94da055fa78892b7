"""A run of a strategy whose rounds are recorded, whatever ends it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid

from flowerpress.server.rounds import ShouldStop
from flowerpress.simulations.recorder import Recorder
from flowerpress.simulations.result import SimulationResult
from flowerpress.strategies import CompressedStrategy


def run_recorded(
    strategy: CompressedStrategy,
    grid: Grid,
    initial: ArrayRecord,
    recorder: Recorder,
    *,
    num_rounds: int,
    timeout: float,
    clients: int = 0,
    configs: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] = (None, None),
    should_stop: ShouldStop | None = None,
) -> SimulationResult:
    """Run a strategy on a grid, and return what its recorder has.

    What ends the run before its time is raised with the result so far, as by `simulate`.

    Parameters
    ----------
    strategy : CompressedStrategy
    grid : Grid
    initial : ArrayRecord
        The model to start from.
    recorder : Recorder
        Evaluates it.
    num_rounds : int
    timeout : float
        Seconds to wait for a round's replies.
    clients : int
        How many there are; 0: as many as were met.
    configs : pair of mapping
        Flower's ``train_config`` and ``evaluate_config``.
    should_stop : callable, optional
        Flower's: whether the run ends with this round.
    """
    start = time.perf_counter()

    def so_far(arrays: ArrayRecord, stopped: BaseException | None = None) -> SimulationResult:
        return SimulationResult(
            arrays if len(arrays) else initial,
            strategy.ledger,
            recorder.history,
            recorder.seconds_before + time.perf_counter() - start,
            strategy.name,
            clients or len(strategy.population.clients),
            num_rounds,
            strategy.run.attendance,
            stopped,
        )

    try:
        train, evaluate = (ConfigRecord(dict(config or {})) for config in configs)
        result = strategy.start(
            grid,
            initial,
            num_rounds=num_rounds,
            timeout=timeout,
            train_config=train,
            evaluate_config=evaluate,
            evaluate_fn=recorder,
            should_stop=should_stop,
        )
    except BaseException as error:
        error.result = so_far(recorder.model(), error)  # type: ignore[attr-defined]
        raise
    return so_far(result.arrays)
