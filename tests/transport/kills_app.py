"""An app that saves nothing itself: a strategy by name, on noisy quadratics with a buffer."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from flowerpress.clients import client_app as make_client_app
from flowerpress.strategies import make_strategy
from tests.algorithms.lives import OPTIONS, N, Noisy

ROUNDS = 700
PAUSE = 0.03  # seconds that a gradient takes, so that kills fall into all parts of a round
run_config: dict[str, Any] = {"strategy": "ef21", "result": ""}


def new_strategy(name: str) -> Any:
    return make_strategy(name, **{**OPTIONS[name], "min_available_nodes": N, "min_train_nodes": N})


class Slow(Noisy):
    def gradient(self, x: Any, batch: Any) -> Any:
        time.sleep(PAUSE)
        return super().gradient(x, batch)


server_app = ServerApp()
client_app = make_client_app(lambda i, n: Slow(i))


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds, and write the model and the ledger."""
    strategy = new_strategy(str(context.run_config["strategy"]))
    result = strategy.start(grid, Slow(0).initial_arrays(), num_rounds=ROUNDS, timeout=300)
    rows = [asdict(row) for row in strategy.ledger.rows]
    told = {"model": bytes_of(result.arrays).hex(), "rows": rows}
    Path(str(context.run_config["result"])).write_text(json.dumps(told), encoding="utf-8")


def bytes_of(arrays: ArrayRecord) -> bytes:
    return b"".join(np.ascontiguousarray(array.numpy()).tobytes() for array in arrays.values())
