"""What a run gives, round by round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from flwr.app import ArrayRecord, MetricRecord

from flowerpress.simulations.engine import InProcessGrid
from flowerpress.strategies import CompressedStrategy

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


class Recorder:
    """Flower's evaluate_fn: calls the user's, and notes bytes and time.

    It is what a checkpoint saves beside the strategy.
    """

    grid: InProcessGrid | None = None  # a simulation's

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
        if self.history and self.history[-1].round == server_round:  # evaluated at an early end too
            record = replace(record, seconds=self.history.pop().seconds + record.seconds)
        self.history.append(record)
        if self._on_round is not None:
            self._on_round(record)
        return metrics

    def news(self, after: int) -> list[Any]:
        """Return the records of the rounds after `after`, as JSON values."""
        return [asdict(record) for record in self.history if record.round > after]

    def hear(self, news: list[Any]) -> None:
        """Take the records of rounds that have ended before."""
        for fields in news:
            nodes = {int(client): metrics for client, metrics in fields.pop("nodes").items()}
            self.history.append(RoundRecord(**fields, nodes=nodes))

    def state(self) -> Any:
        """Return what a simulation's faults go by."""
        return self.grid.counts if self.grid else None

    def restore(self, state: Any) -> None:
        """Take what `state` returned."""
        if self.grid and state:
            self.grid.counts = state

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
