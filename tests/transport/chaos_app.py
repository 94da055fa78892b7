"""A strongly convex problem whose clients disagree; tells the gradient's norm in every round."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from flowerpress.clients import FunctionTask
from flowerpress.clients import client_app as make_client_app
from flowerpress.simulations.recorder import Recorder
from flowerpress.strategies import Checkpoints, make_strategy

CLIENTS, DIM = 6, 200
run_config = {"rounds": 200, "seed": 0, "checkpoint": "checkpoints", "resume": False}
CURVATURE = np.linspace(0.2, 1.0, DIM)
CENTERS = np.random.default_rng(1).standard_normal((CLIENTS, DIM)) * 3


def task_fn(i: int, n: int) -> FunctionTask:
    """Client i pulls towards its own center."""
    return FunctionTask(np.zeros(DIM), lambda x, batch: (0.0, CURVATURE * (x - CENTERS[i])))


client_app = make_client_app(task_fn)
server_app = ServerApp()


def gradient_norm(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    x = arrays["x"].numpy()
    return MetricRecord({"norm": float(np.linalg.norm(CURVATURE * (x - CENTERS.mean(axis=0))))})


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    from pathlib import Path

    config = context.run_config
    strategy = make_strategy(
        "ef21",
        compressor="topk:0.1",
        lr=0.3,
        seed=int(config["seed"]),
        min_available_nodes=2,
        min_train_nodes=2,
        max_scale=1000,
    )
    recorder = Recorder(strategy, gradient_norm, grid.note_round)
    folder = Path(str(config["checkpoint"]))
    strategy.checkpoints = Checkpoints(folder, 1, bool(config["resume"]), {}, recorder)
    initial = ArrayRecord({"x": Array(np.zeros(DIM))})
    strategy.start(grid, initial, num_rounds=int(config["rounds"]), timeout=5, evaluate_fn=recorder)
