"""A strongly convex problem with noise whose clients disagree, for a run where all goes wrong."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from flowerpress.clients import FunctionTask
from flowerpress.clients import client_app as make_client_app
from flowerpress.simulations.recorder import Recorder
from flowerpress.strategies import Checkpoints, make_strategy

CLIENTS, DIM, ROUNDS = 6, 200, 200
run_config: dict[str, Any] = {"out": "", "checkpoint": "", "resume": False, "pause": 0.03}
CURVATURE = np.linspace(0.3, 1.0, DIM)
CENTERS = np.random.default_rng(1).standard_normal((CLIENTS, DIM))


def new_strategy() -> Any:
    """Return the strategy of the run."""
    options = {"compressor": "topk:0.1", "lr": 0.1, "momentum": 0.2}
    return make_strategy("ef21-sgdm", min_available_nodes=2, min_train_nodes=2, **options)


def task_of(pause: float) -> Any:
    """Return a task function whose client i pulls towards its own center, with noise."""

    def task_fn(i: int, n: int) -> FunctionTask:
        def gradient(x: Any, noise: Any) -> tuple[float, Any]:
            time.sleep(pause)  # so that faults fall into all parts of a round
            return 0.0, CURVATURE * (x - CENTERS[i]) + noise

        return FunctionTask(
            np.full(DIM, 10.0), gradient, draw=lambda rng: 0.3 * rng.standard_normal(DIM)
        )

    return task_fn


def gradient_norm(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Return the norm of the mean of the clients' gradients, without noise."""
    x = arrays["x"].numpy()
    return MetricRecord({"norm": float(np.linalg.norm(CURVATURE * (x - CENTERS.mean(axis=0))))})


server_app = ServerApp()
client_app = make_client_app(task_of(float(run_config["pause"])))


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds, with a checkpoint after each."""
    config = context.run_config
    strategy = new_strategy()
    recorder = Recorder(strategy, gradient_norm, grid.note_round)
    strategy.checkpoints = Checkpoints(
        Path(str(config["checkpoint"])), 1, bool(config["resume"]), {}, recorder
    )
    initial = ArrayRecord({"x": Array(np.full(DIM, 10.0))})
    strategy.start(grid, initial, num_rounds=ROUNDS, timeout=20, evaluate_fn=recorder)
    for record in recorder.history:  # of earlier lives too
        grid.note_round(record)
