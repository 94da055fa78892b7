"""Every strategy of Flower over a pressed app, with each memory: accuracy beside the dense app.

    python benchmarks/dropin_strategies.py                        # a minute or two
    python benchmarks/dropin_strategies.py --only FedMedian Krum

Ten clients share scikit-learn's digits; the model is a network of 4,810 numbers in numpy.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from typing import Any

import flwr.serverapp.strategy as flower
import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits

from flowerpress.dropin import press, press_grid
from flowerpress.simulations.engine import InProcessGrid

CLIENTS, ROUNDS, HIDDEN, TEST = 10, 30, 64, 360
COMPRESSOR = "topk:0.05"
OPTIONS: dict[str, dict[str, Any]] = {
    "Bulyan": {"num_malicious_nodes": 1},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 6},
    "FedProx": {"proximal_mu": 0.0},
    "FedTrimmedAvg": {"beta": 0.2},
    "FedAdam": {"eta": 0.02},
    "FedYogi": {"eta": 0.02},
    "FedAdagrad": {"eta": 0.02},
    "QFedAvg": {"q": 0.1, "client_learning_rate": 0.1},
}
PRIVATE: dict[str, tuple[float, ...]] = {
    "DifferentialPrivacyServerSideFixedClipping": (0.02, 5.0, CLIENTS),
    "DifferentialPrivacyServerSideAdaptiveClipping": (0.02, CLIENTS),
    "DifferentialPrivacyClientSideFixedClipping": (0.02, 5.0, CLIENTS),
    "DifferentialPrivacyClientSideAdaptiveClipping": (0.02, CLIENTS),
}
_IMAGES, _LABELS = load_digits(return_X_y=True)
_ORDER = np.random.default_rng(0).permutation(len(_LABELS))
IMAGES, LABELS = (_IMAGES[_ORDER] / 16).astype(np.float32), _LABELS[_ORDER]
Model = dict[str, Any]


def first_model() -> Model:
    """Return the model to begin from."""
    rng = np.random.default_rng(1)
    sizes = {"w1": (64, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, 10), "b2": (10,)}
    return {k: (0.15 * rng.standard_normal(size)).astype(np.float32) for k, size in sizes.items()}


def forward(m: Mapping[str, Any], images: Any) -> tuple[Any, Any]:
    """Return the hidden layer and the classes' probabilities."""
    hidden = np.maximum(images @ m["w1"] + m["b1"], 0)
    scores = hidden @ m["w2"] + m["b2"]
    odds = np.exp(scores - scores.max(1, keepdims=True))
    return hidden, odds / odds.sum(1, keepdims=True)


def trained(m: Model, images: Any, labels: Any, rng: np.random.Generator) -> Model:
    """Return the model after an epoch of SGD."""
    order = rng.permutation(len(labels))
    for batch in np.split(order, range(32, len(order), 32)):
        x = images[batch]
        hidden, odds = forward(m, x)
        odds[np.arange(len(batch)), labels[batch]] -= 1
        odds *= np.float32(0.1 / len(batch))
        inner = (odds @ m["w2"].T) * (hidden > 0)
        m["w2"] -= hidden.T @ odds
        m["b2"] -= odds.sum(0)
        m["w1"] -= x.T @ inner
        m["b1"] -= inner.sum(0)
    return m


def client_app(mods: list[Any]) -> ClientApp:
    """Return the app of a client."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays: Any = message.content["arrays"]
        config: Any = message.content["config"]
        i = int(context.node_config["partition-id"])
        m = {key: array.numpy().astype(np.float32) for key, array in arrays.items()}
        images, labels = IMAGES[TEST + i :: CLIENTS], LABELS[TEST + i :: CLIENTS]
        m = trained(m, images, labels, np.random.default_rng([i, int(config["server-round"])]))
        metrics = MetricRecord({"num-examples": len(labels), "train_loss": loss(m, images, labels)})
        record = ArrayRecord({key: Array(value) for key, value in m.items()})
        return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        arrays: Any = message.content["arrays"]
        i = int(context.node_config["partition-id"])
        m = {key: array.numpy() for key, array in arrays.items()}
        images, labels = IMAGES[TEST + i :: CLIENTS], LABELS[TEST + i :: CLIENTS]
        told = {"num-examples": len(labels), "loss": loss(m, images, labels)}
        return Message(RecordDict({"metrics": MetricRecord(told)}), reply_to=message)

    return app


def loss(m: Model, images: Any, labels: Any) -> float:
    """Return the mean cross-entropy."""
    odds = forward(m, images)[1][np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(odds, 1e-9)).mean())


def outcome(name: str, memory: str | None, compressor: str = COMPRESSOR) -> tuple[float, int]:
    """Return the accuracy of a run in %, and the bytes that clients sent; dense: no memory.

    Raises
    ------
    ValueError
        What the strategy promises would be void.
    """
    cls = getattr(flower, name)
    mods: list[Any] = [press]
    if name in PRIVATE:
        strategy = cls(FedAvg(fraction_evaluate=0.0), *PRIVATE[name])
        if "ClientSide" in name:
            mods.append(fixedclipping_mod if "Fixed" in name else adaptiveclipping_mod)
    else:
        judged = 1.0 if name == "QFedAvg" else 0.0
        strategy = cls(fraction_evaluate=judged, **OPTIONS.get(name, {}))
    with InProcessGrid(lambda: client_app(mods), CLIENTS) as grid:
        own: Any = press_grid(grid, compressor, memory=memory) if memory else grid
        first = ArrayRecord({key: Array(value) for key, value in first_model().items()})
        result = strategy.start(own, first, num_rounds=ROUNDS)
    m = {key: array.numpy() for key, array in result.arrays.items()}
    right = forward(m, IMAGES[:TEST])[1].argmax(1) == LABELS[:TEST]
    return float(100 * right.mean()), own.ledger.up_bytes if memory else 0


def cell(name: str, memory: str | None) -> str:
    """Return the accuracy of a run in %; or why it is refused."""
    try:
        return f"{outcome(name, memory)[0]:.1f}"
    except ValueError as error:
        return f"refused: {str(error).split(':')[0]}"


def main() -> int:
    """Print the table."""
    names = [n for n in flower.__all__ if n not in ("Result", "Strategy") and "Xgb" not in n]
    parser = argparse.ArgumentParser(description="Accuracy of pressed apps under all strategies.")
    parser.add_argument("--only", nargs="+", metavar="STRATEGY", default=names)
    only = parser.parse_args().only
    for logger in ("flwr", "flowerpress"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    ways: tuple[str | None, ...] = (None, "none", "ef14", "ef21")
    print("| strategy | dense | none | ef14 | ef21 |")
    print("|---|---|---|---|---|")
    for name in only:
        cells = [cell(name, memory) for memory in ways]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
