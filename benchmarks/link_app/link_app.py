"""A quadratic problem of any size, for timing rounds: client i pulls towards the vector of i's."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from flowerpress.clients import FunctionTask
from flowerpress.clients import client_app as make_client_app
from flowerpress.strategies import make_strategy

server_app = ServerApp()
client_app = ClientApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    dim, rounds, clients = (int(config[k]) for k in ("dim", "num-server-rounds", "clients"))
    name = str(config["strategy"])
    options = {} if name == "fedavg" else {"compressor": str(config["compressor"])}
    strategy = make_strategy(name, lr=0.01, min_available_nodes=clients, **options)
    times: list[float] = []
    last = [time.perf_counter()]

    def note(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        now = time.perf_counter()
        times.append(now - last[0])
        last[0] = now
        return None

    initial = ArrayRecord({"x": Array(np.zeros(dim, np.float32))})
    strategy.start(grid, initial, num_rounds=rounds, timeout=600, evaluate_fn=note)
    if config["times"]:
        Path(str(config["times"])).write_text(json.dumps(times[1:]), encoding="utf-8")
    if config["ledger"]:
        ledger = {"up": strategy.ledger.up_bytes, "down": strategy.ledger.down_bytes}
        Path(str(config["ledger"])).write_text(json.dumps(ledger), encoding="utf-8")


@lru_cache
def client_of(dim: int) -> ClientApp:
    """Return the ClientApp for models of `dim` numbers; kept by a process that lasts."""

    def task_fn(i: int, n: int) -> FunctionTask:
        return FunctionTask(np.zeros(dim, np.float32), lambda x, batch: (0.0, x - np.float32(i)))

    return make_client_app(task_fn)


@client_app.train()
@client_app.evaluate()
@client_app.query()
def answer(message: Message, context: Context) -> Message:
    return client_of(int(context.run_config["dim"]))(message, context)
