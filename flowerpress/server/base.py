"""What every server half has in common: who takes part, what is sent, what is accepted.

An algorithm's round (`round`) yields its questions; around each of them:

    1. meet new nodes; wait until enough workers are there; sample the cohort (`sample`)
    2. send each worker the model (dense, or the deltas it missed), the hyperparameters, and the
       version of its packets that was applied last
    3. check each reply, in order of the workers' ids: it must answer the open question and build on
       the version applied last; let its update in
    4. go on with the round, to its next question or its end
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from flowerpress.algorithms import algorithm_names
from flowerpress.protocol import Hyper, Ledger, Reply
from flowerpress.protocol.buffers import Buffers
from flowerpress.protocol.rooms import zeros
from flowerpress.server.ask import Ask, Steps
from flowerpress.server.buffers import average_buffers
from flowerpress.server.client import Client
from flowerpress.server.cohort import Wanted
from flowerpress.server.downlink import Downlink
from flowerpress.server.exchange import Exchange
from flowerpress.server.ladder import Ladder, is_auto
from flowerpress.server.metrics import Report
from flowerpress.server.mistakes import checked
from flowerpress.server.options import (
    ANYTHING,
    SWITCH,
    Declared,
    Values,
    number,
    one_of,
    option,
    text,
    whole,
)
from flowerpress.server.population import Population
from flowerpress.server.resumable import Resumable
from flowerpress.server.rounds import EvaluateFn, Rounds, ShouldStop
from flowerpress.server.run import Run
from flowerpress.server.schedule import Factor, make_schedule
from flowerpress.server.suitable import ANY_COMPRESSOR, correlates, shares_range
from flowerpress.server.wrapped import refuse_other_arrays, refuse_privacy, sits_between

FloatVector = npt.NDArray[np.floating[Any]]
log = logging.getLogger("flowerpress")
_AS_IN_FLOWER = "As in Flower's `FedAvg`."
_CONFIG_KEY = Values(
    lambda key: isinstance(key, str) and key != "arrays",
    "a string, and another than arrays, for the model goes under this one",
)
_FUNCTION = Values(lambda given: given is None or callable(given), "a function")


class CompressedStrategy(Declared, Resumable):
    """Server half of an algorithm with compressed updates.

    It is a Flower strategy with FedAvg's keywords. Federated evaluation is off by default
    (``fraction_evaluate=0``): it sends the whole model once more in every round.
    """

    grid: Grid
    timeout = 3600.0  # seconds to wait for the replies to a round's second exchange
    kept: ClassVar[tuple[str, ...]] = ("norm",)
    norm: float  # of the cohort's vectors, for compressors that share a range; 0: not known
    told: dict[str, float]  # metrics of a round beside the workers'
    _open: tuple[Steps, Ask]  # a round, and the question that it waits for answers to

    compressor: str = option(
        "topk:0.01",
        ANY_COMPRESSOR,
        "Spec of the workers' compressor, see `flowerpress.compressors.make_compressor`; or "
        "auto:deadline=2s, see `flowerpress.server.ladder`.",
        sent=True,
    )
    lr: float = option(0.1, number("(0, inf)"), "Step size on the (pseudo-)gradient.")
    schedule: Factor = option(
        "",
        Values(lambda _: True, "a text, or a function", make_schedule),
        "Factor of `lr` in each round, such as cosine:rounds=100,warmup=10, or a function of the "
        "round, see `flowerpress.server.schedule`. An explicit `local_lr` stays as it is.",
    )
    seed: int = option(
        0,
        whole(0, " and below 2**63"),
        "Seed of everything random in the run: batches, sampling, compressors.",
    )
    local_steps: int = option(
        1,
        whole(1),
        "Steps of SGD that a worker takes in a round; its gradient is then (x - x_K) / local_lr.",
        letter="K",
        sent=True,
    )
    local_lr: float = option(
        0.0, number("[0, inf)"), "Step size of the local steps; 0: `lr`.", sent=True
    )
    weights: str = option(
        "num-examples", one_of("num-examples", "uniform"), "What a worker counts for."
    )
    max_weight: float = option(
        10.0,
        Values(
            lambda v: number("[0, inf)").held(v) and not 0 < v < 1,
            "a number >= 1, or 0 for no limit",
        ),
        "How many times the median of the workers' numbers of examples one may count for; "
        "0: no limit.",
    )
    client_compressors: bool = option(
        True,
        SWITCH,
        "Whether a worker may choose its own compressor (`compressor` in its node config). It says "
        "in its hello which it has chosen; packets of any other codec are refused.",
        sent=True,
    )
    max_scale: float = option(
        1000.0,
        number("[0, inf)"),
        "How many times the median of the clients' first norms an update may have; above, it is "
        "refused and counted, see `flowerpress.server.guard`. 0: no limit.",
    )
    available_timeout: float = option(
        600.0,
        number("[0, inf)"),
        "Seconds to wait for `min_available_nodes` workers before the run ends with an error.",
    )
    hello_timeout: float = option(
        60.0,
        number("[0, inf)"),
        "Seconds to wait for a new node to say who it is. Over the link, rounds of those who are "
        "known wait a second at most.",
    )
    metric_weights: str = option(
        "reported",
        one_of("reported", "known"),
        "What a worker's metrics count for: the num-examples that it reports with them, as in "
        "Flower; or what its updates count for, which it cannot change from round to round.",
    )
    fraction_train: float = option(
        1.0,
        number("(0, 1]", " (with 0 nobody would train)"),
        "Share of the workers that is asked in a round.",
    )
    fraction_evaluate: float = option(
        0.0, number("[0, 1]"), "Share of the workers that evaluates the model in a round."
    )
    min_train_nodes: int = option(2, whole(0), "Workers asked in a round at least.")
    min_evaluate_nodes: int = option(2, whole(0), "Workers that evaluate at least, if any do.")
    min_available_nodes: int = option(2, whole(0), "Workers that a round waits for.")
    weighted_by_key: str = option("num-examples", text(), _AS_IN_FLOWER)
    arrayrecord_key: str = option("arrays", text(), _AS_IN_FLOWER)
    configrecord_key: str = option("config", _CONFIG_KEY, _AS_IN_FLOWER)
    train_metrics_aggr_fn = option(None, _FUNCTION, _AS_IN_FLOWER)
    evaluate_metrics_aggr_fn = option(None, _FUNCTION, _AS_IN_FLOWER)

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.given = options
        # Whose rounds are not looked at for mistakes: tests do that, and rounds are short.
        self._shipped = self.__module__.startswith("flowerpress.")
        self.ladder = self._ladder(options.get("compressor"))
        if self.ladder is not None:
            options = {**options, "compressor": self.ladder.steps[0]}
        self.accept(options)
        if not self.fraction_evaluate:
            self.min_evaluate_nodes = 0
        self.check()
        self.reset()

    @classmethod
    def _ladder(cls, compressor: object) -> Ladder | None:
        """Return the ladder that a compressor's text describes; None where it is a compressor."""
        if not isinstance(compressor, str) or not is_auto(compressor):
            return None
        if cls.options["client_compressors"].fixed:
            raise ValueError(
                f"compressor is {compressor!r}, but all workers of {cls.name} use the same one"
            )
        values = cls.options["compressor"].values or ANYTHING
        accept = partial(values.check, "compressor")
        return Ladder.parse(compressor, accept, owing=cls.contractive or cls.owing)

    @classmethod
    def where_shown(cls) -> str:
        """Say what shows the options; empty for a strategy that has no name of its own there."""
        name = getattr(cls, "name", "")
        return f"`flowerpress list {name}` shows all" if name in algorithm_names() else ""

    @property
    def compressor_text(self) -> str:
        """What was given as `compressor`, in its normal form."""
        return self.compressor if self.ladder is None else self.ladder.text

    def check(self) -> None:
        """Raise `ValueError` where options do not go together, and make what follows from them."""

    @property
    def model(self) -> Downlink:
        """The server's model."""
        return self.run.started

    @property
    def rate(self) -> float:
        """The step size of this round."""
        return float(self.lr * self.schedule(self.server_round))

    def hyper(self) -> Hyper:
        """Return the hyperparameters the workers need."""
        own = {"lr": self.rate, "downlink": self.downlink, "rule": self.rule}
        norm = {"norm": self.norm} if shares_range(self.compressor) else {}
        return {**self.sent(), **own, **norm}

    def reset(self) -> None:
        """Forget all of an earlier run."""
        self.run = Run(self)
        self.forget_metrics()
        self.server_round, self.told, self.norm = 1, {}, 0.0
        self.correlates = correlates(self.compressor)

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
        should_stop: ShouldStop | None = None,
    ) -> Result:
        """Run all rounds, as `Strategy.start` of Flower 1.43; with `checkpoints`, those left."""
        self.timeout, self.num_rounds = float(timeout), num_rounds
        configs = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
        given = (num_rounds, float(timeout), *configs, evaluate_fn, should_stop)
        self.looping = not sits_between(type(self), CompressedStrategy)
        try:
            rounds = Rounds(self, grid, initial_arrays, *given)
            del initial_arrays  # the model takes its place, once it has begun
            return rounds.run()
        finally:
            self.looping = False

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the cohort and make its instructions; `config` goes to the workers' tasks.

        Raises
        ------
        ValueError
            Another strategy around this one changes what it is given, see
            `flowerpress.server.wrapped`.
        """
        refuse_privacy(self.name, config)
        if server_round == 1:
            self.begin_run(arrays)
        elif not self.looping:
            refuse_other_arrays(self.name, self.run, server_round, arrays)
        self.grid, self.server_round = grid, server_round
        steps = (self.round if self._shipped else self._checked_round)(server_round)
        self._open = steps, next(steps)
        return self.run.orders(server_round, self._open[1], config)

    def _checked_round(self, server_round: int) -> Steps:
        return checked(self, self.round(server_round))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Apply the replies and take a step; with no update at all the model stays as it is."""
        model = self.model
        before = model.version
        self.train_metrics, self.told = None, {}
        applied = self.ask(server_round, *self._open, replies)
        moved = model.version > before
        if not applied and not moved:
            return None, None
        if applied:
            self.run.attendance.steps += moved
            mass = self.population.mass
            reports = [Report(client.id, mass(client), reply.metrics) for client, reply in applied]
            self.train_metrics = self.train_mean(reports)
            self.train_metrics.update(self.told)
        return model.arrays(), self.train_metrics

    def ask(
        self,
        server_round: int,
        steps: Steps,
        ask: Ask,
        replies: Iterable[Message] | None = None,
    ) -> list[tuple[Client, Reply]]:
        """Serve a round to its end, from its question `ask`; returns whose updates were applied.

        `replies` are the answers to this question, where it was asked already.
        """
        run = self.run
        applied: list[tuple[Client, Reply]] = []
        received: list[Buffers] = []
        while True:
            if replies is None:
                seconds = self.timeout if ask.timeout is None else ask.timeout
                replies = self.grid.send_and_receive(run.orders(server_round, ask), timeout=seconds)
            taken, replies = run.take(server_round, ask, replies), None
            if run.norms is not None:
                self.norm = run.norms.median or self.norm
                self.told.update(run.norms.told())
            if self.ladder is not None:
                self.told.update(self.ladder.told(ask.cohort))
            if ask.applied:
                applied, received = taken, run.received.copy()
            if not taken and ask.what != "model":
                run.explain(server_round)
            if not taken and not ask.optional:
                steps.close()
                return []
            try:
                ask = steps.send([client for client, _ in taken])
            except StopIteration:
                break
        if received:
            model, masses = self.model, [self.population.mass(client) for client, _ in applied]
            model.buffers = average_buffers(model.buffers, received, masses)
        return applied

    def sample(self, server_round: int, fraction: float | None = None) -> list[Client]:
        """Return who is asked in a round, by id: a share of those who are there, and who starts.

        `fraction` is by default the option ``fraction_train``.
        """
        share = self.fraction_train if fraction is None else fraction
        wanted = Wanted(share, self.min_train_nodes)
        return self.run.sample(self.grid, server_round, wanted, training=True)

    def zeros(self, size: int | None = None) -> FloatVector:
        """Return a vector of zeros, as long as the model, or `size`, in its dtype."""
        x = self.model.x
        return zeros(x.size if size is None else size, x.dtype)

    def mass(self, clients: Iterable[Client]) -> float:
        """Return what clients count for together, before it is divided by the total."""
        return sum(map(self.population.mass, clients))

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
