"""What every server half has in common: who takes part, what is sent, what is accepted.

A round:

    1. meet new nodes; wait until enough workers are there; sample the cohort
    2. send each worker the model (dense, or the deltas it missed), the hyperparameters, and the
       version of its packets that was applied last
    3. check each reply, in order of the workers' ids: it must answer the open question and build on
       the version applied last; add its packet to the algorithm's buffer (`receive`)
    4. take the model one step (`step`)
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from flowerpress.compressors import make_compressor
from flowerpress.protocol import Hello, Hyper, Ledger, ModelPart, Reply
from flowerpress.strategies.averages import (
    MetricsFn,
    average_buffers,
    average_metrics,
)
from flowerpress.strategies.downlink import Downlink
from flowerpress.strategies.evaluation import FederatedEvaluation
from flowerpress.strategies.exchange import Exchange
from flowerpress.strategies.options import check_options
from flowerpress.strategies.population import Client, Population
from flowerpress.strategies.resumable import Resumable
from flowerpress.strategies.rounds import EvaluateFn, Rounds
from flowerpress.strategies.run import Run
from flowerpress.strategies.update import Update

FloatVector = npt.NDArray[np.floating[Any]]
log = logging.getLogger("flowerpress")


class CompressedStrategy(Resumable, FederatedEvaluation):
    """Server half of an algorithm with compressed updates.

    It is a Flower strategy with FedAvg's keywords. Federated evaluation is off by default
    (``fraction_evaluate=0``): it sends the whole model once more in every round.

    Parameters
    ----------
    compressor : str (default: "topk:0.01")
        Spec of the workers' compressor (see `flowerpress.compressors.make_compressor`).
    lr : float (default: 0.1)
        Step size on the (pseudo-)gradient.
    seed : int (default: 0)
        Seed of everything random in the run: batches, sampling, compressors.
    local_steps : int (default: 1)
        K: steps of SGD a worker takes per round; its gradient is then (x - x_K) / local_lr.
    local_lr : float (default: 0)
        Step size of the local steps; 0: `lr`.
    weights : {"num-examples", "uniform"} (default: "num-examples")
        What a worker counts for.
    client_compressors : bool (default: True)
        Whether a worker may choose its own compressor (``compressor`` in its node config).
    max_scale : float (default: 1000)
        How many times the median of the clients' largest norms an update may have; above, it is
        refused and counted, see `flowerpress.strategies.guard`. 0: no limit.
    available_timeout : float (default: 600)
        Seconds to wait for `min_available_nodes` workers before the run ends with an error.
    hello_timeout : float (default: 60)
        Seconds to wait for a new node to say who it is. Over the link, rounds of those who are
        known wait a second at most.
    fraction_train, fraction_evaluate, min_train_nodes, min_evaluate_nodes, min_available_nodes, \
weighted_by_key, arrayrecord_key, configrecord_key, train_metrics_aggr_fn, evaluate_metrics_aggr_fn
        As in Flower's `FedAvg`.
    """

    name: ClassVar[str]
    summary_line: ClassVar[str]
    citation: ClassVar[str]
    rule: ClassVar[str] = "step"  # what a step does to the model, see `flowerpress.protocol.rules`
    shared: ClassVar[bool] = False  # whether workers and server must agree on a state
    silence: ClassVar[bool] = False  # whether a worker may answer that it has nothing to send
    local_buffers: ClassVar[bool] = False  # whether buffers stay with the workers
    scaled: ClassVar[bool] = True  # whether an update goes in times its scale, and nowhere without
    baseline: ClassVar[str] = "fedavg"  # the strategy that does the same uncompressed
    grid: Grid
    num_rounds = 0  # of the run, 0 where it is not known
    timeout = 3600.0  # seconds to wait for the replies to a round's second exchange
    dense_first = False  # whether a compressed downlink's first estimate goes whole

    def __init__(
        self,
        *,
        compressor: str = "topk:0.01",
        lr: float = 0.1,
        seed: int = 0,
        local_steps: int = 1,
        local_lr: float = 0.0,
        weights: str = "num-examples",
        client_compressors: bool = True,
        max_scale: float = 1000.0,
        available_timeout: float = 600.0,
        hello_timeout: float = 60.0,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 0.0,
        min_train_nodes: int = 2,
        min_evaluate_nodes: int = 2,
        min_available_nodes: int = 2,
        weighted_by_key: str = "num-examples",
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        train_metrics_aggr_fn: MetricsFn | None = None,
        evaluate_metrics_aggr_fn: MetricsFn | None = None,
    ) -> None:
        check_options({k: v for k, v in locals().items() if k != "self"})
        super().__init__(
            min_train_nodes=min_train_nodes,
            min_evaluate_nodes=min_evaluate_nodes if fraction_evaluate else 0,
            min_available_nodes=min_available_nodes,
            weighted_by_key=weighted_by_key,
            arrayrecord_key=arrayrecord_key,
            configrecord_key=configrecord_key,
        )
        self._train_fn, self._evaluate_fn = train_metrics_aggr_fn, evaluate_metrics_aggr_fn
        # Not given to FedAvg's constructor, which warns about 0.
        self.fraction_train, self.fraction_evaluate = fraction_train, fraction_evaluate
        self.compressor = make_compressor(compressor).spec
        self.lr, self.seed, self.weights = lr, seed, weights
        self.local_steps, self.local_lr = local_steps, local_lr
        self.client_compressors, self.max_scale = client_compressors, max_scale
        self.available_timeout, self.hello_timeout = available_timeout, hello_timeout
        self.downlink = ""  # dense, unless an algorithm has the option
        self.reset()

    def admit(self, hello: Hello) -> None:
        """Raise `ValueError` for a worker that cannot take part, saying why."""

    def network(self, nodes: Iterable[int]) -> str:
        """Say who talks with whom, without a server; `ValueError` where no such network is."""
        del nodes
        return ""

    def begin(self) -> None:
        """Make the algorithm's buffers; `model` is there."""

    def plan(self, cohort: list[Client], server_round: int) -> None:
        """Decide what a round asks of its cohort, before `hyper` is read."""

    def fraction(self, server_round: int) -> float:
        """Return the share of the workers to ask in a round."""
        del server_round
        return self.fraction_train

    def needed(self, at_least: int) -> int:
        """Return how many workers must be there for a round that asks at least so many."""
        return max(self.min_available_nodes, at_least, 1)

    def part_for(self, client: Client) -> ModelPart:
        """Return what a worker lacks of the model."""
        return self.model.part_for(client.held)

    def disagree(self, client: Client, server_round: int) -> None:
        """Hear that a worker's state is not the one shared with it (`shared` algorithms only)."""
        self.run.start_over |= client.may_restart_all(server_round)

    def dims(self, stage: int) -> list[int]:
        """Return the lengths of the packets of an update, in one of the round's exchanges."""
        del stage
        return [self.model.layout.dim]

    def local_models(self) -> Iterator[tuple[int, ArrayRecord]]:
        """Yield the workers' own models collected in this round, by id, where they have some."""
        return iter(())

    @abstractmethod
    def receive(self, update: Update) -> None:
        """Add an update to the algorithm's buffer, or raise `PacketError` and change nothing."""

    @abstractmethod
    def step(self, answered: list[Client], server_round: int) -> None:
        """Take the model from x^{r-1} to x^r; `answered`, not empty: whose updates came in."""

    def forget(self) -> None:
        """Forget what is shared with the workers (`shared` algorithms only)."""

    def hyper(self) -> Hyper:
        """Return the hyperparameters the workers need."""
        return {
            "compressor": self.compressor,
            "lr": self.lr,
            "local_steps": self.local_steps,
            "local_lr": self.local_lr,
            "client_compressors": self.client_compressors,
            "downlink": self.downlink,
            "rule": self.rule,
        }

    def reset(self) -> None:
        """Forget all of an earlier run."""
        self.run = Run(self)
        self.train_metrics: MetricRecord | None = None

    def begin_run(self, initial: ArrayRecord) -> None:
        """Forget all of an earlier run, and begin one from the model `initial`."""
        self.reset()
        self.run = Run(self, initial)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run all rounds, as Flower's `Strategy.start`; with `checkpoints`, those that are left."""
        self.timeout, self.num_rounds = float(timeout), num_rounds
        configs = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
        given = (num_rounds, float(timeout), *configs, evaluate_fn)
        return Rounds(self, grid, initial_arrays, *given).run()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the cohort and make its instructions; `config` is not used."""
        del config
        if server_round == 1:
            self.begin_run(arrays)
        self.grid = grid
        if self.fraction_train == 0.0:
            return []
        run = self.run
        run.cohort = run.sample(
            grid, server_round, self.fraction(server_round), self.min_train_nodes
        )
        if run.start_over:
            run.forget(server_round)
        self.plan(run.cohort, server_round)
        run.exchange.question += 1
        return run.orders(server_round, run.cohort, "train")

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Apply the replies and take a step; with no update at all the model stays as it is."""
        run = self.run
        applied = self.collect(server_round, replies)
        self.train_metrics = None
        if not applied:
            run.explain(server_round)
            return None, None
        self.step([client for client, _ in applied], server_round)
        masses = [self.population.mass(client) for client, _ in applied]
        self.model.buffers = average_buffers(self.model.buffers, run.received, masses)
        reports = [(self.population.mass(client), reply.metrics) for client, reply in applied]
        self.train_metrics = average_metrics(reports, self.weighted_by_key, self._train_fn)
        return self.model.arrays(), self.train_metrics

    def collect(self, server_round: int, replies: Iterable[Message]) -> list[tuple[Client, Reply]]:
        """Take the updates among the replies; returns whose went in."""
        return self.run.take(server_round, self.run.cohort, replies, self.receive, self.dims(1))

    def summary(self) -> None:
        """Log the algorithm and its settings, then FedAvg's."""
        options = ", ".join(f"{name}={value}" for name, value in self.hyper().items())
        log.info("\t├──> %s: %s\n\t│\t└── %s", self.name, self.summary_line, options)
        super().summary()

    @property
    def population(self) -> Population:
        """The workers met in this run."""
        return self.run.population

    @property
    def exchange(self) -> Exchange:
        """Questions and answers of this run, with counts of what was refused."""
        return self.run.exchange

    @property
    def ledger(self) -> Ledger:
        """Every message's bytes."""
        return self.run.exchange.ledger

    @property
    def model(self) -> Downlink:
        """The server's model."""
        return self.run.started
