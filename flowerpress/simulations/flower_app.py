"""flowerpress as a Flower App: `flwr run .` in Ray simulation, or on SuperLink and SuperNodes.

The run config names strategy, compressor, task and all their options (see `run_config`), so

    flwr run . --run-config 'strategy="ef14" compressor="sign"'

swaps the algorithm and nothing else. A node's own config says which shard it holds
(``partition-id``, ``num-partitions``), and may say how it computes: ``compressor``, ``backend``,
``device``, ``path``, ``state-dir``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from flowerpress.server.errors import FailedRunError
from flowerpress.simulations.own_task import find_registered_task, find_task
from flowerpress.simulations.run_config import (
    HOST_KEYS,
    Config,
    TaskChoice,
    schedule,
    strategy_choice,
    task_choice,
)
from flowerpress.simulations.tasks import (
    ShippedTaskFn,
    make_task_fn,
    task_class,
    task_names,
    task_options,
)
from flowerpress.worker.app import TROUBLE, TaskApp, partition_of
from flowerpress.worker.app import client_app as make_client_app
from flowerpress.worker.node import check_keys, check_node

if TYPE_CHECKING:
    from flowerpress.clients import Task
    from flowerpress.simulations.experiment import Experiment
    from flowerpress.simulations.result import SimulationResult

log = logging.getLogger("flowerpress")


class ShippedApp(ClientApp):
    """The ClientApp of the shipped tasks; a client over the link can ask it a little more."""

    @property
    def unfit(self) -> str:
        """Why this thread's client cannot take part, as it said when it was last asked."""
        return TROUBLE.reason

    def check_config(self, node_config: Config, task: str) -> None:
        """Raise `ValueError` for a node config that is wrong for a task, whatever the run.

        Raises `OSError` or `ImportError` where data or a package are not there. An empty `task` is
        one that is not known yet.
        """
        check_keys(node_config, HOST_KEYS)
        check_node(node_config)
        if task not in task_names():
            return  # it comes with the run, or is another package's
        own: dict[str, Any] = {
            key.replace("-", "_"): value for key, value in node_config.items() if key in HOST_KEYS
        }
        if "path" in own or "path" not in task_options(task):
            # Packages that lack and files that are not there are found by making it.
            task_fn = make_task_fn(task, **own)
            task_fn.check_host(int(node_config.get("partition-id", 0)))

    def check_run(self, node_config: Config, run_config: Config) -> None:
        """Raise `ValueError` where this node cannot take part in a run."""
        partition, _ = partition_of(node_config)
        task_fn = _task_fn(task_choice(run_config, node_config))
        if isinstance(task_fn, ShippedTaskFn):
            task_fn.check_host(partition)

    def parts(self, run_config: Config, partition: int, partitions: int) -> int:
        """Return in how many parts the data are for a node, where the server says `partitions`."""
        name = str(run_config.get("task"))
        shared_out = name not in task_names() or task_class(name).shared_out
        return partitions if shared_out else max(partitions, partition + 1)


server_app = ServerApp()
client_app = ShippedApp()


# --- the client -----------------------------------------------------------------------------------


@client_app.train()
@client_app.evaluate()
@client_app.query()
def answer(message: Message, context: Context) -> Message:
    """Answer any message, with the task that run config and node config name."""
    _log_with_flower()
    return _client(task_choice(context.run_config, context.node_config))(message, context)


@lru_cache(maxsize=8)
def _client(choice: TaskChoice) -> TaskApp:
    """Return the ClientApp of a task; kept, for Ray's processes answer many messages."""

    def task_fn(partition: int, partitions: int) -> Task:
        return _task_fn(choice)(partition, partitions)  # made here: what fails is then reported

    return make_client_app(task_fn)


@lru_cache(maxsize=8)
def _task_fn(choice: TaskChoice) -> Callable[[int, int], Task]:
    """Return a shipped task's function, or that of a package that is installed here."""
    return find_registered_task(choice.name, choice.seed, dict(choice.options)).task_fn


# --- the server -----------------------------------------------------------------------------------


def check_run(run_config: Config, clients: int) -> None:
    """Raise for a run config that no run can have, before anybody connects.

    Parameters
    ----------
    clients : int
        How many the run is for.

    Raises
    ------
    ValueError
        A name, an option or a value is not valid: says which are.
    OSError, ImportError
        Data, or a package, are not there.
    """
    from flowerpress.simulations.constants import with_constants
    from flowerpress.strategies import Checkpoints, make_strategy

    plan = schedule(run_config)
    Checkpoints(Path(plan.checkpoint), plan.every)
    name, options = strategy_choice(run_config)
    if options.get("lr") != "theory":  # what is wrong there is found without any data
        make_strategy(name, **options).network(range(clients))
    choice = task_choice(run_config)
    source = find_task(choice.name, choice.seed, dict(choice.options))
    if isinstance(source.task_fn, ShippedTaskFn):
        source.task_fn.initial_arrays()
        if source.task_fn.shared_out:
            source.task_fn.shards(clients)
    options, _ = with_constants(name, options, source, clients)
    make_strategy(name, **options).network(range(clients))


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run config describes.

    Raises
    ------
    ValueError
        A name, an option or a value in the run config is not valid: says which are.
    FailedRunError
        All rounds were run, and nothing was trained, or the loss diverged.
    """
    # Clients import this module for every message in a deployment: what only a server needs is
    # imported here.
    from flowerpress.simulations.constants import with_constants
    from flowerpress.simulations.recorded import run_recorded
    from flowerpress.simulations.recorder import Recorder
    from flowerpress.simulations.result import result_of
    from flowerpress.simulations.simulate import initial_arrays
    from flowerpress.strategies import Checkpoints, make_strategy, strategy_options

    _log_with_flower()
    config = context.run_config
    plan = schedule(config)
    name, options = strategy_choice(config)
    choice = task_choice(config)
    source = find_task(choice.name, choice.seed, dict(choice.options))
    clients = {**strategy_options(name), **options}["min_available_nodes"]
    options, constants = with_constants(name, options, source, max(int(clients), 1))
    if constants:
        log.info("%s", constants)
    strategy = make_strategy(name, **options)
    task_fn, evaluate = source.task_fn, source.evaluate_fn
    # A grid may want to know: the link's shows it, and keeps it.
    note = getattr(grid, "note_round", None)
    recorder = Recorder(strategy, evaluate, note, node_evaluate_fn=evaluate)
    if plan.checkpoint:
        facts = {"task": list(map(str, choice))}
        strategy.checkpoints = Checkpoints(
            Path(plan.checkpoint), plan.every, plan.resume, facts, recorder
        )
    initial = initial_arrays(task_fn, max(strategy.min_available_nodes, 1))
    folder = _make_folder(config)
    try:
        finished = run_recorded(
            strategy, grid, initial, recorder, num_rounds=plan.rounds, timeout=plan.timeout
        )
    except BaseException as error:
        _keep_partial(folder, config, result_of(error))
        raise
    finally:
        if note is not None:
            for record in recorder.history:  # of earlier lives too
                note(record)
    ledger = strategy.ledger
    log.info("whole run: uplink %d bytes, downlink %d bytes", ledger.up_bytes, ledger.down_bytes)
    log.info("final model sha256 %s", digest(finished.arrays))
    if folder is not None:
        _save(folder, config, finished)
    if finished.verdict.useless:
        raise FailedRunError(finished.verdict.reason)


def digest(arrays: ArrayRecord) -> str:
    """Return the SHA-256 of a model: of its arrays' names and bytes, in order.

    Examples
    --------
    >>> import numpy as np
    >>> from flwr.app import Array
    >>> digest(ArrayRecord({"x": Array(np.zeros(2))}))[:16]
    '425a5f792e88a1a4'
    """
    total = hashlib.sha256()
    for name, array in arrays.items():
        total.update(name.encode() + b"\0" + array.numpy().tobytes())
    return total.hexdigest()


def _experiment(run_config: Config, clients: int = 1) -> Experiment:
    """Return what a run config describes, as results name it."""
    from flowerpress.simulations.experiment import Experiment

    choice, (strategy, options) = task_choice(run_config), strategy_choice(run_config)
    seed, compressor = options.pop("seed"), options.pop("compressor", None)
    return Experiment(
        task=choice.name,
        strategy=strategy,
        compressor=None if compressor is None else str(compressor),
        clients=clients,
        rounds=schedule(run_config).rounds,
        seed=int(seed),
        task_options=dict(choice.options),
        strategy_options=options,
    )


def _make_folder(run_config: Config) -> Path | None:
    """Make the folder of a run that begins; None where its config names no place for any."""
    from flowerpress.simulations.results import make_folder

    plan = schedule(run_config)
    if not plan.out:
        return None
    saved = Path(plan.checkpoint) if plan.checkpoint else None
    return make_folder(Path(plan.out), _experiment(run_config), saved, resume=plan.resume)


def _save(folder: Path, run_config: Config, result: SimulationResult) -> None:
    """Write what other runs write too, and the ledger's rows."""
    from flowerpress.simulations.outcome import Outcome
    from flowerpress.simulations.results import MODEL, write

    experiment = _experiment(run_config, clients=max(result.clients, 1))
    rows = [asdict(row) for row in result.ledger.rows]
    (folder / "ledger.json").write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")
    outcome = Outcome.of(experiment, result)
    for hint in write(folder, [outcome], models={MODEL: result.arrays}):
        log.info("%s", hint)
    log.info("results in %s", folder.resolve())


def _keep_partial(folder: Path | None, run_config: Config, result: SimulationResult | None) -> None:
    """Write what there is of a run that was stopped; what ended it goes on being raised."""
    from flowerpress.simulations.results import discard

    if folder is None:
        return
    if result is None or not result.done:
        discard(folder)
        return
    try:
        _save(folder, run_config, result)
    except OSError as error:
        log.error("%s", error)


def _log_with_flower() -> None:
    """Let flowerpress's log go where Flower's goes: to the console, and to `flwr run --stream`."""
    if not log.handlers:
        for handler in logging.getLogger("flwr").handlers:
            log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
