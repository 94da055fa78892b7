"""Every strategy of Flower over a pressed app, with each memory."""

from __future__ import annotations

import logging

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flowerpress.dropin import press, press_grid
from flowerpress.simulations.engine import InProcessGrid
from tests.dropin.apps import distance, record, run, start, towards

VECTORS = [n for n in flower.__all__ if n not in ("Result", "Strategy") and "Xgb" not in n]
MAKE = {
    "Bulyan": {"num_malicious_nodes": 1},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 5},
    "FedProx": {"proximal_mu": 0.1},
    "FedTrimmedAvg": {"beta": 0.2},
    "FedAdam": {"eta": 0.1},
    "FedYogi": {"eta": 0.1},
    "FedAdagrad": {"eta": 0.1},
    "QFedAvg": {"q": 0.1, "client_learning_rate": 0.1},
}
PRIVATE = {
    "DifferentialPrivacyServerSideFixedClipping": (0.01, 50.0, 8),
    "DifferentialPrivacyServerSideAdaptiveClipping": (0.01, 8),
    "DifferentialPrivacyClientSideFixedClipping": (0.01, 50.0, 8),
    "DifferentialPrivacyClientSideAdaptiveClipping": (0.01, 8),
}


def with_loss(mods):
    """An app whose metrics have what QFedAvg wants, and no list."""
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(message, context):
        i = int(context.node_config["partition-id"])
        arrays = {k: v.numpy() for k, v in message.content["arrays"].items()}
        new = record(towards(arrays, i, int(message.content["config"]["server-round"])))
        metrics = MetricRecord({"num-examples": 10, "train_loss": 1.0})
        return Message(RecordDict({"arrays": new, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message, context):
        metrics = MetricRecord({"num-examples": 10, "eval_loss": 1.0, "loss": 1.0})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


@pytest.mark.parametrize("memory", ["none", "ef14", "ef21"])
@pytest.mark.parametrize("name", VECTORS)
def test_every_strategy_of_flower(name, memory):
    """It runs, and moves towards the clients; or is refused with the reason, before it sends."""
    from flwr.clientapp.mod import adaptiveclipping_mod, fixedclipping_mod

    clients = 8
    mods = [press]
    if name in PRIVATE:
        strategy = getattr(flower, name)(FedAvg(fraction_evaluate=0.0), *PRIVATE[name])
        if "ClientSide" in name:
            mods.append(fixedclipping_mod if "Fixed" in name else adaptiveclipping_mod)
    else:
        options = {"fraction_evaluate": 1.0 if name == "QFedAvg" else 0.0, **MAKE.get(name, {})}
        strategy = getattr(flower, name)(**options)
    rounds = 2 if name in ("Bulyan", "QFedAvg") else 8  # Flower's own take seconds a round
    go = {
        "rounds": rounds,
        "clients": clients,
        "strategy": strategy,
        "app": lambda: with_loss(mods),
    }
    if "ClientSide" in name and memory != "none":
        with pytest.raises(ValueError, match=r"clients clip to .*give clip_sent="):
            run("topk:0.5", memory=memory, **go)
        return
    model, grid, _ = run("topk:0.5", memory=memory, **go)
    assert grid.refused == 0
    begin = {k: v.numpy() for k, v in start().items()}
    assert distance(model, clients) < distance(begin, clients)
    assert all(np.isfinite(value).all() for value in model.values())


@pytest.mark.parametrize(
    "name", ["FedMedian", "FedTrimmedAvg", "Krum", pytest.param("Bulyan", marks=pytest.mark.slow)]
)
def test_robust_strategies_need_what_the_server_keeps_of_each(name):
    """The median of mostly zeros is zero: ef14's sparse updates never move it; ef21's sums do."""
    off = {}
    for memory in (None, "ef14", "ef21"):
        strategy = getattr(flower, name)(fraction_evaluate=0.0, **MAKE.get(name, {}))
        options = {"memory": memory} if memory else {}
        model, _, _ = run(
            "topk:0.1" if memory else None, rounds=30, clients=8, strategy=strategy, **options
        )
        off[memory] = distance(model, 8)
    assert off["ef21"] < off[None] + 0.1
    if name in ("FedMedian", "Bulyan"):
        assert off["ef14"] > 2 * off["ef21"]


def test_arrays_of_no_vector_go_as_they_are():
    """Trees of XGBoost are bytes."""
    app = ClientApp(mods=[press])

    @app.train()
    def train(message, context):
        tree = np.frombuffer(b"{" * 4000, np.uint8)
        content = RecordDict({"arrays": ArrayRecord([tree])})
        return Message(content, reply_to=message)

    with InProcessGrid(lambda: app, 1) as grid:
        pressed = press_grid(grid, "topk:0.1")
        sent = RecordDict({"arrays": ArrayRecord([np.zeros(4000, np.uint8)])})
        (answer,) = pressed.send_and_receive([Message(sent, 2, "train")], timeout=5)
    assert answer.content["arrays"]["0"].numpy().tobytes() == b"{" * 4000
    assert pressed.ledger.up_payload == 0


def test_a_network_on_digits_sends_fifty_times_less(monkeypatch):
    """Within a point of dense after 30 rounds, and of what was sent the ledger has every byte."""
    pytest.importorskip("sklearn")
    from benchmarks import dropin_strategies as digits

    monkeypatch.setattr(digits, "HIDDEN", 256)  # 19,210 numbers
    logging.getLogger("flwr").setLevel(logging.ERROR)
    dense, _ = digits.outcome("FedAvg", None, "topk:0.01")
    pressed, up = digits.outcome("FedAvg", "ef14", "topk:0.01")
    assert pressed > dense - 1
    assert up * 50 < 30 * digits.CLIENTS * 4 * 19_210
