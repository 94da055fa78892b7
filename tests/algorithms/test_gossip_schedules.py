"""Gossip under schedules of faults made up on purpose, and at random."""

import logging
import shutil

import numpy as np
import pytest
from flwr.app import Message

from flowerpress.clients import FunctionTask
from flowerpress.compressors import Draw, Packet, add_to, make_compressor
from flowerpress.compressors.composed.repeat import repeated
from flowerpress.compressors.feedback import contraction_scale
from flowerpress.protocol import Reply
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy
from flowerpress.worker.stores import DiskStore
from tests.algorithms.gossiping import Nodes, check_copies, disk, play, weather
from tests.algorithms.problems import SEED

DIM = 12
X0 = np.random.default_rng(8).standard_normal((6, DIM))


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """What is written here need not survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def still(i, n):
    return FunctionTask(X0[i], lambda x, _: (0.0, np.zeros_like(x)))


def choco(**options):
    options = {"compressor": "topk:k=3", "gamma": 0.2, "init": "own", **options}
    return make_strategy("choco-sgd", seed=SEED, **options)


@pytest.mark.parametrize("seed", range(8))
def test_any_schedule_leaves_the_mean_alone(seed, tmp_path):
    """Loss both ways, absence, restarts as another node, failures, collections: at random."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 6))
    failing = {"now": frozenset()}

    def task_fn(i, _):
        def gradient(x, batch):
            if i in failing["now"]:
                raise ValueError("no data today")
            return 0.0, np.zeros_like(x)

        return FunctionTask(X0[i], gradient)

    graph = ["ring", "star", "complete", "erdos-renyi:0.7"][seed % 4]
    spec = ["topk:k=3", "signtopk:k=3", "qsgd:7", "randk:k=4"][seed // 2 % 4]
    strategy = make_strategy(
        "squarm-sgd",
        topology=graph,
        compressor=spec,
        gamma=0.1,
        init="own",
        local_steps=1,
        momentum=0.0,
        threshold=float(rng.choice([-1.0, 100.0])),
        patience=int(rng.integers(2, 6)),
        relay=str(rng.choice(["forward", "mix", "auto"])),
        min_available_nodes=n,
        seed=seed,
    )
    arrays = still(0, n).initial_arrays()

    def some(chance):
        return frozenset(np.flatnonzero(rng.random(n) < chance).tolist())

    with weather(task_fn, tmp_path, n) as grid:
        for r in range(1, 50):
            if r > 1:
                grid.hidden = some(0.15)
                if len(grid.hidden) == n:
                    grid.hidden = frozenset({0})
                failing["now"] = some(0.1)
                for i in some(0.05):
                    grid.restart_as_new_node(i)
            grid.lose_down, grid.lose_up = some(0.2), some(0.2)
            strategy.collect_every = int(rng.random() < 0.2)
            play(strategy, grid, arrays, r)
            begun = {c.id for c in strategy.population.clients.values() if c.held >= 0}
            if len(begun) == n:
                x = check_copies(strategy, tmp_path)
                # 50 rounds of additions of numbers of size 1, in any order.
                np.testing.assert_allclose(x.mean(0), X0[:n].mean(0), rtol=0, atol=1e-13)
    assert len(begun) == n
    assert strategy.exchange.resyncs == strategy.exchange.refused == 0
    owed = max(len(node.owed) for node in strategy.hub.nodes.values())
    assert owed <= strategy.patience + 2


def test_a_memory_lost_right_after_the_first_packet(tmp_path):
    """The next word of it is a hello from a new node that holds nothing."""
    strategy = choco(min_available_nodes=4)
    arrays = still(0, 4).initial_arrays()
    with weather(still, tmp_path, 4) as grid:
        play(strategy, grid, arrays, 1)
        disk(tmp_path, 2).unlink()
        grid.restart_as_new_node(2)
        for r in range(2, 30):
            play(strategy, grid, arrays, r)
    assert strategy.exchange.resyncs <= 1
    assert strategy.hub.nodes[2].start is None
    assert len(strategy.hub.nodes[2].owed) == 1
    check_copies(strategy, tmp_path)


def test_a_failed_evaluation_costs_nothing(tmp_path):
    bad = {"now": False}

    def task_fn(i, n):
        def evaluate(x):
            if bad["now"] and i == 2:
                raise ValueError("no test data today")
            return {"first": float(x[0])}

        return FunctionTask(X0[i], lambda x, _: (0.0, np.zeros_like(x)), evaluate=evaluate)

    strategy = choco(min_available_nodes=4, fraction_evaluate=1.0)
    arrays = still(0, 4).initial_arrays()
    with weather(task_fn, tmp_path, 4) as grid:
        for r in range(1, 10):
            play(strategy, grid, arrays, r)
            bad["now"] = r == 4
            orders = strategy.configure_evaluate(r, arrays, None, grid)
            strategy.aggregate_evaluate(r, grid.send_and_receive(orders))
            mean = check_copies(strategy, tmp_path).mean(axis=0)
            np.testing.assert_allclose(mean, X0[:4].mean(axis=0), rtol=0, atol=1e-14)
    assert strategy.hub.nodes[2].count == 9, "one start, nine synchronisations from 0"


def test_a_whole_gamma_is_a_number():
    strategy = make_strategy("squarm-sgd", gamma=1, compressor="identity")
    problem = Nodes(n=3)
    assert len(simulate(strategy, problem.task_fn, 3, 3).history) == 4


def test_what_is_owed_to_the_absent_is_bounded_when_one_node_is_left(tmp_path):
    """Its graph is then itself alone, and the run goes on."""

    def task_fn(i, n):
        def gradient(x, batch):
            if i and later["on"]:
                raise ValueError("broken")
            return 0.0, x - 1.0

        return FunctionTask(X0[i], gradient)

    later = {"on": False}
    strategy = choco(min_available_nodes=3, patience=3, lr=0.1)
    arrays = still(0, 3).initial_arrays()
    with weather(task_fn, tmp_path, 3) as grid:
        for r in range(1, 60):
            later["on"] = 5 < r < 40
            play(strategy, grid, arrays, r)
            assert max(len(node.owed) for node in strategy.hub.nodes.values()) <= 5
            if 12 < r < 40:
                assert strategy.hub.there == (0,)
    assert strategy.hub.there == (0, 1, 2)
    check_copies(strategy, tmp_path)
    assert np.abs(strategy.hub.mean() - 1.0).max() < 0.2, "and the others train again"


def test_packets_that_were_missed_are_made_up_for(tmp_path):
    """One lost, or one instruction lost: two at once; three missed: four, and then one again."""
    strategy = choco(min_available_nodes=3, catch_up=3)
    arrays = still(0, 3).initial_arrays()
    lost = {3: "up", 6: "down", 10: "down", 11: "down", 12: "up"}
    sent = {}
    with weather(still, tmp_path, 3) as grid:
        for r in range(1, 18):
            missing = lost.get(r, "")
            grid.lose_up = frozenset({1}) if missing == "up" else frozenset()
            grid.lose_down = frozenset({1}) if missing == "down" else frozenset()
            strategy.collect_every = r % 2  # a collection must not look like a round
            messages = list(strategy.configure_train(r, arrays, None, grid))
            replies = grid.send_and_receive(messages)
            for reply in replies:
                if grid.partition(reply.metadata.src_node_id) == 1:
                    (packet,) = Reply.decode(reply.content).packets
                    sent[r] = Packet(packet).compressor.count("topk")
            grid.lose_up = grid.lose_down = frozenset()
            strategy.aggregate_train(r, replies)
    expected = {r: 1 for r in range(1, 18) if r not in lost}
    assert sent == expected | {4: 2, 7: 2, 13: 4}


@pytest.mark.parametrize("compressor", ["randk:k=4", "qsgd:7", "topk:k=3", "sign"])
def test_made_up_packets_tell_more(compressor):
    """Also unbiased ones: scaled before they are repeated, not after."""
    rng, left = np.random.default_rng(0), []
    for times in (1, 2, 4):
        shares = []
        for k in range(200):
            y = rng.standard_normal(40)
            total = repeated(make_compressor(compressor), times, 40)
            lost, scale = y.copy(), contraction_scale(total.traits(40))
            add_to(total.compress(y, Draw(k)), lost, -scale)
            shares.append(float(lost @ lost) / float(y @ y))
        left.append(np.mean(shares))
    assert left[1] < 0.95 * left[0]
    assert left[2] < 0.9 * left[1]


def test_collections_change_nothing_under_loss_either(tmp_path):
    problem, ends = Nodes(n=4, noise=0.3), []
    for every in (0, 1, 3):
        strategy = make_strategy(
            "squarm-sgd", compressor="topk:k=2", lr=0.01, gamma=0.2, min_available_nodes=4
        )
        rng = np.random.default_rng(1)
        arrays = problem.task_fn(0, 4).initial_arrays()
        folder = tmp_path / str(every)
        with weather(problem.task_fn, folder, 4) as grid:
            for r in range(1, 31):
                grid.lose_down = frozenset(np.flatnonzero(rng.random(4) < 0.2).tolist())
                grid.lose_up = frozenset(np.flatnonzero(rng.random(4) < 0.2).tolist())
                messages = list(strategy.configure_train(r, arrays, None, grid))
                replies = grid.send_and_receive(messages)
                grid.lose_down = grid.lose_up = frozenset()
                strategy.collect_every = every
                strategy.aggregate_train(r, replies)
            ends.append(check_copies(strategy, folder))
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])


def test_an_old_disk_is_no_memory_to_go_on_from(tmp_path, caplog):
    """A backup of five rounds ago: the node begins anew, and its momentum with it."""
    problem = Nodes(n=4)
    strategy = make_strategy(
        "squarm-sgd", compressor="topk:k=2", lr=0.01, local_steps=1, min_available_nodes=4
    )
    arrays = problem.task_fn(0, 4).initial_arrays()
    with weather(problem.task_fn, tmp_path, 4) as grid, caplog.at_level(logging.WARNING):
        for r in range(1, 20):
            if r == 6:
                shutil.copy(disk(tmp_path, 3), tmp_path / "backup")
            if r == 11:
                shutil.copy(tmp_path / "backup", disk(tmp_path, 3))
            if r == 12:
                public = strategy.hub.nodes[3].public.copy()
            play(strategy, grid, arrays, r)
            if r == 12:
                state = DiskStore(disk(tmp_path, 3)).load()
                np.testing.assert_array_equal(state.vectors["v"], problem.gradient(3, public, 12))
    assert caplog.text.count("begins anew") == 1
    check_copies(strategy, tmp_path)


class Forging:
    """Client 1 answers an old question, and says that it holds what it does not."""

    def __init__(self, grid, held):
        self.grid, self.held = grid, held

    def __call__(self, messages):
        orders = {m.metadata.dst_node_id: m for m in messages}
        replies = self.grid.send_and_receive(orders.values())
        return [
            Message(self.forged(r.content), reply_to=orders[r.metadata.src_node_id])
            if self.grid.partition(r.metadata.src_node_id) == 1
            else r
            for r in replies
        ]

    def forged(self, content):
        reply = Reply.decode(content)
        fields = {name: getattr(reply, name) for name in Reply.__dataclass_fields__}
        return Reply(**{**fields, "version": reply.version - 1, "held": self.held}).encode()


@pytest.mark.parametrize("held", [-1, 10**6])
def test_what_a_refused_answer_says_it_holds_is_not_believed(held, tmp_path):
    strategy = choco(min_available_nodes=3)
    arrays = still(0, 3).initial_arrays()
    with weather(still, tmp_path, 3) as grid:
        for r in range(1, 12):
            messages = list(strategy.configure_train(r, arrays, None, grid))
            send = Forging(grid, held) if r == 5 else grid.send_and_receive
            strategy.aggregate_train(r, send(messages))
            mean = check_copies(strategy, tmp_path).mean(axis=0)
            np.testing.assert_allclose(mean, X0[:3].mean(axis=0), rtol=0, atol=1e-14)
    assert strategy.exchange.refused == 1
    assert strategy.hub.nodes[1].count == 11


def test_a_collection_asks_once_for_what_is_lost(tmp_path):
    strategy = choco(min_available_nodes=3, collect_every=1)
    arrays = still(0, 3).initial_arrays()
    with weather(still, tmp_path, 3) as grid:
        for r in range(1, 6):
            messages = list(strategy.configure_train(r, arrays, None, grid))
            replies = grid.send_and_receive(messages)
            if r == 4:
                disk(tmp_path, 1).unlink()
            strategy.aggregate_train(r, replies)
    asked = [
        row
        for row in strategy.ledger.rows
        if (row.round, row.client, row.purpose) == (4, 1, "collect")
    ]
    assert len(asked) == 1
    assert len(strategy.models) == 3, "in the round after it has a model again"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("choco-sgd", {"momentum": 0.5}),
        ("choco-sgd", {"local_steps": 2}),
        ("choco-sgd", {"threshold": 0.0}),
        ("choco-sgd", {"threshold_step": 1.0, "threshold_every": 1}),
        ("d-psgd", {"compressor": "topk:0.1"}),
        ("d-psgd", {"gamma": 0.5}),
        ("d-psgd", {"threshold_step": 1.0, "threshold_every": 1}),
    ],
)
def test_settings_that_make_another_method_are_refused(name, options):
    with pytest.raises(ValueError, match="use squarm-sgd for others"):
        make_strategy(name, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction_train": 0.5}, "use ef21 to sample"),
        ({"weights": "num-examples"}, "weights is 'num-examples'"),
        ({"local_lr": 0.1}, "local_lr is 0.1"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"relay": "guess"}, "forward or mix or auto"),
        ({"init": "zero"}, "model or own"),
        ({"patience": 0}, "patience is 0"),
        ({"catch_up": -1}, "catch_up is -1"),
        ({"collect_every": 1.5}, "collect_every is 1.5"),
        ({"threshold_power": 2.0}, "threshold_power is 2.0"),
        ({"threshold_every": -1}, "threshold_every is -1"),
        ({"compressor": "sign:scale=l2"}, "contractive"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_strategy("squarm-sgd", **options)
