"""Federated evaluation: the workers evaluate the model on their own data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from flowerpress.protocol import ModelPart
from flowerpress.strategies.averages import MetricsFn, average_metrics
from flowerpress.strategies.client import Client
from flowerpress.strategies.cohort import Wanted

if TYPE_CHECKING:
    from flowerpress.strategies.run import Run


class FederatedEvaluation(FedAvg):
    """The part of a strategy that has workers evaluate the model, and averages their metrics."""

    run: Run
    _evaluate_fn: MetricsFn | None

    def part_to_evaluate(self, client: Client) -> ModelPart:
        """Return what a worker lacks to evaluate the model: deltas to its replica, or the model."""
        model = self.run.started
        return model.part_for(client.held) if model.compressed else model.whole()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the workers sampled for evaluation the model, or what their replica of it lacks."""
        del arrays, config
        if self.fraction_evaluate == 0.0:
            return []
        run = self.run
        wanted = Wanted(self.fraction_evaluate, self.min_evaluate_nodes)
        run.judges = run.sample(grid, server_round, wanted)
        return run.orders(server_round, run.judges, "evaluate")

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Average the workers' metrics."""
        run = self.run
        replicas = run.model is not None and run.model.compressed
        found = run.exchange.evaluations(server_round, run.judges, replies, replicas)
        reports = [(run.population.mass(client), metrics) for client, metrics in found]
        return average_metrics(reports, self.weighted_by_key, self._evaluate_fn) if found else None
