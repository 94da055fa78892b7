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
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from flowerpress.compressors import PacketError, make_compressor
from flowerpress.compressors.feedback import Acceptance
from flowerpress.protocol import Hello, Hyper, Instruction, Layout, Ledger, Reply
from flowerpress.strategies.averages import average_buffers, metric_contents, pack_buffers
from flowerpress.strategies.downlink import Downlink
from flowerpress.strategies.exchange import Exchange
from flowerpress.strategies.options import check_options
from flowerpress.strategies.population import Client, Population, wait_for

FloatVector = npt.NDArray[np.floating[Any]]
MetricsFn = Callable[[list[RecordDict], str], MetricRecord]
log = logging.getLogger("flowerpress")
_START_OVER_EVERY = 10  # rounds, at least: one worker must not make all send dense in every round


class CompressedStrategy(FedAvg):
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
    available_timeout : float (default: 600)
        Seconds to wait for `min_available_nodes` workers before the run ends with an error.
    hello_timeout : float (default: 60)
        Seconds to wait for a new node to say who it is.
    fraction_train, fraction_evaluate, min_train_nodes, min_evaluate_nodes, min_available_nodes, \
weighted_by_key, arrayrecord_key, configrecord_key, train_metrics_aggr_fn, evaluate_metrics_aggr_fn
        As in Flower's `FedAvg`.
    """

    name: ClassVar[str]
    summary_line: ClassVar[str]
    citation: ClassVar[str]
    rule: ClassVar[str] = "step"  # how a step moves the model, see `Downlink`
    shared: ClassVar[bool] = False  # whether workers and server must agree on a state

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
        check_options(lr, seed, local_steps, local_lr, weights, fraction_train, fraction_evaluate)
        super().__init__(
            min_train_nodes=min_train_nodes,
            min_evaluate_nodes=min_evaluate_nodes if fraction_evaluate else 0,
            min_available_nodes=min_available_nodes,
            weighted_by_key=weighted_by_key,
            arrayrecord_key=arrayrecord_key,
            configrecord_key=configrecord_key,
            train_metrics_aggr_fn=train_metrics_aggr_fn,
            evaluate_metrics_aggr_fn=evaluate_metrics_aggr_fn,
        )
        # Not given to FedAvg's constructor, which warns about 0.
        self.fraction_train, self.fraction_evaluate = fraction_train, fraction_evaluate
        self.compressor = make_compressor(compressor).spec
        self.lr, self.seed, self.weights = lr, seed, weights
        self.local_steps, self.local_lr = local_steps, local_lr
        self.client_compressors = client_compressors
        self.available_timeout, self.hello_timeout = available_timeout, hello_timeout
        self.downlink = ""  # dense, unless an algorithm has the option
        self.reset()

    def begin(self) -> None:
        """Make the algorithm's buffers; `model` is there."""

    @abstractmethod
    def receive(self, packet: bytes, weight: float) -> None:
        """Add ``weight * decompress(packet)`` to the algorithm's buffer; `packet` is checked."""

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
        }

    def reset(self) -> None:
        """Forget all of an earlier run."""
        self.population = Population(self.weights, self.hello_timeout)
        self.exchange = Exchange(self.population)
        self._model: Downlink | None = None
        self._initial: ArrayRecord | None = None
        self._cohort: list[Client] = []
        self.train_metrics: MetricRecord | None = None
        self._start_over = False
        self._started_over = -_START_OVER_EVERY

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the cohort and make its instructions; `config` is not used."""
        del config
        if server_round == 1:
            self.reset()
            self._initial = arrays
        if self.fraction_train == 0.0:
            return []
        self._cohort = self._sample(grid, server_round, self.fraction_train, self.min_train_nodes)
        if self._start_over:
            log.warning("round %d: all workers start over: one lost what it shared", server_round)
            self._start_over, self._started_over = False, server_round
            self.forget()
            for client in self.population.clients.values():
                client.receiver.applied = 0
        self.exchange.question += 1
        return self._orders(server_round, self._cohort, "train")

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Apply the replies and take a step; with no update at all the model stays as it is."""
        answers = self.exchange.answers(server_round, self._cohort, replies)
        applied = [answer for answer in answers if self._apply(server_round, *answer)]
        self.train_metrics = None
        if not applied:
            self.exchange.explain(server_round, answers, len(self._cohort))
            return None, None
        self.step([client for client, _ in applied], server_round)
        masses = [self.population.mass(client) for client, _ in applied]
        packets = [reply.buffers for _, reply in applied]
        self.model.buffers = average_buffers(self.model.buffers, packets, masses)
        self.train_metrics = self.train_metrics_aggr_fn(
            metric_contents(applied, self.weighted_by_key), self.weighted_by_key
        )
        return self.model.arrays(), self.train_metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model dense to the workers sampled for evaluation."""
        del arrays, config
        if self.fraction_evaluate == 0.0:
            return []
        cohort = self._sample(grid, server_round, self.fraction_evaluate, self.min_evaluate_nodes)
        return self._orders(server_round, cohort, "evaluate")

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Average the workers' metrics."""
        contents = self.exchange.evaluations(server_round, replies)
        return self.evaluate_metrics_aggr_fn(contents, self.weighted_by_key) if contents else None

    def summary(self) -> None:
        """Log the algorithm and its settings, then FedAvg's."""
        log.info("\t├──> %s: %s", self.name, self.summary_line)
        options = ", ".join(f"{name}={value}" for name, value in self.hyper().items())
        log.info("\t│\t└── %s", options)
        super().summary()

    # What users and algorithms see of a run ---------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """Every message's bytes."""
        return self.exchange.ledger

    @property
    def model(self) -> Downlink:
        """The server's model."""
        if self._model is None:
            raise RuntimeError("the strategy has not started: no worker was met yet")
        return self._model

    # The parts of a round ----------------------------------------------------------------------

    def _admit(self, hello: Hello) -> None:
        """Start with the first worker's layout; refuse a worker with another one."""
        if self._model is not None:
            self._model.layout.check(hello.layout)
            return
        if self._initial is None:
            raise ValueError("no round was started yet")
        untrained = [entry.name for entry in hello.layout.entries if not entry.trained]
        layout = Layout.of(self._initial, untrained)
        layout.check(hello.layout)
        self._model = Downlink(
            layout, self._initial, self.downlink, rule=self.rule, lr=self.lr, seed=self.seed
        )
        self.begin()

    def _sample(
        self, grid: Grid, server_round: int, fraction: float, at_least: int
    ) -> list[Client]:
        """Wait until enough workers are there, and draw the cohort."""
        needed = max(self.min_available_nodes, at_least, 1)
        ask = partial(
            self.population.meet, grid, server_round, self._admit, self.ledger, needed=needed
        )
        wait_for(ask, needed, self.available_timeout)
        online = self.population.online(grid)
        count = max(int(len(online) * fraction), at_least, 1)
        return self.population.sample(online, count, self.seed, server_round)

    def _orders(self, server_round: int, cohort: list[Client], purpose: str) -> list[Message]:
        """Make the cohort's instructions for training, or for evaluation of the whole model."""
        train = purpose == "train"
        order = Instruction(
            algorithm=self.name if train else "",
            round=server_round,
            version=self.exchange.question,
            seed=self.seed,
            cohort=len(cohort),
            layout=self.model.layout.digest,
            hyper=self.hyper(),
            model=self.model.snapshot(),
            buffers=pack_buffers(self.model.buffers),
        )
        return self.exchange.orders(order, cohort, purpose, self.model.part_for)

    def _apply(self, server_round: int, client: Client, reply: Reply) -> bool:
        """Apply one answer; returns whether it was an update and went in."""
        if reply.status != "failed":
            client.held = reply.held
        verdict = self.exchange.judge(
            server_round, client, reply, self.model.layout, shared=self.shared
        )
        if verdict is Acceptance.MISMATCH and self.shared:
            self._start_over = server_round >= self._started_over + _START_OVER_EVERY
        if verdict is not Acceptance.APPLY:
            return False
        try:
            self.receive(reply.packets[0], self.population.mass(client) * reply.scale)
        except PacketError as error:  # the packet is checked as a whole before a buffer is touched
            self.exchange.refuse(server_round, f"client {client.id}: {error}")
            return False
        client.receiver.apply(reply.version)
        return True
