"""A Flower app as somebody has it: its own training, in numpy, and nothing of flowerpress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flowerpress.dropin import PressedGrid, press, press_grid
from flowerpress.simulations.engine import InProcessGrid

DIM = 900
Train = Callable[[dict[str, np.ndarray], int, int], dict[str, np.ndarray]]


def target(i: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Where client i wants an array to be."""
    rng = np.random.default_rng([i, len(name), *shape])
    base = np.random.default_rng([len(name), *shape]).standard_normal(shape)
    return (base + 0.3 * rng.standard_normal(shape)).astype(np.float32)


def towards(arrays: dict[str, np.ndarray], i: int, r: int) -> dict[str, np.ndarray]:
    """Train: some way from every float to where this client wants it, with noise."""
    rng = np.random.default_rng([i, r])
    out = {}
    for name, value in arrays.items():
        if value.dtype.kind != "f":
            out[name] = value + value.dtype.type(1)
            continue
        noise = 0.01 * rng.standard_normal(value.shape)
        step = 0.3 * (value - target(i, name, value.shape)) + noise
        out[name] = (value - step).astype(np.float32)
    return out


def start(seed: int = 0) -> ArrayRecord:
    """A model: two arrays of floats."""
    rng = np.random.default_rng(seed)
    return record({"w": rng.standard_normal((30, 30)), "b": np.zeros(30)})


def record(arrays: dict[str, Any]) -> ArrayRecord:
    floats = {
        k: np.asarray(v, np.float32) if np.asarray(v).dtype == np.float64 else np.asarray(v)
        for k, v in arrays.items()
    }
    return ArrayRecord({k: Array(v) for k, v in floats.items()})


def client_app(train: Train = towards, mods: Sequence[Any] = (press,), **more: Any) -> ClientApp:
    """A ClientApp with one record of arrays, and metrics."""
    app = ClientApp(mods=list(mods))
    seen: list[Any] = more.get("seen", [])

    @app.train()
    def on_train(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        config = message.content.config_records.get("config", ConfigRecord())
        arrays = {k: v.numpy() for k, v in message.content["arrays"].items()}
        seen.append((i, {k: v.copy() for k, v in arrays.items()}))
        trained = train(arrays, i, int(config.get("server-round", 0)))
        metrics = MetricRecord({"num-examples": 10 + i, "own-loss": float(i)})
        content = RecordDict({"arrays": record(trained), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def on_evaluate(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        arrays = {k: v.numpy() for k, v in message.content["arrays"].items()}
        seen.append((-1 - i, {k: v.copy() for k, v in arrays.items()}))
        far = sum(float(np.sum((v - target(i, k, v.shape)) ** 2)) for k, v in arrays.items())
        metrics = MetricRecord({"num-examples": 10, "far": far})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def run(
    compressor: str | None = None,
    *,
    rounds: int = 6,
    clients: int = 4,
    strategy: Any = None,
    app: Callable[[], ClientApp] = client_app,
    initial: ArrayRecord | None = None,
    grid_options: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[dict[str, np.ndarray], PressedGrid | None, Any]:
    """Run an app, pressed or not; returns the model, the grid and the strategy's result."""
    strategy = FedAvg(fraction_evaluate=0.0) if strategy is None else strategy
    with InProcessGrid(app, clients, **(grid_options or {})) as grid:
        pressed = press_grid(grid, compressor, **options) if compressor else None
        initial = initial or start()
        result = strategy.start(pressed or grid, initial, num_rounds=rounds)
        return {k: v.numpy() for k, v in result.arrays.items()}, pressed, result


def largest_difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest difference of two models, of the same names in the same order."""
    assert list(one) == list(other)
    return max(float(np.abs(one[k].astype(float) - other[k]).max()) for k in one)


def distance(model: dict[str, np.ndarray], clients: int = 4) -> float:
    """How far a model is from the clients' mean, relative."""
    best = {
        k: np.mean([target(i, k, v.shape) for i in range(clients)], 0) for k, v in model.items()
    }
    off = sum(float(np.sum((v - best[k]) ** 2)) for k, v in model.items())
    return (off / sum(float(np.sum(v**2)) for v in best.values())) ** 0.5
