"""The rounds of a run, from the beginning or from a checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from flowerpress.protocol import LedgerRow
from flowerpress.protocol.grids import allow_answers, checkpoints_of
from flowerpress.strategies import saved
from flowerpress.strategies.checkpoints import Checkpoints
from flowerpress.strategies.tree import Tree

if TYPE_CHECKING:
    from flowerpress.strategies.base import CompressedStrategy

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]
_METRICS = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")
_FIRST_ANSWER = 2**22  # bytes that a node may say of itself, besides what the model's size allows
# The rounds' log goes where that of Flower's own strategies does.
flower = logging.getLogger("flwr")
log = logging.getLogger("flowerpress")


@dataclass
class Rounds:
    """A run of a strategy on a grid; the fields are what Flower's `Strategy.start` takes."""

    strategy: CompressedStrategy
    grid: Grid
    initial: ArrayRecord
    num_rounds: int
    timeout: float
    train_config: ConfigRecord
    evaluate_config: ConfigRecord
    evaluate_fn: EvaluateFn | None
    result: Result = field(default_factory=Result)
    saved_round: int = -1  # of the last checkpoint
    saved_rows: int = 0  # of the ledger, in it
    checkpoints: Checkpoints | None = field(init=False)

    def __post_init__(self) -> None:
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
        for server_round in range(self.saved_round + 1 or 1, self.num_rounds + 1):
            flower.info("")
            flower.info("[ROUND %d/%d]", server_round, self.num_rounds)
            self._train(server_round)
            self._federated(server_round)
            self._evaluate(server_round)
            self._save(server_round)
        flower.info("")
        flower.info("Run finished in %.2f s", time.perf_counter() - start)
        for line in ("", *str(self.result).splitlines()):
            flower.info("\t%s", line)
        return self.result

    @property
    def _size(self) -> int:
        """Bytes of the model."""
        return sum(len(array.data) for array in self.initial.values())

    def _announce(self) -> None:
        size = self._size / 2**20
        flower.info("Starting %s:", type(self.strategy).__name__)
        flower.info("\t├── Number of rounds: %d", self.num_rounds)
        flower.info("\t├── ArrayRecord (%.2f MB)", size)
        flower.info("\t├── ConfigRecord (train): %s", dict(self.train_config) or "empty")
        flower.info("\t├── ConfigRecord (evaluate): %s", dict(self.evaluate_config) or "empty")
        self.strategy.summary()

    @property
    def _arrays(self) -> ArrayRecord:
        """The model as it is now."""
        return self.result.arrays if len(self.result.arrays) else self.initial

    def _train(self, server_round: int) -> None:
        strategy = self.strategy
        orders = strategy.configure_train(server_round, self._arrays, self.train_config, self.grid)
        replies = self.grid.send_and_receive(orders, timeout=self.timeout)
        arrays, metrics = strategy.aggregate_train(server_round, replies)
        if arrays is not None:
            self.result.arrays = arrays
        if metrics is not None:
            flower.info("\t└──> Aggregated MetricRecord: %s", metrics)
            self.result.train_metrics_clientapp[server_round] = metrics

    def _federated(self, server_round: int) -> None:
        strategy = self.strategy
        orders = strategy.configure_evaluate(
            server_round, self._arrays, self.evaluate_config, self.grid
        )
        replies = self.grid.send_and_receive(orders, timeout=self.timeout)
        metrics = strategy.aggregate_evaluate(server_round, replies)
        if metrics is not None:
            flower.info("\t└──> Aggregated MetricRecord: %s", metrics)
            self.result.evaluate_metrics_clientapp[server_round] = metrics

    def _evaluate(self, server_round: int) -> None:
        if self.evaluate_fn is None:
            return
        metrics = self.evaluate_fn(server_round, self._arrays)
        flower.info("Global evaluation: %s", metrics)
        if metrics is not None:
            self.result.evaluate_metrics_serverapp[server_round] = metrics

    def _save(self, server_round: int) -> None:
        """Save a checkpoint where one is due."""
        checkpoints, strategy = self.checkpoints, self.strategy
        if checkpoints is None or not checkpoints.due(server_round, self.num_rounds):
            return
        beside, after = checkpoints.beside, self.saved_round
        rows = [list(asdict(row).values()) for row in strategy.ledger.rows[self.saved_rows :]]
        line: dict[str, Any] = {"rows": rows, "beside": beside.news(after) if beside else []}
        for name in _METRICS:
            metrics = getattr(self.result, name)
            line[name] = {r: dict(metrics[r]) for r in metrics if r > after}
        state: dict[str, Tree] = {
            "round": server_round,
            "stepped": bool(len(self.result.arrays)),
            "facts": dict(checkpoints.facts),
            "beside": beside.state() if beside else None,
            **saved.state_of(strategy),
        }
        checkpoints.save(server_round, state, line)
        self.saved_round, self.saved_rows = server_round, len(strategy.ledger.rows)

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
                strategy.ledger.add(LedgerRow(*row))
            for name in _METRICS:
                metrics = {int(r): MetricRecord(each) for r, each in line[name].items()}
                getattr(self.result, name).update(metrics)
            if checkpoints.beside:
                checkpoints.beside.hear(line["beside"])
        if checkpoints.beside:
            checkpoints.beside.restore(found["beside"])
        if found["stepped"]:
            self.result.arrays = strategy.model.arrays()
        self.saved_round, self.saved_rows = found["round"], len(strategy.ledger.rows)
        log.info("going on after round %d of %d", self.saved_round, self.num_rounds)
        return True
