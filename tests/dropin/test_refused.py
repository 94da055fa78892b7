"""What would be wrong, or void a promise, is refused: in one line, before anything is sent."""

from __future__ import annotations

import itertools
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, fixedclipping_mod, message_size_mod
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg as OldFedAvg
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
)

from flowerpress.dropin import Settings, press, press_grid, pressed, pressed_app
from flowerpress.dropin.arrays import Plan
from flowerpress.protocol import ProtocolError
from flowerpress.simulations.engine import InProcessGrid
from tests.dropin.apps import client_app, distance, record, run, start, towards


def ask(grid, content=None, kind="train"):
    """Ask all nodes once."""
    content = content or RecordDict(
        {"arrays": start(), "config": ConfigRecord({"server-round": 1})}
    )
    messages = [Message(content, node, kind) for node in grid.get_node_ids()]
    return list(grid.send_and_receive(messages, timeout=5))


def serve_nothing(grid, context):
    """Somebody's main function, below a bare `@pressed`."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compressor": "topkk"}, "unknown compressor 'topkk'"),
        ({"compressor": "topk:0.01+qsgd:7"}, "error feedback needs a contractive compressor"),
        ({"compressor": "sign:scale=l2", "memory": "ef21"}, "neither"),
        ({"compressor": "cq:3", "memory": "none"}, "give plain_mean=True"),
        ({"compressor": "permk", "memory": "none"}, "give plain_mean=True"),
        ({"memory": "ef15"}, "memory is 'ef15': expected none or ef14 or ef21 or ef21-sgdm"),
        ({"downlink": "sign:scale=l2"}, "neither"),
        ({"momentum": 0}, r"momentum is 0: expected a number in \(0, 1\]"),
        ({"clip_sent": 1.0, "memory": "ef21"}, "clip_sent is 1: expected 0 with memory=ef21"),
        ({"max_scale": -1}, "max_scale is -1"),
        ({"dense": 3}, "dense is 3: expected patterns of names"),
        ({"compresor": "sign"}, "drop-in press has no option 'compresor': did you mean 'compr"),
        ({"compressor": serve_nothing}, r"@pressed needs parentheses: @pressed\(\) or"),
    ],
)
def test_wrong_options_are_said_where_they_are_written(options, message):
    with pytest.raises(ValueError, match=message):
        pressed(**options)


def test_above_app_main_it_would_press_nothing(monkeypatch):
    app = ServerApp()
    monkeypatch.setitem(globals(), "the_app", app)
    main = app.main()(lambda grid, context: None)
    with pytest.raises(ValueError, match=r"above @app.main\(\).*put it below"):
        pressed()(main)


def test_a_grid_is_pressed_once():
    with InProcessGrid(client_app, 1) as grid:
        once = press_grid(grid)
        with pytest.raises(ValueError, match="pressed already"):
            press_grid(once)


def test_a_loop_of_ones_own_has_no_report_at_its_end():
    with InProcessGrid(client_app, 1) as grid, pytest.raises(ValueError, match=r"grid\.ledger"):
        press_grid(grid, report="report.json")


# --- the run config -------------------------------------------------------------------------------


def serve(config, **options):
    """Run a decorated main function; returns the grid that it was given."""
    app, given = ServerApp(), []

    @app.main()
    @pressed(**options)
    def main(grid, context):
        given.append(grid)
        FedAvg(fraction_evaluate=0.0).start(grid, start(), num_rounds=2)

    with InProcessGrid(client_app, 2) as grid:
        app(grid, Context(grid.run_id, 1, {}, RecordDict(), config))
    return given[0]


def test_the_run_config_goes_before_the_decorator(tmp_path):
    report = tmp_path / "new" / "report.json"
    config = {"flowerpress.compressor": "sign", "flowerpress.memory": "ef21", "lr": 0.5}
    grid = serve(config, compressor="topk:0.1", report=str(report))
    assert (grid.settings.compressor, grid.settings.memory) == ("sign", "ef21")
    told = json.loads(report.read_text())
    assert told["settings"]["compressor"] == "sign"
    assert (
        told["up_bytes"]
        == grid.ledger.up_bytes
        == sum(each["up_payload"] + each["up_framing"] for each in told["rounds"])
    )
    assert serve({"flowerpress.memory": ""}, memory="none").settings.memory == "none"
    off = serve({"flowerpress.compressor": ""})
    assert isinstance(off, InProcessGrid)
    with pytest.raises(ValueError, match=r"no run has a key 'flowerpress.memry'"):
        serve({"flowerpress.memry": "ef14"})


def test_a_report_that_cannot_be_written_fails_no_run(tmp_path, caplog):
    serve({"flowerpress.report": str(tmp_path)})
    assert "flowerpress.report: [Errno" in caplog.text


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
def test_the_summary_is_told_once_where_it_is_read(level, caplog):
    """Flower shows its own log from INFO on, and of others what is at least a warning."""
    caplog.set_level(level, "flowerpress")
    caplog.handler.setLevel(logging.NOTSET)
    serve({})
    (told,) = (each for each in caplog.records if "uplink" in each.getMessage())
    assert told.levelname == "INFO"
    assert told.name == ("flwr" if level == logging.WARNING else "flowerpress")
    assert told.getMessage().startswith("flowerpress: topk:0.01, memory ef14: uplink ")


def test_the_page_has_every_option_and_no_other():
    page = (Path(__file__).resolve().parents[2] / "docs" / "dropin.md").read_text("utf-8")
    table = page.partition("| option |")[2].partition("\n\n")[0]
    first = re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(first))) == sorted(Settings.options)


def test_an_app_with_a_server_fn_is_pressed_from_outside():
    inner, given = ServerApp(), []

    @inner.main()
    def main(grid, context):
        given.append(grid)
        FedAvg(fraction_evaluate=0.0).start(grid, start(), num_rounds=2)

    with InProcessGrid(client_app, 2) as grid:
        pressed_app(inner, "topk:0.1")(grid, Context(grid.run_id, 1, {}, RecordDict(), {}))
    assert given[0].ledger.up_payload > 0


# --- privacy --------------------------------------------------------------------------------------


def clipping(bound):
    return DifferentialPrivacyClientSideFixedClipping(
        FedAvg(fraction_evaluate=0.0), 0.0001, bound, 4
    )


SENT: list = []


def norms_of(strategy_bound, compressor, rounds=8, **options):
    """Return the norms of the updates as the strategy sees them."""
    seen = []

    class Watching(FedAvg):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            for reply in replies:
                y = reply.content["arrays"]
                parts = [(y[k].numpy() - self.x[k].numpy()).reshape(-1) for k in y]
                seen.append(float(np.linalg.norm(np.concatenate(parts).astype(float))))
            return super().aggregate_train(server_round, replies)

        def configure_train(self, server_round, arrays, config, grid):
            self.x = arrays
            return super().configure_train(server_round, arrays, config, grid)

    inner = Watching(fraction_evaluate=0.0)
    strategy = inner
    mods = [press]
    if strategy_bound:
        strategy = DifferentialPrivacyClientSideFixedClipping(inner, 0.0, strategy_bound, 4)
        mods.append(fixedclipping_mod)
    run(compressor, rounds=rounds, strategy=strategy, app=lambda: client_app(mods=mods), **options)
    return seen


def test_error_feedback_breaks_a_clients_bound_and_is_refused():
    """What is sent then is the clipped update and what is owed: the pitfall, measured."""
    with pytest.raises(ValueError, match=r"clients clip to 1, .*give clip_sent=1 or less"):
        norms_of(1.0, "topk:0.05")
    void = norms_of(1.0, "topk:0.05", allow_clipping=True)
    assert max(void) > 1.2, "which is why it is refused"


@pytest.mark.parametrize("compressor", ["topk:0.05", "sign", "topk:0.1+qsgd:7,bucket=16"])
def test_what_is_sent_can_be_clipped_instead(compressor):
    """Then every update has the bound that the strategy's noise is made for."""
    norms = norms_of(1.0, compressor, clip_sent=1.0)
    assert max(norms) <= 1.0 + 1e-5  # x + delta is rounded to float32
    assert max(norms) > 0.5
    with pytest.raises(ValueError, match="clients clip to 1"):
        norms_of(1.0, compressor, clip_sent=1.5)


def test_without_memory_topk_keeps_a_bound():
    norms = norms_of(1.0, "topk:0.05", memory="none")
    assert max(norms) <= 1.0 + 1e-5
    with pytest.raises(ValueError, match="clients clip to 1"):
        norms_of(1.0, "randk:0.05", memory="none")
    randk = norms_of(1.0, "randk:0.05", memory="none", clip_sent=1.0)
    assert max(randk) <= 1.0 + 1e-5


def test_clipping_beside_dense_arrays_is_refused():
    def train(arrays, i, r):
        return {**towards({"w": arrays["w"]}, i, r), "bn.running_mean": np.ones(9, np.float32)}

    initial = record({"w": start()["w"].numpy(), "bn.running_mean": np.zeros(9)})
    mods = [press, fixedclipping_mod]
    with pytest.raises(ValueError, match=r"some of their arrays go as they are.*dense=\(\)"):
        run(
            "topk:0.1",
            initial=initial,
            strategy=clipping(1.0),
            app=lambda: client_app(train, mods=mods),
            clip_sent=1.0,
        )


@pytest.mark.parametrize("memory", ["ef14", "ef21"])
def test_clipping_on_the_server_composes(memory):
    strategy = DifferentialPrivacyServerSideFixedClipping(
        FedAvg(fraction_evaluate=0.0), 1e-4, 5.0, 4
    )
    model, grid, _ = run("topk:0.3", rounds=30, strategy=strategy, memory=memory)
    assert grid.refused == 0
    assert distance(model) < 0.3


def test_secure_aggregation_is_refused():
    content = RecordDict(
        {"arrays": start(), "secaggplus.configs": ConfigRecord({"secagg-stage": "setup"})}
    )
    with InProcessGrid(client_app, 1) as grid, pytest.raises(ValueError, match="masked numbers"):
        ask(press_grid(grid), content)


# --- where the mod stands -------------------------------------------------------------------------

NAMED = {
    "press": press,
    "clipping": fixedclipping_mod,
    "local": LocalDpMod(1.0, 1.0, 1.0, 1e-5),
    "size": message_size_mod,
}


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["press", "clipping", "size"])), ids="-".join
)
def test_orders_of_mods_are_right_or_loud(order, caplog):
    """A mod that clips in front of press would clip a packet: it says that it cannot."""
    app = client_app(mods=[NAMED[name] for name in order])
    config = ConfigRecord({"server-round": 1, "clipping_norm": 0.5})
    with InProcessGrid(lambda: app, 1) as grid:
        own = press_grid(grid, "topk:0.1", memory="none")
        content = RecordDict({"arrays": start(), "config": config})
        (answer,) = ask(own, content)
    if order.index("press") < order.index("clipping"):
        x, y = start(), answer.content["arrays"]
        parts = [(y[k].numpy() - x[k].numpy()).reshape(-1) for k in x]
        assert 0 < np.linalg.norm(np.concatenate(parts)) <= 0.5 + 1e-6
    else:
        assert answer.has_error()


def test_local_privacy_composes_behind_press_only():
    for mods in ([press, NAMED["local"]], [NAMED["local"], press]):
        app = client_app(mods=mods)
        with InProcessGrid(lambda app=app: app, 1) as grid:
            (answer,) = ask(press_grid(grid, "topk:0.1"))
        assert answer.has_error() == (mods[0] is not press)


# --- trouble --------------------------------------------------------------------------------------


def test_nan_of_one_client_is_that_clients_error():
    def train(arrays, i, r):
        new = towards(arrays, i, r)
        if i == 1 and r == 2:
            new["w"][0, 0] = np.nan
        return new

    model, grid, result = run("topk:0.3", rounds=20, app=lambda: client_app(train))
    assert all(np.isfinite(value).all() for value in model.values())
    assert distance(model) < 0.15
    assert grid.refused == 0
    assert len(result.train_metrics_clientapp) == 20


def test_a_client_that_raises_owes_nothing_new():
    def train(arrays, i, r):
        if i == 0 and r % 3 == 0:
            raise RuntimeError("no")
        return towards(arrays, i, r)

    model, grid, _ = run("topk:0.3", rounds=30, app=lambda: client_app(train))
    assert distance(model) < 0.25
    assert grid.refused == 0


@pytest.mark.parametrize("size", [1e6, 1e14])
@pytest.mark.parametrize("memory", ["ef14", "ef21", "none"])
def test_an_absurd_update_is_refused_and_not_owed(memory, size):
    def train(arrays, i, r):
        new = towards(arrays, i, r)
        if i == 2 and r == 4:
            new["w"] = new["w"] * np.float32(size)
        return new

    options = {"memory": memory, "rounds": 25}
    model, grid, _ = run("topk:0.3", app=lambda: client_app(train), **options)
    assert grid.refused == 1
    calm, _, _ = run("topk:0.3", **options)
    assert distance(model) < 2 * distance(calm) + 0.05


def test_damaged_answers_are_refused_and_the_run_goes_on():
    """Whatever stands in an answer's record: an error message, and never an exception."""
    rng = np.random.default_rng(0)
    state = {"n": 0}

    def damage(message, context, call_next):
        reply = call_next(message, context)
        own = reply.content.array_records.get("flowerpress")
        if own is None or context.node_config["partition-id"] != 0:
            return reply
        name = str(rng.choice(list(own)))
        data = bytearray(own[name].data)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        if rng.random() < 0.2:
            data = data[: rng.integers(len(data))]
        own[name] = Array(own[name].dtype, (len(data),), own[name].stype, bytes(data))
        if rng.random() < 0.1:
            own["form"] = Array(rng.integers(0, 256, 50).astype(np.uint8))
        state["n"] += 1
        return reply

    app = client_app(mods=[damage, press])
    model, grid, _ = run(
        "topk:0.3", rounds=150, clients=3, app=lambda: app, grid_options={"threads": 1}
    )
    assert grid.refused > state["n"] / 2
    assert all(np.isfinite(value).all() for value in model.values())


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '[["a"]]', '[["a", "b", "object", [1], true]]', '[["a","b","float32","x",1]]'],
)
def test_plans_are_checked(text):
    if text == "[]":
        assert Plan.from_json(text).slots == ()
        return
    with pytest.raises(ProtocolError, match="a plan of arrays cannot be read"):
        Plan.from_json(text)


def test_arrays_of_flowers_old_clients():
    """They say neither dtype nor shape, and come back under another record's name."""
    app = ClientApp(mods=[press])

    @app.train()
    def train(message, context):
        values = [a.numpy() for a in message.content["fitins.parameters"].values()]
        back = {str(j): old(v + 1) for j, v in enumerate(values)}
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"fitres.parameters": ArrayRecord(back), "m": metrics})
        return Message(content, reply_to=message)

    def old(value):
        array = Array(value)
        return Array("", (), array.stype, array.data)

    x = np.zeros(900, np.float32)
    with InProcessGrid(lambda: app, 1) as grid:
        own = press_grid(grid, "topk:0.5", memory="none")
        (answer,) = ask(own, RecordDict({"fitins.parameters": ArrayRecord({"0": old(x)})}))
    assert list(answer.content) == ["fitres.parameters", "m"]
    assert (answer.content["fitres.parameters"]["0"].numpy() == 1).sum() == 450


class Adder(NumPyClient):
    """Moves the model by 1 plus its own number: a client of Flower's older kind."""

    def __init__(self, number):
        self.number = number

    def fit(self, parameters, config):
        return [each + np.float32(1 + self.number) for each in parameters], 1, {}


@pytest.mark.parametrize("downlink", ["", "topk:0.5"])
def test_an_app_of_flowers_older_kind(downlink):
    """`server_fn`, `client_fn`, and parameters without names: pressed from outside."""
    seen = []

    class Seen(OldFedAvg):
        def aggregate_fit(self, server_round, results, failures):
            assert not failures
            found = super().aggregate_fit(server_round, results, failures)
            seen.append(parameters_to_ndarrays(found[0]))
            return found

    zeros = ndarrays_to_parameters([np.zeros((30, 30), np.float32), np.zeros(30, np.float32)])
    strategy = Seen(
        initial_parameters=zeros, fraction_evaluate=0.0, min_fit_clients=2, min_available_clients=2
    )
    config = ServerConfig(num_rounds=8)
    server = ServerApp(
        server_fn=lambda context: ServerAppComponents(strategy=strategy, config=config)
    )
    client = ClientApp(
        client_fn=lambda context: Adder(context.node_config["partition-id"]).to_client(),
        mods=[press],
    )
    with InProcessGrid(lambda: client, 2) as grid:
        app = pressed_app(server, "topk:0.5", downlink=downlink)
        app(grid, Context(grid.run_id, 1, {}, RecordDict(), {}))
    assert len(seen) == 8
    assert [each.shape for each in seen[-1]] == [(30, 30), (30,)]
    mean = float(np.mean(np.concatenate([each.reshape(-1) for each in seen[-1]])))
    assert 1.5 * 6 < mean <= 1.5 * 8 + 1e-3, "but for what is owed"
