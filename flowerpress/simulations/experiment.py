"""Experiments: a run on a shipped task, described by names alone, and its dense counterpart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flowerpress.server import saved
from flowerpress.simulations.constants import with_constants
from flowerpress.simulations.options import Option
from flowerpress.simulations.own_task import TaskSource, find_task, label_of
from flowerpress.simulations.recorder import RoundRecord
from flowerpress.simulations.result import SimulationResult
from flowerpress.simulations.simulate import simulate
from flowerpress.simulations.tasks import ShippedTaskFn
from flowerpress.strategies import (
    Checkpoints,
    CompressedStrategy,
    make_strategy,
    strategy_class,
    strategy_options,
)

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
        Name of a shipped task (`task_names()`), or of one's own (`find_task`).
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
        if "seed" in {*self.strategy_options, *self.task_options}:
            raise ValueError("seed is an option of the run, not of its strategy or its task")
        if self.compressor is not None and "compressor" in self.strategy_options:
            raise ValueError("option 'compressor' is given twice")

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
        source = find_task(self.task, self.seed, dict(self.task_options))
        if isinstance(source.task_fn, ShippedTaskFn):
            source.task_fn.shards(self.clients)  # whether the data can be shared out so
        given, constants = with_constants(self.strategy, options, source, self.clients)
        strategy = make_strategy(self.strategy, seed=self.seed, **given)
        network = strategy.network(range(self.clients))
        spec = None if self.strategy == strategy.baseline else strategy.compressor_text
        found = {k: v for k, v in given.items() if k not in options}
        experiment = replace(
            self, compressor=spec, strategy_options={**self.strategy_options, **found}
        )
        return PreparedRun(experiment, strategy, source, network, constants)

    @property
    def title(self) -> str:
        """Strategy and compressor, as tables and plots name the run."""
        return " ".join(filter(None, (self.strategy, self.compressor)))

    @property
    def label(self) -> str:
        """The task's short name."""
        return label_of(self.task)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class PreparedRun:
    """An experiment whose names, options and data are known to be good.

    Its `experiment` names the compressor even where the strategy's default is used, and the
    smoothness that the task gave. `network` says which nodes talk with each other, where they do;
    `constants` what the step size by theory is made of, where the task gave it.
    """

    experiment: Experiment
    strategy: CompressedStrategy
    source: TaskSource
    network: str = ""
    constants: str = ""

    def simulate(
        self,
        on_round: Callable[[RoundRecord], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> SimulationResult:
        """Run in this process; `on_round` is called after each round.

        What ends the run before its time is raised with the result so far, as by `simulate`.
        """
        experiment, source = self.experiment, self.source
        return simulate(
            self.strategy,
            source.task_fn,
            num_clients=experiment.clients,
            num_rounds=experiment.rounds,
            seed=experiment.seed,
            evaluate_fn=source.evaluate_fn,
            threads=experiment.threads,
            on_round=on_round,
            node_evaluate_fn=source.evaluate_fn,
            checkpoint=checkpoints,
        )

    def checkpoints(self, folder: Path, *, resume: bool) -> Checkpoints:
        """Return the checkpoints in a folder, for `simulate`.

        Raises
        ------
        CheckpointError
            The folder holds another run, or one that is not to be resumed.
        OSError
            There can be no such folder.
        """
        experiment = self.experiment
        facts = {"task": experiment.task, "task_options": dict(experiment.task_options)}
        checkpoints = Checkpoints(folder, resume=resume, facts=facts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"checkpoints cannot be kept in {folder}: {reason}") from error
        if found := checkpoints.open():
            saved.check(found, self.strategy, {**facts, "clients": experiment.clients})
        return checkpoints
