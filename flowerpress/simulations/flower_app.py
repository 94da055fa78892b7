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
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from flowerpress.clients import client_app as make_client_app
from flowerpress.simulations.run_config import (
    Config,
    TaskChoice,
    schedule,
    strategy_choice,
    task_choice,
)
from flowerpress.simulations.tasks import ShippedTaskFn, make_task_fn
from flowerpress.strategies.errors import FailedRunError

if TYPE_CHECKING:
    from flowerpress.clients import Task
    from flowerpress.simulations.experiment import Experiment
    from flowerpress.simulations.recorded import SimulationResult

log = logging.getLogger("flowerpress")
server_app = ServerApp()
client_app = ClientApp()


# --- the client -----------------------------------------------------------------------------------


@client_app.train()
@client_app.evaluate()
@client_app.query()
def answer(message: Message, context: Context) -> Message:
    """Answer any message, with the task that run config and node config name."""
    _log_with_flower()
    return _client(task_choice(context.run_config, context.node_config))(message, context)


@lru_cache(maxsize=8)
def _client(choice: TaskChoice) -> ClientApp:
    """Return the ClientApp of a task; kept, for Ray's processes answer many messages."""

    def task_fn(partition: int, partitions: int) -> Task:
        return _task_fn(choice)(partition, partitions)  # made here: what fails is then reported

    return make_client_app(task_fn)


@lru_cache(maxsize=8)
def _task_fn(choice: TaskChoice) -> ShippedTaskFn:
    options: dict[str, Any] = dict(choice.options)
    return make_task_fn(choice.name, seed=choice.seed, **options)


# --- the server -----------------------------------------------------------------------------------


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
    from flowerpress.simulations.own_task import find_task
    from flowerpress.simulations.recorded import result_of, run_recorded
    from flowerpress.simulations.recorder import Recorder
    from flowerpress.simulations.results import make_folder
    from flowerpress.simulations.simulate import initial_arrays
    from flowerpress.strategies import Checkpoints, make_strategy

    _log_with_flower()
    config = context.run_config
    plan = schedule(config)
    name, options = strategy_choice(config)
    strategy = make_strategy(name, **options)
    choice = task_choice(config)
    task_fn, evaluate = find_task(choice.name, choice.seed, dict(choice.options))
    # A grid may want to know: the link's shows it, and keeps it.
    note = getattr(grid, "note_round", None)
    recorder = Recorder(strategy, evaluate, note, node_evaluate_fn=evaluate)
    if plan.checkpoint:
        facts = {"task": list(map(str, choice))}
        strategy.checkpoints = Checkpoints(
            Path(plan.checkpoint), plan.every, plan.resume, facts, recorder
        )
    initial = initial_arrays(task_fn, strategy.min_available_nodes)
    folder = make_folder(Path(plan.out), _experiment(config)) if plan.out else None
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
    log.info("uplink %d bytes, downlink %d bytes", ledger.up_bytes, ledger.down_bytes)
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
