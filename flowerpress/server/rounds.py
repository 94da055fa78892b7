"""The rounds of a run, from the beginning or from a checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from flowerpress.protocol import LedgerRow, MetricReader
from flowerpress.protocol.grids import allow_answers, checkpoints_of
from flowerpress.server import saved
from flowerpress.server.checkpoints import Checkpoints
from flowerpress.server.resumable import Resumable
from flowerpress.server.tree import Tree
from flowerpress.server.wrapped import refuse_other_arrays

EvaluateFn = Callable[[int, ArrayRecord], Mapping[str, Any] | None]
"""Flower's: what it returns may be a `MetricRecord` or any mapping of names to numbers."""
ShouldStop = Callable[[int, Result], bool]
_METRICS = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")
_LARGE = 2**26  # bytes of a first model that is not kept beside the strategy's own
_FIRST_ANSWER = 2**22  # bytes that a node may say of itself, besides what the model's size allows
# The rounds' log goes where that of Flower's own strategies does.
flower = logging.getLogger("flwr")
log = logging.getLogger("flowerpress")
closing = logging.getLogger("flowerpress.closing")
"""Who was left out of a run, when it has ended."""


@dataclass
class Rounds:
    """A run of a strategy on a grid; the fields are what Flower's `Strategy.start` takes."""

    strategy: Resumable
    grid: Grid
    initial: ArrayRecord
    num_rounds: int
    timeout: float
    train_config: ConfigRecord
    evaluate_config: ConfigRecord
    evaluate_fn: EvaluateFn | None
    should_stop: ShouldStop | None = None
    result: Result = field(init=False)
    saved_round: int = -1  # of the last checkpoint
    saved_rows: int = 0  # of the ledger, in it
    stopped: bool = False  # before the last round
    reader: MetricReader = field(default_factory=lambda: MetricReader("evaluate_fn"))
    checkpoints: Checkpoints | None = field(init=False)
    stepped: bool = False  # whether the model is another than the run began with
    _unsent: list[tuple[str, Array | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not (self.should_stop is None or callable(self.should_stop)):
            raise TypeError(f"should_stop is {self.should_stop!r}: expected a function, or None")
        self.result = Result(self.initial)
        self._size = sum(len(array.data) for array in self.initial.values())  # bytes
        offered = checkpoints_of(self.grid)  # asked for in any case: a grid counts its strategies
        self.checkpoints = self.strategy.checkpoints or offered
        allow_answers(self.grid, _FIRST_ANSWER + 2 * self._size)

    def run(self) -> Result:
        """Run the rounds that are left, and return Flower's result of all."""
        start = time.perf_counter()
        self._announce()
        if not self._resume():
            self._evaluate(0)
            self._save(0)
        begun = server_round = max(self.saved_round, 0)
        while server_round < self.num_rounds and not self.stopped:
            server_round += 1
            self._round(server_round)
        if server_round > begun:
            self._close()
        flower.info("")
        flower.info("Run finished in %.2f s", time.perf_counter() - start)
        for line in ("", *str(self.result).splitlines()):
            flower.info("\t%s", line)
        return self.result

    def _round(self, server_round: int) -> None:
        flower.info("")
        flower.info("[ROUND %d/%d]", server_round, self.num_rounds)
        self._train(server_round)
        self._federated(server_round)
        self._evaluate(server_round)
        if self.should_stop is not None and self.should_stop(server_round, self.result):
            self._stop(server_round)
        self._save(server_round)

    def _stop(self, server_round: int) -> None:
        """End the run with this round, as a last round would have."""
        flower.info("Stopping early after round %d", server_round)
        self.stopped = True
        arrays = self.strategy.conclude(server_round, self.grid)
        if arrays is not None:
            self.result.arrays, self.stepped = arrays, True
            self._evaluate(server_round)

    def _announce(self) -> None:
        size = self._size / 2**20
        flower.info("Starting %s:", type(self.strategy).__name__)
        flower.info("\t├── Number of rounds: %d", self.num_rounds)
        flower.info("\t├── ArrayRecord (%.2f MB)", size)
        flower.info("\t├── ConfigRecord (train): %s", dict(self.train_config) or "empty")
        flower.info("\t├── ConfigRecord (evaluate): %s", dict(self.evaluate_config) or "empty")
        self.strategy.summary()

    def _train(self, server_round: int) -> None:
        strategy = self.strategy
        # Nobody holds the orders, or the arrays, while the model takes its step: it then moves
        # where it is.
        replies = self.grid.send_and_receive(
            strategy.configure_train(
                server_round, self.result.arrays, self.train_config, self.grid
            ),
            timeout=self.timeout,
        )
        self._let_go()
        arrays, metrics = strategy.aggregate_train(server_round, replies)
        if arrays is not None:
            if not strategy.looping:
                refuse_other_arrays(strategy.name, strategy.run, server_round, arrays)
            self.result.arrays, self.stepped = arrays, True
        elif not self.result.arrays:
            self.result.arrays = self._arrays()
        if metrics is not None:
            flower.info("\t└──> Aggregated MetricRecord: %s", metrics)
            self.result.train_metrics_clientapp[server_round] = metrics

    def _let_go(self) -> None:
        """Hold the model once: in the strategy, where it has begun."""
        run = self.strategy.run
        if run.model is None or not self.strategy.looping:
            return
        if self.stepped:
            self.result.arrays = ArrayRecord()
        elif self.initial and self._size >= _LARGE and run.model.layout.exact:
            # What clients have and never send stays as it was given; the rest is the model's own.
            names = {entry.name for entry in run.model.layout.entries}
            self.initial = ArrayRecord()
            self._unsent = [(n, None if n in names else a) for n, a in self.result.arrays.items()]
            self.result.arrays = run.initial = ArrayRecord()

    def _arrays(self) -> ArrayRecord:
        """Return the model as it is, as it would be returned had nothing been let go."""
        arrays = self.strategy.model.arrays()
        if self.stepped:
            return arrays
        given = ArrayRecord()
        for name, array in self._unsent:
            given[name] = arrays[name] if array is None else array
        return given

    def _federated(self, server_round: int) -> None:
        strategy = self.strategy
        orders = strategy.configure_evaluate(
            server_round, self.result.arrays, self.evaluate_config, self.grid
        )
        orders = list(orders)
        replies = self.grid.send_and_receive(orders, timeout=self.timeout) if orders else []
        metrics = strategy.aggregate_evaluate(server_round, replies)
        if metrics is not None:
            flower.info("\t└──> Aggregated MetricRecord: %s", metrics)
            self.result.evaluate_metrics_clientapp[server_round] = metrics

    def _evaluate(self, server_round: int) -> None:
        if self.evaluate_fn is None:
            return
        found = self.evaluate_fn(server_round, self.result.arrays)
        if found is not None:
            metrics = MetricRecord(dict(self.reader.read(found)))
            flower.info("Global evaluation: %s", metrics)
            self.result.evaluate_metrics_serverapp[server_round] = metrics

    def _close(self) -> None:
        """Say who was left out, now that all rounds have ended."""
        run, name_of = self.strategy.run, getattr(self.grid, "name_of", "node {}".format)
        strangers = run.population.strangers(self.grid.get_node_ids())
        run.attendance.strangers = {name_of(node): why for node, why in strangers.items()}
        for line in run.attendance.lines():
            closing.warning("%s", line)

    def _save(self, server_round: int) -> None:
        """Save a checkpoint where one is due."""
        checkpoints, strategy = self.checkpoints, self.strategy
        last = server_round if self.stopped else self.num_rounds
        if checkpoints is None or not checkpoints.due(server_round, last):
            return
        beside, after, ledger = checkpoints.beside, self.saved_round, strategy.run.exchange.ledger
        rows = [list(asdict(row).values()) for row in ledger.rows[self.saved_rows :]]
        line: dict[str, Any] = {"rows": rows, "beside": beside.news(after) if beside else []}
        for name in _METRICS:
            metrics = getattr(self.result, name)
            line[name] = {r: dict(metrics[r]) for r in metrics if r > after}
        state: dict[str, Tree] = {
            "round": server_round,
            "stopped": self.stopped,
            "stepped": self.stepped,
            "facts": dict(checkpoints.facts),
            "beside": beside.state() if beside else None,
            **saved.state_of(strategy),
        }
        own = type(strategy).state is not Resumable.state  # who saves it, knows what is saved
        if (model := strategy.run.model) is not None and not own:
            strategy.run.unkept.warn(strategy, state["state"], model.x.size)
        checkpoints.save(server_round, state, line)
        self.saved_round, self.saved_rows = server_round, len(ledger.rows)

    def _resume(self) -> bool:
        """Go back to the last checkpoint, if there is one; whether there was."""
        checkpoints, strategy = self.checkpoints, self.strategy
        found = checkpoints.open() if checkpoints else None
        if checkpoints is None or found is None:
            return False
        saved.check(found, strategy, checkpoints.facts)
        saved.restore(found, strategy, self.initial)
        for line in checkpoints.lines:
            for row in line["rows"]:
                strategy.run.exchange.ledger.add(LedgerRow(*row))
            for name in _METRICS:
                metrics = {int(r): MetricRecord(each) for r, each in line[name].items()}
                getattr(self.result, name).update(metrics)
            if checkpoints.beside:
                checkpoints.beside.hear(line["beside"])
        if checkpoints.beside:
            checkpoints.beside.restore(found["beside"])
        if found["stepped"]:
            self.result.arrays, self.stepped = strategy.model.arrays(), True
        self.saved_round, self.saved_rows = found["round"], len(strategy.run.exchange.ledger.rows)
        self.stopped = self.should_stop is not None and bool(found.get("stopped"))
        what = "stopped early: without should_stop it goes on" if self.stopped else "going on"
        log.info("%s after round %d of %d", what, self.saved_round, self.num_rounds)
        return True
