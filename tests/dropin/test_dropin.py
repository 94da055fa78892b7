"""A pressed app does what the app does: any strategy, any loop, any mixture of clients."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM

from flowerpress.dropin import press, press_grid
from flowerpress.protocol import content_bytes
from flowerpress.simulations.engine import InProcessGrid
from flowerpress.simulations.faults import Faults
from tests.dropin.apps import (
    client_app,
    distance,
    largest_difference,
    record,
    run,
    start,
    target,
    towards,
)

ORDER = 2e-6  # Flower adds answers in the order in which they arrive, here that of two threads


def avg(**options):
    return FedAvg(**{"fraction_evaluate": 0.0, **options})


@pytest.mark.parametrize("make", [avg, lambda: FedAvgM(fraction_evaluate=0.0)], ids=["avg", "avgm"])
@pytest.mark.parametrize("downlink", ["", "identity"])
def test_identity_is_the_untouched_app(make, downlink):
    """Up to the roundings of x + (y - x), half a unit of float32's last place each round."""
    dense, _, _ = run(strategy=make())
    same, _, _ = run("identity", strategy=make(), memory="none", downlink=downlink)
    assert largest_difference(dense, same) < 1e-6


@pytest.mark.parametrize("memory", ["ef14", "ef21", "ef21-sgdm"])
@pytest.mark.parametrize("downlink", ["", "topk:0.2"])
def test_it_goes_where_the_dense_app_goes(memory, downlink):
    options = {"momentum": 0.5} if memory == "ef21-sgdm" else {}
    pressed, grid, _ = run("topk:0.2", rounds=40, memory=memory, downlink=downlink, **options)
    assert distance(pressed) < 0.1
    assert grid.refused == 0
    dense = 40 * 4 * 930 * 4
    assert grid.ledger.up_bytes < dense / 1.8  # ids, and 400 bytes of framing
    if downlink:
        assert grid.ledger.down_bytes < dense / 1.4


def test_metrics_and_configs_pass_untouched():
    _, _, dense = run(rounds=3)
    _, _, pressed = run("topk:0.1", rounds=3)
    for r, found in dense.train_metrics_clientapp.items():
        assert dict(pressed.train_metrics_clientapp[r]) == pytest.approx(dict(found), rel=1e-12)
    assert set(pressed.train_metrics_clientapp[1]) == {"own-loss"}


@pytest.mark.parametrize("off", [0, 2, 4])
@pytest.mark.parametrize("downlink", ["", "topk:0.3"])
def test_clients_without_the_mod_answer_dense(off, downlink):
    """Of 4 clients, `off` have no mod, or are told not to use it: nothing else changes."""
    configs = {i: {"flowerpress": "off"} for i in range(off)}
    model, grid, _ = run(
        "topk:0.3", rounds=30, downlink=downlink, grid_options={"node_configs": configs}
    )
    assert distance(model) < 0.1
    bare, _, _ = run("topk:0.3", rounds=2, app=lambda: client_app(mods=[]), downlink=downlink)
    dense, _, _ = run(rounds=2)
    if not downlink:
        assert largest_difference(bare, dense) < ORDER
    if off == 4:
        assert grid.ledger.up_payload == 0
    assert grid.unpressed == 30 * off
    assert ("unpressed" in grid.summary()) == (off > 0)


def test_a_server_without_the_grid_sees_an_unpressed_app():
    dense, _, _ = run(app=lambda: client_app(mods=[]))
    modded, _, _ = run()
    assert largest_difference(dense, modded) < ORDER


def test_the_ledger_has_the_bytes_of_all_contents():
    sizes = {"down": 0, "up": 0}

    def weigh(message, context, call_next):
        sizes["down"] += content_bytes(message.content)
        reply = call_next(message, context)
        sizes["up"] += content_bytes(reply.content)
        return reply

    _, grid, _ = run(
        "topk:0.1",
        app=lambda: client_app(mods=[weigh, press]),
        strategy=FedAvg(fraction_evaluate=1.0),
        downlink="topk:0.1",
        grid_options={"threads": 1},
    )
    assert (grid.ledger.down_bytes, grid.ledger.up_bytes) == (sizes["down"], sizes["up"])


class Conserved:
    """Clients with memory on disk that add up what they trained, and what of it arrived."""

    def __init__(self, folder):
        self.folder, self.trained, self.applied = folder, {}, {}

    def train(self, arrays, i, r):
        new = towards(arrays, i, r)
        self.trained.setdefault(i, []).append({k: new[k] - arrays[k] for k in new})
        return new


def owed(folder, i):
    from safetensors.numpy import load_file

    (file,) = folder.glob(f"run-*/client-{i}-press-*.safetensors")
    return load_file(file).get("memory")


@pytest.mark.parametrize("seed", range(4))
def test_ef14_conserves_what_is_owed(tmp_path, seed):
    """Trained = applied + owed, under 30 % loss each way, kills, and answers that come twice."""
    sums = Conserved(tmp_path)
    faults = Faults(up=0.3, down=0.1, kill={3: [0, 1], 6: [2]}, seed=seed)
    options = {"node_config": {"state-store": "disk", "state-dir": str(tmp_path)}}
    applied = {i: np.zeros(930) for i in range(3)}
    with InProcessGrid(
        lambda: client_app(sums.train), 3, faults=faults, threads=1, **options
    ) as grid:
        pressed = press_grid(grid, "topk:0.1")
        x = start()
        flat = np.concatenate([x[k].numpy().reshape(-1) for k in x])
        nodes = list(grid.get_node_ids())
        for r in range(1, 15):
            config = ConfigRecord({"server-round": r})
            messages = [
                Message(RecordDict({"arrays": x, "config": config}), node, "train")
                for node in nodes
            ]
            answers = grid.send_and_receive(pressed.press(messages), timeout=5)
            twice = [
                Message(metadata=a.metadata, content=RecordDict(dict(a.content.items())))
                for a in answers
                if a.has_content()
            ]
            for answer in pressed.open([*answers, *twice]):
                if answer.has_error():
                    continue
                i = answer.metadata.src_node_id - nodes[0]
                y = answer.content["arrays"]
                applied[i] += np.concatenate([y[k].numpy().reshape(-1) for k in y]) - flat
        # One last question without loss settles what is in flight.
        grid._faults = Faults()
        last = pressed.press(
            [Message(RecordDict({"arrays": x, "config": config}), node, "train") for node in nodes]
        )
        for answer in pressed.open(list(grid.send_and_receive(last, timeout=5))):
            i = answer.metadata.src_node_id - nodes[0]
            y = answer.content["arrays"]
            applied[i] += np.concatenate([y[k].numpy().reshape(-1) for k in y]) - flat
        pending = pressed.press(
            [Message(RecordDict({"arrays": x, "config": config}), node, "train") for node in nodes]
        )
        assert pressed.refused > 0, "the second answers"
        sums_before = {i: list(each) for i, each in sums.trained.items()}
        list(grid.send_and_receive(pending, timeout=5))
    for i in range(3):
        steps = sums_before[i] + sums.trained[i][len(sums_before[i]) :]
        total = sum(np.concatenate([s[k].reshape(-1) for k in s]).astype(float) for s in steps)
        # The memory holds the last update too, whole, since nobody has said what became of it.
        rest = owed(tmp_path, i)
        gap = np.linalg.norm(total - applied[i] - rest) / np.linalg.norm(total)
        assert gap < 1e-6  # x + delta and the sums are rounded to float32


@pytest.mark.parametrize("memory", ["ef14", "ef21"])
@pytest.mark.parametrize("downlink", ["", "topk:0.3"])
def test_loss_kills_and_sampling(tmp_path, memory, downlink):
    faults = Faults(up=0.2, down=0.2, kill={5: [0, 1], 9: [2]}, seed=3)
    options = {"node_config": {"state-store": "disk", "state-dir": str(tmp_path)}}
    strategy = avg(fraction_train=0.5, min_train_nodes=2)
    model, _, _ = run(
        "topk:0.3",
        rounds=50,
        strategy=strategy,
        memory=memory,
        downlink=downlink,
        grid_options={"faults": faults, **options},
    )
    assert distance(model) < 0.25


@pytest.mark.parametrize("memory", ["ef14", "ef21"])
def test_a_lost_memory_is_one_clients_own_matter(tmp_path, memory):
    """The others go on from what they have: EF21 keeps h of each on the server."""
    options = {"node_config": {"state-store": "disk", "state-dir": str(tmp_path)}}
    with InProcessGrid(client_app, 3, **options) as grid:
        pressed = press_grid(grid, "topk:0.3", memory=memory, downlink="topk:0.3")
        strategy = Losing(tmp_path, at=8)
        result = strategy.start(pressed, start(), num_rounds=40)
    model = {k: v.numpy() for k, v in result.arrays.items()}
    assert distance(model, 3) < 0.1
    assert pressed.refused <= 1, "one answer says that it lacks the model"


class Losing(FedAvg):
    """Deletes client 1's memory before a round."""

    def __init__(self, folder, at):
        super().__init__(fraction_evaluate=0.0)
        self.folder, self.at = folder, at

    def configure_train(self, server_round, arrays, config, grid):
        if server_round == self.at:
            for file in self.folder.glob("run-*/client-1-press-*.safetensors"):
                file.unlink()
        return super().configure_train(server_round, arrays, config, grid)


# --- what stays dense, dtypes, order --------------------------------------------------------------


def statistics(arrays, i, r):
    """Train, and make batch norm's statistics large, as they are in the middle of a network."""
    out = towards({k: v for k, v in arrays.items() if "bn" not in k}, i, r)
    out["bn.running_mean"] = np.full(40, 1000.0 + r, np.float32)
    out["bn.num_batches_tracked"] = arrays["bn.num_batches_tracked"] + 1
    return {k: out[k] for k in arrays}


def test_statistics_and_whole_numbers_go_as_they_are():
    """FedAvg makes floats of int64 counters after a round: they stay what they are, unpressed."""
    base = start()
    initial = record(
        {
            "w": base["w"].numpy(),
            "bn.running_mean": np.zeros(40),
            "bn.num_batches_tracked": np.array(0),
            "b": base["b"].numpy(),
        }
    )
    options = {"initial": initial, "app": lambda: client_app(statistics)}
    dense, _, _ = run(rounds=5, **options)
    pressed, grid, _ = run("topk:0.3", rounds=5, **options)
    for name in ("bn.running_mean", "bn.num_batches_tracked"):
        np.testing.assert_allclose(pressed[name], dense[name], rtol=ORDER)
        assert pressed[name].dtype == dense[name].dtype
    assert list(pressed) == list(initial)
    assert grid.refused == 0
    all_pressed, _, _ = run("topk:0.1", rounds=5, dense=(), **options)
    assert np.abs(all_pressed["w"] - dense["w"]).max() > np.abs(pressed["w"] - dense["w"]).max()


def test_a_strategy_that_makes_float64_costs_no_more():
    """FedAdam returns float64: arrays go, and packets come, in the dtype that they had first."""
    seen: list = []
    _, first, _ = run("topk:0.1", rounds=2, strategy=avg())
    _, grid, _ = run(
        "topk:0.1",
        rounds=6,
        strategy=FedAdam(fraction_evaluate=0.0),
        app=lambda: client_app(seen=seen),
    )
    by_round = grid.ledger.rounds
    sizes = [each.down_bytes for each in by_round]
    assert max(sizes) < min(sizes) + 100, "but for the digits of numbers"
    assert abs(sizes[0] - first.ledger.rounds[0].down_bytes) < 100
    assert {v.dtype for _, arrays in seen for v in arrays.values()} == {np.dtype(np.float32)}


def test_evaluations_of_a_strategy_that_makes_float64_cost_no_more():
    """Their arrays go in the dtype of the first training."""
    down, seen = [], []
    for made in (FedAvg, FedAdam):
        _, grid, _ = run(
            "topk:0.1",
            rounds=3,
            strategy=made(fraction_evaluate=1.0),
            app=lambda: client_app(seen=seen),
        )
        rows = [row for row in grid.ledger.rows if row.purpose == "evaluate"]
        down.append([row.total for row in rows if row.direction == "down"])
    assert len(down[0]) == len(down[1]) == 12
    assert max(down[1]) <= max(down[0]) + 20, "but for the digits of numbers"
    evaluated = [arrays for i, arrays in seen if i < 0]
    assert {v.dtype for arrays in evaluated for v in arrays.values()} == {np.dtype(np.float32)}


def test_orders_and_dtypes_of_a_reply_are_the_apps():
    def other(arrays, i, r):
        new = towards(arrays, i, r)
        return {"b": new["b"].astype(np.float16), "w": new["w"]}

    dense, _, _ = run(rounds=1, app=lambda: client_app(other))
    pressed, _, _ = run("identity", memory="none", rounds=1, app=lambda: client_app(other))
    assert list(dense) == list(pressed) == ["b", "w"]
    assert {k: v.dtype for k, v in dense.items()} == {k: v.dtype for k, v in pressed.items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda new: {**new, "w": new["w"][:5]},
        lambda new: {"w": new["w"]},
        lambda new: {k + "2": v for k, v in new.items()},
    ],
    ids=["shape", "missing", "names"],
)
def test_other_arrays_than_those_received_go_as_they_are(change, caplog):
    with InProcessGrid(
        lambda: client_app(lambda arrays, i, r: change(towards(arrays, i, r))), 2
    ) as grid:
        pressed = press_grid(grid, "topk:0.1")
        message = [
            Message(RecordDict({"arrays": start()}), n, "train") for n in grid.get_node_ids()
        ]
        answers = list(pressed.send_and_receive(message, timeout=5))
    wanted = change(towards({k: v.numpy() for k, v in start().items()}, 0, 0))
    assert not any(answer.has_error() for answer in answers)
    for name, value in wanted.items():
        np.testing.assert_array_equal(answers[0].content["arrays"][name].numpy(), value)
    assert "go as they are" in caplog.text
    assert pressed.ledger.up_payload == 0


def test_further_records_pass_untouched():
    """Of arrays, those with the names that were sent are pressed; others go dense."""
    app = ClientApp(mods=[press])

    @app.train()
    def train(message, context):
        w = message.content["arrays"]["w"].numpy()
        content = RecordDict(
            {
                "arrays": record({"w": w + 1}),
                "own": record({"head": np.arange(7.0), "ids": np.arange(3)}),
                "metrics": MetricRecord({"num-examples": 1, "list": [1.0, 2.0]}),
                "note": ConfigRecord({"said": "yes"}),
            }
        )
        return Message(content, reply_to=message)

    with InProcessGrid(lambda: app, 1) as grid:
        pressed = press_grid(grid, "topk:0.5", memory="none")
        (answer,) = pressed.send_and_receive(
            [Message(RecordDict({"arrays": record({"w": np.zeros(900)})}), 2, "train")], timeout=5
        )
    assert list(answer.content) == ["arrays", "own", "metrics", "note"]
    assert answer.content["note"]["said"] == "yes"
    np.testing.assert_array_equal(answer.content["own"]["head"].numpy(), np.arange(7))
    assert (answer.content["arrays"]["w"].numpy() == 1).sum() == 450


def test_a_small_model_goes_as_it_is():
    initial = record({"w": np.zeros(15)})
    dense, _, _ = run(initial=initial)
    model, grid, _ = run("topk:0.1", initial=initial)
    assert largest_difference(dense, model) < ORDER
    assert grid.ledger.up_payload == 0


# --- loops ----------------------------------------------------------------------------------------


def test_a_loop_of_ones_own_that_pushes_and_pulls():
    with InProcessGrid(client_app, 3) as grid:
        pressed = press_grid(grid, "topk:0.3")
        x = start()
        for r in range(1, 30):
            config = ConfigRecord({"server-round": r})
            messages = [
                Message(RecordDict({"arrays": x, "config": config}), node, "train")
                for node in pressed.get_node_ids()
            ]
            waiting, answers = set(pressed.push_messages(messages)), []
            while waiting:
                for answer in pressed.pull_messages(waiting):
                    waiting.discard(answer.metadata.reply_to_message_id)
                    answers.append(answer.content["arrays"])
            x = record({k: np.mean([a[k].numpy() for a in answers], 0) for k in x})
    assert distance({k: v.numpy() for k, v in x.items()}, 3) < 0.1


def test_each_client_may_have_a_model_of_its_own():
    """With a compressed downlink too: then that goes dense, for no replica is shared."""
    with InProcessGrid(client_app, 3) as grid:
        pressed = press_grid(grid, "topk:0.3", downlink="topk:0.3")
        nodes = list(grid.get_node_ids())
        models = {node: start(node) for node in nodes}
        for r in range(1, 40):
            config = ConfigRecord({"server-round": r})
            messages = [
                Message(RecordDict({"arrays": models[n], "config": config}), n, "train")
                for n in nodes
            ]
            for answer in pressed.send_and_receive(messages, timeout=5):
                models[answer.metadata.src_node_id] = answer.content["arrays"]
    for i, node in enumerate(nodes):
        for name, array in models[node].items():
            value = array.numpy()
            off = np.linalg.norm(value - target(i, name, value.shape))
            assert off < 0.2 * np.linalg.norm(target(i, name, value.shape))


def test_kinds_of_messages_have_memory_of_their_own():
    app = client_app()
    sizes = {}

    @app.train("small")
    def small(message, context):
        sizes["small"] = message.content["arrays"]["w"].numpy().size
        content = RecordDict({"arrays": record({"w": message.content["arrays"]["w"].numpy() + 1})})
        return Message(content, reply_to=message)

    with InProcessGrid(lambda: app, 1) as grid:
        pressed = press_grid(grid, "topk:0.3")
        x, y = start(), record({"w": np.zeros(600)})
        for _ in range(40):
            (one,) = pressed.send_and_receive(
                [Message(RecordDict({"arrays": x}), 2, "train")], timeout=5
            )
            (two,) = pressed.send_and_receive(
                [Message(RecordDict({"arrays": y}), 2, "train.small")], timeout=5
            )
            x, y = one.content["arrays"], two.content["arrays"]
    assert pressed.refused == 0
    assert abs(y["w"].numpy().mean() - 40) < 8, "all that was added, but for what is owed"
    assert distance({k: v.numpy() for k, v in x.items()}, 1) < 0.2


def test_queries_are_left_alone():
    app = client_app()

    @app.query()
    def query(message, context):
        assert "flowerpress" not in message.content
        return Message(RecordDict({"metrics": MetricRecord({"a": 1})}), reply_to=message)

    with InProcessGrid(lambda: app, 1) as grid:
        pressed = press_grid(grid, "topk:0.1")
        (answer,) = pressed.send_and_receive(
            [Message(RecordDict({"arrays": start()}), 2, "query")], timeout=5
        )
    assert answer.content["metrics"]["a"] == 1


def test_evaluation_follows_the_replica():
    """It is sent deltas, or nothing new: and training then sends nothing new either."""
    seen: list = []
    _, grid, _ = run(
        "topk:0.3",
        rounds=12,
        strategy=FedAvg(fraction_evaluate=1.0),
        downlink="topk:0.1",
        app=lambda: client_app(seen=seen),
        grid_options={"threads": 1},
    )
    rows = [row for row in grid.ledger.rows if row.direction == "down" and row.round > 2]
    by_purpose = {p: [r.total for r in rows if r.purpose == p] for p in ("train", "evaluate")}
    assert max(by_purpose["train"] + by_purpose["evaluate"]) < 1800, "the model has 3,720 bytes"
    # Within a round, all clients evaluate one model, and the next round starts from it.
    evaluated = [arrays["w"] for i, arrays in seen if i < 0]
    trained = [arrays["w"] for i, arrays in seen if i >= 0]
    np.testing.assert_array_equal(evaluated[0], trained[4])
    np.testing.assert_array_equal(evaluated[-1], evaluated[-2])
