"""What every strategy makes of a run, calm or troubled, on every engine of ours: as recorded.

    python -m tests.recorded             # compares with tests/recorded.txt; 1 if one differs
    python -m tests.recorded --record    # writes that file
    python -m tests.recorded ef21        # of one strategy

A line is a strategy, a way to run it, and a digest of the model, of the ledger row by row, and of
all metrics. They are the same on every machine, see `tests.same_bytes`, whose tasks these are.
Whoever changes how a strategy is written, and not what it does, compares before and after.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord

from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations import SimulationResult, simulate
from flowerpress.simulations.faults import Faults
from flowerpress.strategies import make_strategy, strategy_class, strategy_names, strategy_options
from tests import same_bytes
from tests.same_bytes import CLIENTS, OPTIONS, plain
from tests.transport.linked import connected

FILE = Path(__file__).with_suffix(".txt")
ROUNDS, SEED = 12, 3
Options = dict[str, Any]


class StoppedError(Exception):
    """The server's process is gone."""


class Moving(FunctionTask):
    """The task of `tests.same_bytes` with a buffer that every gradient moves."""

    def __init__(self, client: int, clients: int) -> None:
        plain_task = same_bytes.task_fn(client, clients)
        model = plain_task.initial_arrays()["x"].numpy()
        super().__init__(
            {"x": model, "seen": np.zeros(3, np.float32)},
            plain_task.gradient,
            draw=plain_task.draw,
            num_examples=client + 1,
            evaluate=plain_task.evaluate,
        )
        self.seen = np.zeros(3, np.float32)

    def gradient(self, x: Any, batch: Any) -> Any:
        loss, gradient = super().gradient(x, batch)
        self.seen = np.float32(0.5) * self.seen + gradient[:3]
        return loss, gradient

    def buffer_names(self) -> tuple[str, ...]:
        return ("seen",)

    def buffers(self) -> dict[str, Any]:
        return {"seen": self.seen.copy()}

    def load_buffers(self, values: Any) -> None:
        self.seen = np.array(values["seen"])


def wide(client: int, clients: int) -> FunctionTask:
    """Return the task of `tests.same_bytes` with a model of float64."""
    task = same_bytes.task_fn(client, clients)
    return FunctionTask(
        np.zeros(same_bytes.DIM),
        task.gradient,
        draw=task.draw,
        num_examples=client + 1,
        evaluate=task.evaluate,
    )


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Return something of a model that no machine rounds in another way."""
    return MetricRecord({"first": float(arrays["x"].numpy()[0])})


def run(
    name: str,
    options: Options,
    task_fn: Callable[[int, int], Any] = same_bytes.task_fn,
    **more: Any,
) -> SimulationResult:
    """Run a strategy in this process."""
    options = {"lr": 0.02, **OPTIONS.get(name, {}), **options}
    given = {"seed": SEED, "evaluate_fn": evaluate, "node_evaluate_fn": evaluate, **more}
    return simulate(make_strategy(name, **options), task_fn, CLIENTS, ROUNDS, **given)


def calm(name: str) -> SimulationResult:
    """Run it on a model with buffers, which the clients evaluate."""
    return run(name, {"fraction_evaluate": 1.0}, Moving)


def in_float64(name: str) -> SimulationResult:
    """Run it on a model of float64."""
    return run(name, {}, wide)


def sampled(name: str) -> SimulationResult:
    """Ask some clients a round, which take local steps, if the strategy has any."""
    few = {"fraction_train": 0.5, "local_steps": 2, "schedule": "cosine:rounds=12"}
    return run(name, {key: few[key] for key in few if key in strategy_class(name).options})


def pressed_both_ways(name: str) -> SimulationResult:
    """Press the downlink too, where that is an option."""
    both = {"downlink": "topk:0.1"} if "downlink" in strategy_options(name) else {}
    return run(name, both, Moving)


def lossy(name: str) -> SimulationResult:
    """Lose messages, and kill clients, whose memory is on disk."""
    faults = Faults(down=0.15, up=0.15, kill={4: [1], 9: [0, 2]}, seed=1)
    with TemporaryDirectory() as folder:
        return run(name, {}, Moving, faults=faults, state_dir=folder)


def without_its_disk(name: str) -> SimulationResult:
    """Lose a client's memory for good after round 5."""
    with TemporaryDirectory() as folder:

        def lose(record: Any) -> None:
            if record.round == 5:
                for path in Path(folder).glob("run-*/client-1.safetensors"):
                    path.unlink()

        # A live client would not look: it is killed in that round.
        faults = Faults(kill={count: [1] for count in range(4, 12)})
        return run(name, {}, faults=faults, state_dir=folder, on_round=lose)


def resumed(name: str) -> SimulationResult:
    """Stop the server after round 5, and go on from its checkpoint."""

    def stop(record: Any) -> None:
        if record.round == 5:
            raise StoppedError

    with TemporaryDirectory() as folder:
        try:
            run(name, {}, Moving, checkpoint=folder, on_round=stop)
        except StoppedError:
            return run(name, {}, Moving, checkpoint=folder, resume=True)
    raise AssertionError("it was not stopped")


def over_the_link(name: str) -> Any:
    """Run it on the gRPC link, each client in a thread of its own."""
    strategy = make_strategy(name, seed=SEED, lr=0.02, **OPTIONS.get(name, {}))
    with connected(client_app(Moving), CLIENTS) as (_, grid, _):
        result = strategy.start(grid, Moving(0, CLIENTS).initial_arrays(), num_rounds=ROUNDS)
    return result, strategy.ledger


WAYS: dict[str, Callable[[str], Any]] = {
    each.__name__: each
    for each in (
        *(calm, in_float64, sampled, pressed_both_ways),
        *(lossy, without_its_disk, resumed, over_the_link),
    )
}


def digest(name: str, way: str) -> str:
    """Return the digest of a run; of an error, where a strategy cannot be run so."""
    try:
        found = WAYS[way](name)
    except ValueError as error:
        return hashlib.sha256(str(error).encode()).hexdigest()[:16]
    total = hashlib.sha256()
    if isinstance(found, tuple):
        result, ledger = found
        # Over a network hellos come in any order.
        rows = sorted(map(repr, ledger.rows))
    else:
        result, rows = found, [repr(row) for row in found.ledger.rows]
        for each in found.history:
            metrics = [sorted(each.metrics.items()), sorted(each.train.items())]
            total.update(repr([*metrics, sorted(each.evaluate.items())]).encode())
    total.update(plain(result.arrays) + "\n".join(rows).encode())
    return total.hexdigest()[:16]


def lines(names: list[str]) -> list[str]:
    """Return a line for each strategy and way."""
    return [f"{name:<18}{way:<19}{digest(name, way)}" for name in names for way in WAYS]


def main() -> int:
    """Compare with what is recorded, or record it."""
    parser = argparse.ArgumentParser(description="Compare runs with what was recorded of them.")
    parser.add_argument("names", nargs="*", metavar="STRATEGY", help="by default all")
    parser.add_argument("--record", action="store_true", help=f"write {FILE.name}")
    options = parser.parse_args()
    if options.names and options.record:
        parser.error("--record is of all strategies")
    found = lines(options.names or strategy_names())
    if options.record:
        FILE.write_text("\n".join(found) + "\n", encoding="utf-8")
        return 0
    recorded = set(FILE.read_text(encoding="utf-8").splitlines())
    other = [line for line in found if line not in recorded]
    sys.stdout.write("".join(f"another one: {line}\n" for line in other))
    sys.stdout.write(f"{len(found) - len(other)} of {len(found)} runs as recorded\n")
    return 1 if other else 0


if __name__ == "__main__":
    sys.exit(main())
