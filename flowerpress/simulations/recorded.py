"""A run of a strategy whose rounds are recorded, and what it gives, whatever ends it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid

from flowerpress.protocol import Ledger
from flowerpress.simulations.recorder import Recorder, RoundRecord
from flowerpress.simulations.summary import summary
from flowerpress.simulations.verdict import Verdict, judge
from flowerpress.strategies import CompressedStrategy
from flowerpress.strategies.attendance import Attendance
from flowerpress.strategies.rounds import ShouldStop


@dataclass(repr=False)
class SimulationResult:
    """A run: its model, bytes and history. `print` shows a short table of it.

    Attributes
    ----------
    arrays : ArrayRecord
        The final model; of a run that was stopped, the model after the last round in `history`.
    ledger : Ledger
        Every message's bytes.
    history : list of RoundRecord
        What each round gave, the initial model's first.
    seconds : float
        Wall-clock time.
    strategy : str
    clients, rounds : int
        Number of clients, and of the rounds that were asked for.
    attendance : Attendance
        Who took part.
    stopped : BaseException or None
        What ended the run before its time.
    """

    arrays: ArrayRecord
    ledger: Ledger
    history: list[RoundRecord] = field(default_factory=list)
    seconds: float = 0.0
    strategy: str = ""
    clients: int = 0
    rounds: int = 0
    attendance: Attendance = field(default_factory=Attendance)
    stopped: BaseException | None = None

    @property
    def done(self) -> int:
        """Rounds that have ended."""
        return self.history[-1].round if self.history else 0

    @property
    def verdict(self) -> Verdict:
        """Whether it was worth anything, and who was left out."""
        return judge(self.history, self.attendance, self.stopped)

    def __repr__(self) -> str:
        return summary(self)


def result_of(error: BaseException | None) -> SimulationResult | None:
    """Return the result so far of the run that an exception ended, if it ended one.

    Another exception may have come while it was being ended, a second Ctrl-C say.
    """
    while error is not None:
        result = getattr(error, "result", None)
        if isinstance(result, SimulationResult):
            return result
        error = error.__context__
    return None


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
            time.perf_counter() - start,
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
