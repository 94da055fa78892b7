"""What a run gives, round by round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from flwr.app import ArrayRecord, MetricRecord

from flowerpress.protocol import MetricReader, Metrics
from flowerpress.simulations.engine import InProcessGrid
from flowerpress.strategies import CompressedStrategy

EvaluateFn = Callable[[int, ArrayRecord], Mapping[str, Any] | None]
"""`evaluate_fn(server_round, arrays)`: a `MetricRecord`, another mapping of numbers, or None."""


@dataclass(frozen=True)
class RoundRecord:
    """What one round gave.

    Metrics are numbers or lists of numbers by name.

    Parameters
    ----------
    round : int
        0 is the initial model.
    metrics : dict
        What ``evaluate_fn`` returned.
    train : dict
        The workers' averaged training metrics, such as "loss".
    up_bytes, down_bytes : int
        Payload and framing of this round alone, as sent, without `up_collected`.
    seconds : float
        Since the round before.
    up_collected : int
        Uplink bytes of nodes' own models that were asked for (gossip).
    nodes : dict
        What ``node_evaluate_fn`` returned for each node's own model, by client, where these were
        collected.
    evaluate : dict
        The workers' averaged evaluation metrics (``fraction_evaluate``).
    """

    round: int
    metrics: Metrics
    train: Metrics
    up_bytes: int
    down_bytes: int
    seconds: float
    up_collected: int = 0
    nodes: dict[int, Metrics] = field(default_factory=dict)
    evaluate: Metrics = field(default_factory=dict)


OnRound = Callable[[RoundRecord], None]
"""Called with each round's record as soon as it is there."""


class Recorder:
    """Flower's evaluate_fn: calls the user's, and notes bytes and time.

    It is what a checkpoint saves beside the strategy.

    Attributes
    ----------
    history : list of RoundRecord
    seconds_before : float
        That the rounds took which had ended before the run was resumed.
    """

    grid: InProcessGrid | None = None  # a simulation's

    def __init__(
        self,
        strategy: CompressedStrategy,
        evaluate_fn: EvaluateFn | None,
        on_round: OnRound | None,
        node_evaluate_fn: EvaluateFn | None = None,
    ) -> None:
        self._strategy, self._evaluate_fn, self._on_round = strategy, evaluate_fn, on_round
        self._node_evaluate_fn = node_evaluate_fn
        self._reader, self._node_reader = map(MetricReader, ("evaluate_fn", "node_evaluate_fn"))
        self._last = time.perf_counter()
        self.history: list[RoundRecord] = []
        self.seconds_before = 0.0
        self._arrays = ArrayRecord()

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        strategy = self._strategy
        found = self._evaluate_fn(server_round, arrays) if self._evaluate_fn else None
        metrics = self._reader.read(found)
        own = server_round and self._node_evaluate_fn is not None
        nodes = self._nodes(server_round) if own else {}
        used = strategy.ledger.round_bytes(server_round)
        now = time.perf_counter()
        record = RoundRecord(
            server_round,
            metrics,
            dict(strategy.train_metrics or {}) if server_round else {},
            used.up_bytes - used.up_collected,
            used.down_bytes,
            now - self._last,
            used.up_collected,
            nodes,
            dict(strategy.evaluate_metrics or {}) if server_round else {},
        )
        self._last, self._arrays = now, arrays
        if self.history and self.history[-1].round == server_round:  # evaluated at an early end too
            record = replace(record, seconds=self.history.pop().seconds + record.seconds)
        self.history.append(record)
        if self._on_round is not None:
            self._on_round(record)
        return None if found is None else MetricRecord(dict(metrics))

    def model(self) -> ArrayRecord:
        """Return the model of the last record; empty where there is none."""
        resumed = self.history and self._strategy.run.model is not None
        return self._strategy.model.arrays() if resumed and not self._arrays else self._arrays

    def news(self, after: int) -> list[Any]:
        """Return the records of the rounds after `after`, as JSON values."""
        return [asdict(record) for record in self.history if record.round > after]

    def hear(self, news: list[Any]) -> None:
        """Take the records of rounds that have ended before; tells a tracker of them too."""
        known = len(self.history)
        for fields in news:
            nodes = {int(client): metrics for client, metrics in fields.pop("nodes").items()}
            if "evaluate" not in fields:  # of before these were told: then bytes had both in one
                fields["up_bytes"] -= fields["up_collected"]
            self.history.append(RoundRecord(**fields, nodes=nodes))
        self.seconds_before += sum(record.seconds for record in self.history[known:])
        resumed = getattr(self._on_round, "resumed", None)
        if resumed is not None:
            resumed(self.history[known:])

    def state(self) -> Any:
        """Return what a simulation's faults go by."""
        return self.grid.counts if self.grid else None

    def restore(self, state: Any) -> None:
        """Take what `state` returned."""
        if self.grid and state:
            self.grid.counts = state

    def _nodes(self, server_round: int) -> dict[int, Metrics]:
        """Evaluate the nodes' own models, where they were collected."""
        evaluate = self._node_evaluate_fn
        if evaluate is None:
            return {}
        read = self._node_reader.read
        models = self._strategy.local_models()
        return {i: read(evaluate(server_round, arrays)) for i, arrays in models}
