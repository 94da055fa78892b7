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
import time
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from flowerpress.clients.app import TROUBLE, TaskApp, partition_of
from flowerpress.clients.app import client_app as make_client_app
from flowerpress.clients.node import check_keys, check_node
from flowerpress.simulations.run_config import (
    HOST_KEYS,
    Config,
    TaskChoice,
    schedule,
    strategy_choice,
    task_choice,
)
from flowerpress.simulations.tasks import ShippedTaskFn, make_task_fn, task_class, task_options

if TYPE_CHECKING:
    from flowerpress.clients import Task
    from flowerpress.simulations.simulate import SimulationResult

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
        if not task:
            return  # it comes with the run
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
        _task_fn(task_choice(run_config, node_config)).check_host(partition)

    def parts(self, run_config: Config, partition: int, partitions: int) -> int:
        """Return in how many parts the data are for a node, where the server says `partitions`."""
        shared_out = task_class(str(run_config.get("task"))).shared_out
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
def _task_fn(choice: TaskChoice) -> ShippedTaskFn:
    options: dict[str, Any] = dict(choice.options)
    return make_task_fn(choice.name, seed=choice.seed, **options)


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
    from flowerpress.strategies import Checkpoints, make_strategy

    plan = schedule(run_config)
    Checkpoints(Path(plan.checkpoint), plan.every)
    name, options = strategy_choice(run_config)
    make_strategy(name, **options).network(range(clients))
    task_fn = _task_fn(task_choice(run_config))
    task_fn.initial_arrays()
    if task_fn.shared_out:
        task_fn.shards(clients)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run config describes.

    Raises
    ------
    ValueError
        A name, an option or a value in the run config is not valid: says which are.
    """
    # Clients import this module for every message in a deployment: what only a server needs is
    # imported here.
    from flowerpress.simulations.recorder import Recorder
    from flowerpress.simulations.simulate import SimulationResult
    from flowerpress.strategies import Checkpoints, make_strategy

    _log_with_flower()
    plan = schedule(context.run_config)
    name, options = strategy_choice(context.run_config)
    strategy = make_strategy(name, **options)
    task_fn = _task_fn(task_choice(context.run_config))
    evaluate = task_fn.evaluate_fn
    # A grid may want to know: the link's shows it, and keeps it.
    note = getattr(grid, "note_round", None)
    recorder = Recorder(strategy, evaluate, note, node_evaluate_fn=evaluate)
    if plan.checkpoint:
        facts = {"task": list(map(str, task_choice(context.run_config)))}
        strategy.checkpoints = Checkpoints(
            Path(plan.checkpoint), plan.every, plan.resume, facts, recorder
        )
    initial = task_fn.initial_arrays()
    start = time.perf_counter()
    result = strategy.start(
        grid, initial, num_rounds=plan.rounds, timeout=plan.timeout, evaluate_fn=recorder
    )
    if note is not None:
        for record in recorder.history:  # of earlier lives too
            note(record)
    arrays = result.arrays if len(result.arrays) else initial
    seconds = time.perf_counter() - start
    finished = SimulationResult(arrays, strategy.ledger, recorder.history, seconds)
    ledger = strategy.ledger
    log.info("uplink %d bytes, downlink %d bytes", ledger.up_bytes, ledger.down_bytes)
    log.info("final model sha256 %s", digest(arrays))
    if plan.out:
        clients = len(strategy.population.clients)
        folder = _save(Path(plan.out), context.run_config, finished, clients)
        log.info("results in %s", folder.resolve())


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


def _save(out: Path, run_config: Config, result: SimulationResult, clients: int) -> Path:
    """Write results.json and plot as other runs do, and the final model and the ledger's rows."""
    from safetensors.numpy import save_file

    from flowerpress.simulations.experiment import Experiment, Outcome
    from flowerpress.simulations.report import save

    choice, (strategy, options) = task_choice(run_config), strategy_choice(run_config)
    seed, compressor = options.pop("seed"), options.pop("compressor", None)
    experiment = Experiment(
        task=choice.name,
        strategy=strategy,
        compressor=None if compressor is None else str(compressor),
        clients=clients,
        rounds=len(result.history) - 1,
        seed=int(seed),
        task_options=dict(choice.options),
        strategy_options=options,
    )
    folder, hints = save(out, [Outcome.of(experiment, result)])
    for hint in hints:
        log.info("%s", hint)
    save_file(
        {str(name): array.numpy() for name, array in result.arrays.items()},
        folder / "model.safetensors",
    )
    rows = [asdict(row) for row in result.ledger.rows]
    (folder / "ledger.json").write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")
    return folder


def _log_with_flower() -> None:
    """Let flowerpress's log go where Flower's goes: to the console, and to `flwr run --stream`."""
    if not log.handlers:
        for handler in logging.getLogger("flwr").handlers:
            log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
