"""Experiments: a run on a shipped task, described by names alone, and its dense counterpart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowerpress.simulations.options import Option
from flowerpress.simulations.recorder import RoundRecord
from flowerpress.simulations.simulate import SimulationResult, simulate
from flowerpress.simulations.tasks import ShippedTaskFn, make_task_fn
from flowerpress.strategies import (
    Checkpoints,
    CompressedStrategy,
    make_strategy,
    strategy_class,
    strategy_options,
)

if TYPE_CHECKING:
    from flowerpress.protocol.ledger import RoundBytes

# What says how much each client computes, on which data, and who takes part. The dense run keeps
# these, so that both runs see the same batches; what belongs to one algorithm (momentum, the
# compressed downlink) stays behind.
SHARED_OPTIONS = frozenset(
    {
        "lr",
        "local_steps",
        "local_lr",
        "schedule",
        "smoothness",
        "smoothness_plus",
        "weights",
        "max_weight",
        "fraction_train",
        "fraction_evaluate",
        "min_train_nodes",
        "min_available_nodes",
    }
)
GOSSIP_OPTIONS = frozenset({"topology", "momentum", "init", "patience", "collect_every"})
"""What plain decentralized SGD, the dense counterpart of gossip, keeps besides."""
ADAM_OPTIONS = frozenset({"beta1", "beta2", "eps", "decay", "bias_correction"})
"""What the dense counterparts of the Adam family keep besides."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A run that names alone describe, so that it can be written down and run again.

    Attributes
    ----------
    task : str
        Name of a shipped task (`task_names()`).
    strategy : str
        Name of a strategy (`strategy_names()`).
    compressor : str or None
        Spec of the uplink's compressor, such as `topk:0.01`. None: the strategy's own default.
    clients, rounds : int
        Number of clients, and of rounds.
    seed : int
        Fixes the shards, the initial model, the batches and the compressors' randomness.
    threads : int or None
        Threads that train clients at the same time. None: the engine's choice. Changes no result.
    task_options, strategy_options : mapping
        Further options by their Python names. Absent ones have the task's and the strategy's
        defaults.

    Examples
    --------
    >>> options = {"lr": 0.5, "downlink": "topk:0.1"}
    >>> pressed = Experiment(task="digits", strategy="ef21", strategy_options=options)
    >>> pressed.dense(lr=0.1).strategy_options
    {'lr': 0.1}
    """

    task: str
    strategy: str = "ef21-sgdm"
    compressor: str | None = None
    clients: int = 10
    rounds: int = 50
    seed: int = 0
    threads: int | None = None
    task_options: Mapping[str, Option] = field(default_factory=dict)
    strategy_options: Mapping[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("clients", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is {self.threads}, but must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, but must not be negative")

    def dense(self, lr: float | None = None) -> Experiment:
        """Return the dense run with this run's data, batches, rounds and clients.

        It is FedAvg; for strategies without a server model plain decentralized SGD, for the Adam
        family dense Adam, AMSGrad or FedAMS, with the method's own settings of these.

        Parameters
        ----------
        lr : float or None
            The dense run's own learning rate. None: this run's.
        """
        strategy, given, kept = strategy_class(self.strategy).baseline, {}, SHARED_OPTIONS
        if strategy != "fedavg":  # a method's own defaults say what its counterpart does
            more = GOSSIP_OPTIONS if strategy == "d-psgd" else ADAM_OPTIONS
            given = strategy_options(self.strategy)
            kept = (SHARED_OPTIONS | more) & set(strategy_options(strategy))
        options = {k: v for k, v in {**given, **self.strategy_options}.items() if k in kept}
        if lr is not None:
            options["lr"] = lr
        return replace(self, strategy=strategy, compressor=None, strategy_options=options)

    def prepare(self) -> PreparedRun:
        """Look up and check all names, options and data before anything runs.

        Raises
        ------
        ValueError
            For an unknown name or option, or a value out of range; says which are valid.
        OSError
            For a data file that cannot be read.
        """
        options: dict[str, Any] = dict(self.strategy_options)
        if self.compressor is not None:
            options["compressor"] = self.compressor
        strategy = make_strategy(self.strategy, seed=self.seed, **options)
        network = strategy.network(range(self.clients))
        task_options: dict[str, Any] = dict(self.task_options)
        task_fn = make_task_fn(self.task, seed=self.seed, **task_options)
        task_fn.shards(self.clients)  # whether the data can be shared out so
        spec = None if self.strategy == strategy.baseline else strategy.compressor
        return PreparedRun(replace(self, compressor=spec), strategy, task_fn, network)

    @property
    def title(self) -> str:
        """Strategy and compressor, as tables and plots name the run."""
        return " ".join(filter(None, (self.strategy, self.compressor)))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class PreparedRun:
    """An experiment whose names, options and data are known to be good.

    Its `experiment` names the compressor even where the strategy's default is used. `network` says
    which nodes talk with each other, where they do.
    """

    experiment: Experiment
    strategy: CompressedStrategy
    task_fn: ShippedTaskFn
    network: str = ""

    def run(
        self,
        on_round: Callable[[RoundRecord], None] | None = None,
        *,
        checkpoint: Path | None = None,
        resume: bool = False,
    ) -> Outcome:
        """Run in this process; `on_round` is called after each round.

        `checkpoint` and `resume` are those of `simulate`.
        """
        experiment, saved = self.experiment, None
        if checkpoint is not None:
            facts = {"task": experiment.task, "task_options": dict(experiment.task_options)}
            saved = Checkpoints(checkpoint, resume=resume, facts=facts)
        result = simulate(
            self.strategy,
            self.task_fn,
            num_clients=experiment.clients,
            num_rounds=experiment.rounds,
            seed=experiment.seed,
            evaluate_fn=self.task_fn.evaluate_fn,
            threads=experiment.threads,
            on_round=on_round,
            node_evaluate_fn=self.task_fn.evaluate_fn,
            checkpoint=saved,
        )
        return Outcome.of(experiment, result)


@dataclass(frozen=True)
class Outcome:
    """What one run reached, and what it sent.

    Attributes
    ----------
    up_bytes, down_bytes : int
        Bytes as sent, payload and framing, from and to all clients over the whole run.
    dense_up_bytes : int
        Computed, not measured: bytes of the model times the number of uplink messages, without
        any framing.
    seconds : float
        Wall-clock time of the run.
    up_collected : int
        Of the uplink's bytes, those of nodes' own models that were asked for (gossip).
    """

    experiment: Experiment
    history: tuple[RoundRecord, ...]
    ledger_rounds: tuple[RoundBytes, ...]
    up_bytes: int
    down_bytes: int
    dense_up_bytes: int
    seconds: float
    up_collected: int = 0

    @classmethod
    def of(cls, experiment: Experiment, result: SimulationResult) -> Outcome:
        """Gather the outcome of `experiment` from what the simulation returned."""
        model_bytes = sum(array.numpy().nbytes for array in result.arrays.values())
        rounds = tuple(result.ledger.rounds)
        return cls(
            experiment=experiment,
            history=tuple(result.history),
            ledger_rounds=rounds,
            up_bytes=result.ledger.up_bytes,
            down_bytes=result.ledger.down_bytes,
            dense_up_bytes=model_bytes * sum(row.clients for row in rounds),
            seconds=result.seconds,
            up_collected=sum(row.up_collected for row in rounds),
        )

    @property
    def up_training(self) -> int:
        """Uplink bytes but for those of nodes' own models that were asked for."""
        return self.up_bytes - self.up_collected

    @property
    def final(self) -> dict[str, float]:
        """Metrics of the final model on held-out data."""
        return dict(self.history[-1].metrics) if self.history else {}

    def ratio_to_dense(self, dense: Outcome | None = None) -> tuple[float, str]:
        """Return how many times fewer uplink bytes than a dense run this one sent in training.

        Parameters
        ----------
        dense : Outcome or None
            The dense run. None: compare with what the same messages would carry as dense vectors.

        Returns
        -------
        tuple[float, str]
            The ratio, and where it comes from: `"measured"` or `"computed"`.
        """
        if dense is not None:
            return dense.up_training / max(self.up_training, 1), "measured"
        return self.dense_up_bytes / max(self.up_training, 1), "computed"


@dataclass(frozen=True)
class Targets:
    """What a run must reach beside its dense baseline.

    Attributes
    ----------
    min_ratio : float or None
        At least this many times fewer uplink bytes as sent.
    max_drop : float or None
        Accuracy at most this many points (hundredths) below the baseline's.
    """

    min_ratio: float | None = None
    max_drop: float | None = None

    def missed(self, outcome: Outcome, dense: Outcome) -> list[str]:
        """Return one sentence for each target that `outcome` misses."""
        sentences = []
        ratio, _ = outcome.ratio_to_dense(dense)
        if self.min_ratio is not None and ratio < self.min_ratio:
            sentences.append(
                f"{ratio:.1f}x fewer uplink bytes than dense; the target is {self.min_ratio:g}x"
            )
        if self.max_drop is not None:
            drop = 100 * (dense.final["accuracy"] - outcome.final["accuracy"])
            if not drop <= self.max_drop:  # so that NaN misses too
                sentences.append(
                    f"accuracy is {drop:.2f} points below dense; the target is {self.max_drop:g}"
                )
        return sentences
