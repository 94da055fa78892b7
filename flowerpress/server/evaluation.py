"""Federated evaluation: the workers evaluate the model on their own data."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from flowerpress.protocol import HELD, Metrics, metrics_of, printable
from flowerpress.server.ask import Ask
from flowerpress.server.client import Client
from flowerpress.server.cohort import Wanted
from flowerpress.server.metrics import (
    MetricsMean,
    Report,
)

if TYPE_CHECKING:
    from flowerpress.server.run import Run

log = logging.getLogger("flowerpress")


class FederatedEvaluation(FedAvg):
    """The part of a strategy that averages metrics, and has workers evaluate the model."""

    metric_weights: str
    run: Run
    train_mean: MetricsMean
    evaluate_mean: MetricsMean
    train_metrics: MetricRecord | None  # of the round
    evaluate_metrics: MetricRecord | None
    judges: list[Client]  # who were asked last

    def forget_metrics(self) -> None:
        """Forget an earlier run's metrics."""
        key, known = self.weighted_by_key, self.metric_weights == "known"
        train, evaluate = self.train_metrics_aggr_fn, self.evaluate_metrics_aggr_fn
        self.train_metrics = self.evaluate_metrics = None
        self.judges = []
        self.train_mean = MetricsMean("training", key, train, known=known)
        self.evaluate_mean = MetricsMean("evaluation", key, evaluate, known=known)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the workers sampled for evaluation the model, or what their replica of it lacks."""
        del arrays
        if self.fraction_evaluate == 0.0:
            return []
        run = self.run
        wanted = Wanted(self.fraction_evaluate, self.min_evaluate_nodes)
        self.judges = run.sample(grid, server_round, wanted)
        return run.orders(server_round, self.evaluation(self.judges), config)

    def evaluation(self, judges: list[Client]) -> Ask:
        """Return the question about the model: what workers lack of their replica, or all of it."""
        model = self.run.started
        part_for = None if model.compressed else lambda _: model.whole()
        return Ask(judges, what="evaluation", part_for=part_for)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Average the workers' metrics."""
        run, replies = self.run, list(replies)
        self.evaluate_metrics = None
        if not self.judges and not replies:
            return None
        replicas = run.model is not None and run.model.compressed
        found = evaluations(run, server_round, self.judges, replies, replicas=replicas)
        reports = [Report(c.id, run.population.mass(c), metrics) for c, metrics in found]
        self.evaluate_metrics = self.evaluate_mean(reports) if found else None
        return self.evaluate_metrics


def evaluations(
    run: Run,
    server_round: int,
    cohort: Sequence[Client],
    messages: Iterable[Message],
    *,
    replicas: bool,
) -> list[tuple[Client, Metrics]]:
    """Return the cohort's evaluation metrics, in order of the workers' ids.

    With `replicas`, workers evaluate what deltas have led them to: one that fails may lack it.
    """
    expected = {client.node: client for client in cohort}
    found, missing = [], dict[int, str]()
    for message in messages:
        client = expected.pop(message.metadata.src_node_id, None)
        if message.has_error():
            reason = printable(str(message.error.reason)) or f"error {message.error.code}"
            who = f"client {client.id}" if client else "a client"
            log.warning("round %d: %s (evaluation): %s", server_round, who, reason)
            if client is not None:
                missing[client.id] = reason
                client.held = -1 if replicas else client.held
        elif client is None:
            run.exchange.refuse(server_round, "an evaluation of a node that was not asked")
        else:
            run.exchange.enter(server_round, client.id, "up", message.content, 0, "evaluate")
            metrics = metrics_of(message.content)
            client.held = _held_in(metrics, client.held)
            found.append((client, metrics))
    missing |= dict.fromkeys((c.id for c in expected.values()), "it did not answer in time")
    run.attendance.evaluate(missing, came=len(found))
    return sorted(found, key=lambda pair: pair[0].id)


def _held_in(metrics: Metrics, believed: int) -> int:
    """Take the model version a worker holds out of its evaluation's metrics."""
    held = metrics.pop(HELD, None)
    return int(held) if isinstance(held, int | float) and -1 <= held < 2**53 else believed
