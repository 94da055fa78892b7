"""Who may be absent: one table, one row a name, and what each row declares is tried.

Every algorithm goes through the same storm: lost messages both ways, a worker that joins late, one
that is away for some rounds, one that is killed and restarts from its disk, one whose disk is lost.
Afterwards it must still come to where it would have come without.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pytest

from flowerpress.clients import FunctionTask, client_app
from flowerpress.protocol import Instruction
from flowerpress.simulations import InProcessGrid
from flowerpress.strategies import RoundError, make_strategy, strategy_names
from flowerpress.worker.replicas import follow_model
from flowerpress.worker.stores import DiskStore
from tests.algorithms.problems import Quadratics

N, STORM, SEED = 5, 60, 4
TOPK, RANDK = "topk:k=3", "randk:k=3"
SKETCH = {"rows": 5, "columns": 6, "k": 3}


@dataclass
class Row:
    """What an algorithm declares, and how it is tried.

    sampling : "mean" (over those who answer), "kept" (an absent worker's share stays), or "refused"
    everyone : whether a round without one of the workers is void
    resync : whether a lost disk makes all start over
    exact : whether it comes to the solution although the workers differ, at constant lr; else its
        distance must come below `floor` times the first (efficient-adam and birder have another
        fixed point; that is 0.58 away, with a storm and without)
    wander : the same bound for a mean over samples of half of four unlike workers, at constant lr
    """

    options: dict
    sampling: str = "mean"
    everyone: bool = False
    resync: bool = False
    exact: bool = True
    floor: float = 0.0
    wander: float = 0.35
    close: float = 1e-6
    rounds: int = 450


TABLE = {
    "fedavg": Row({"lr": 0.1}),
    "dsgd": Row({"compressor": "qsgd:127", "lr": 0.1}, exact=False, floor=0.005),
    "ef14": Row({"compressor": TOPK, "lr": 0.02}, exact=False, floor=0.03, wander=0.15),
    "ef21": Row({"compressor": TOPK, "lr": 0.08}, sampling="kept", resync=True),
    "ef21-sgdm": Row(
        {"compressor": TOPK, "lr": 0.08, "momentum": 0.5}, sampling="kept", resync=True
    ),
    "ef21-sgd2m": Row(
        {"compressor": TOPK, "lr": 0.08, "momentum": 0.5}, sampling="kept", resync=True
    ),
    "diana": Row({"compressor": RANDK, "lr": 0.05}, sampling="kept", resync=True),
    "dasha": Row({"compressor": RANDK, "lr": 0.04}, sampling="kept", resync=True, rounds=800),
    "marina": Row({"compressor": RANDK, "lr": 0.05, "p": 0.3}, sampling="refused", everyone=True),
    "vr-marina": Row(
        {"compressor": RANDK, "lr": 0.05, "p": 0.3}, sampling="refused", everyone=True
    ),
    "efficient-adam": Row(
        {"compressor": TOPK, "downlink": TOPK, "lr": 0.05, "decay": "sqrt"}, exact=False, floor=0.65
    ),
    "onebit-adam": Row(
        {"compressor": "sign", "downlink": "sign", "lr": 0.01, "warmup_rounds": 70},
        exact=False,
        floor=0.03,
        wander=0.1,
    ),
    "birder": Row({"lr": 0.05, "decay": "sqrt"}, exact=False, floor=0.65, wander=0.55),
    "cdadam": Row(
        {"compressor": TOPK, "downlink": TOPK, "lr": 0.1},
        sampling="kept",
        resync=True,
        rounds=700,
        close=1e-4,  # AMSGrad slows down: its largest v never falls
    ),
    # At constant lr, models of unlike nodes stay apart, and their mean has an error of that order.
    "choco-sgd": Row(
        {"compressor": TOPK, "lr": 0.01}, sampling="refused", exact=False, floor=0.05, rounds=600
    ),
    "d-psgd": Row({"lr": 0.01}, sampling="refused", exact=False, floor=0.03, rounds=600),
    "adam": Row({"lr": 0.03}, exact=False, floor=0.01, wander=0.1),
    "amsgrad": Row({"lr": 0.03}, exact=False, floor=0.01, wander=0.1),
    "fedams": Row({"lr": 0.1, "local_lr": 0.05}, exact=False, floor=0.01, wander=0.2),
    "comp-ams": Row({"compressor": TOPK, "lr": 0.03}, exact=False, floor=0.01, wander=0.1),
    "fedcams": Row(
        {"compressor": TOPK, "lr": 0.1, "local_lr": 0.05}, exact=False, floor=0.01, wander=0.2
    ),
    "fetchsgd": Row({**SKETCH, "lr": 0.1, "momentum": 0.5}),
    "sketched-amsgrad": Row({**SKETCH, "lr": 0.05, "eps": 1e-3}),
    "sketched-sgd": Row({**SKETCH, "lr": 0.05, "momentum": 0.5}),
    "squarm-sgd": Row(
        {"compressor": TOPK, "lr": 0.002, "momentum": 0.5, "local_steps": 3, "threshold": 20.0},
        sampling="refused",
        exact=False,
        floor=0.05,
    ),
    "pp-marina": Row({"compressor": RANDK, "lr": 0.05, "p": 0.3}, rounds=700),
}


UNIFORM = {"marina", "vr-marina", "pp-marina", "choco-sgd", "d-psgd", "squarm-sgd"}


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """What is written here need not survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


class Exact(Quadratics):
    def task_fn(self, i, n):
        return FunctionTask(
            self.x0, lambda x, _: (0.0, self.A[i] @ (x - self.b[i])), num_examples=i + 1
        )

    def optimum(self, clients, weights):
        a = sum(w * self.A[i] for i, w in zip(clients, weights, strict=True))
        b = sum(w * self.A[i] @ self.b[i] for i, w in zip(clients, weights, strict=True))
        return np.linalg.solve(a, b)


class Storm:
    """Faults that can be ended."""

    chance = 0.1

    def loses(self, direction, client, count):
        stream = [SEED, client, count, direction == "up"]
        return bool(np.random.default_rng(stream).random() < self.chance)

    def kills(self, client, count):
        return client == 2 and count in (15, 40)


class Weather(InProcessGrid):
    hidden: frozenset = frozenset()

    def get_node_ids(self):
        return [node for node in super().get_node_ids() if node - 2 not in self.hidden]


def weather(problem, folder, storm):
    config = {"state-store": "disk", "state-dir": str(folder)}
    return Weather(lambda: client_app(problem.task_fn), N, node_config=config, faults=storm)


def play(strategy, grid, arrays, server_round):
    messages = list(strategy.configure_train(server_round, arrays, None, grid))
    strategy.aggregate_train(server_round, grid.send_and_receive(messages))
    return messages


def test_the_table_has_every_name():
    assert sorted(TABLE) == strategy_names()


# One of each family; the others in scripts/nightly.
SAMPLED_SOON = {"fedavg", "ef14", "ef21", "pp-marina", "dasha", "cdadam", "fetchsgd", "choco-sgd"}
SOON = {"ef21-sgdm", "marina", "cdadam", "squarm-sgd"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SOON else pytest.mark.slow) for name in TABLE]
)
def test_storm(name, tmp_path, caplog):
    row, problem, storm = TABLE[name], Exact(n=N), Storm()
    weights = "uniform" if name in UNIFORM else "num-examples"
    strategy = make_strategy(name, seed=SEED, weights=weights, **row.options)
    arrays = problem.task_fn(0, N).initial_arrays()
    with weather(problem, tmp_path, storm) as grid:
        for r in range(1, row.rounds + 1):
            grid.hidden = frozenset({4} if r < 10 else {1} if 20 <= r < 30 else ())
            if r == 45:
                for path in tmp_path.glob("run-*/client-3.safetensors"):
                    path.unlink()
            storm.chance = 0.1 if r < STORM else 0.0
            play(strategy, grid, arrays, r)
    assert strategy.exchange.refused == 0
    if row.resync:
        assert strategy.exchange.resyncs >= 1, "the lost disk went unnoticed"
        assert "all workers start over" in caplog.text
    masses = [i + 1 if weights == "num-examples" else 1 for i in range(N)]
    solution = problem.optimum(range(N), masses)
    x = strategy.model.x
    if row.exact:
        assert np.linalg.norm(x - solution) < row.close
    else:
        far = np.linalg.norm(problem.x0 - solution)
        assert np.linalg.norm(x - solution) < row.floor * far
    assert_replicas(strategy, tmp_path)


def assert_replicas(strategy, folder):
    """Every worker's replica, once it has what it lacks, is the server's model to the bit."""
    if not strategy.downlink:
        return
    for client in strategy.population.clients.values():
        (path,) = folder.glob(f"run-*/client-{client.id}.safetensors")
        order = Instruction("", 1, 1, 0, "", strategy.hyper(), strategy.model.part_for(client.held))
        x = follow_model(order, strategy.model.layout, DiskStore(path).load())
        np.testing.assert_array_equal(x, strategy.model.x)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in SAMPLED_SOON else pytest.mark.slow) for name in TABLE],
)
def test_sampling(name):
    """Half of the workers in each round: refused with what to do, or it goes on and gets there."""
    row, problem = TABLE[name], Exact(n=4)
    if row.sampling == "refused":
        with pytest.raises(ValueError, match="use "):
            make_strategy(name, fraction_train=0.5, **row.options)
        return
    strategy = make_strategy(name, seed=SEED, fraction_train=0.5, weights="uniform", **row.options)
    arrays = problem.task_fn(0, 4).initial_arrays()
    asked = []
    with InProcessGrid(lambda: client_app(problem.task_fn), 4) as grid:
        for r in range(1, row.rounds + 1):
            asked.append(len({m.metadata.dst_node_id for m in play(strategy, grid, arrays, r)}))
    assert set(asked) <= {2, 4}
    assert asked.count(2) > row.rounds / 3
    solution = problem.optimum(range(4), [1] * 4)
    far = np.linalg.norm(problem.x0 - solution)
    exact = row.exact and (row.sampling == "kept" or name == "pp-marina")
    bound = row.close if exact else row.wander * far
    assert np.linalg.norm(strategy.model.x - solution) < bound


@pytest.mark.parametrize("name", TABLE)
def test_a_round_without_any_answer_costs_that_round(name, tmp_path, caplog):
    """All replies of round 6 are lost: what follows is as if the round had not been."""
    row, problem, storm = TABLE[name], Exact(n=3), Storm()
    strategy = make_strategy(name, seed=SEED, **row.options)
    arrays = problem.task_fn(0, 3).initial_arrays()
    config = {"state-store": "disk", "state-dir": str(tmp_path)}
    app = client_app(problem.task_fn)
    with Weather(lambda: app, 3, node_config=config, faults=storm) as grid:
        for r in range(1, 16):
            storm.chance = 1.0 if r == 6 else 0.0
            before = strategy.model.version if r > 1 else 0
            play(strategy, grid, arrays, r)
            assert strategy.model.version == before + (r != 6)
    assert strategy.exchange.resyncs == 0
    assert strategy.exchange.refused == 0
    assert_replicas(strategy, tmp_path)


@pytest.mark.parametrize("name", TABLE)
def test_a_second_start_is_a_new_session(name, tmp_path):
    """The same strategy twice on the same workers: the second run is the first one again."""
    row, problem, storm = TABLE[name], Exact(n=3), Storm()
    storm.chance = 0.0
    strategy = make_strategy(name, seed=SEED, **row.options)
    arrays = problem.task_fn(0, 3).initial_arrays()
    config = {"state-store": "disk", "state-dir": str(tmp_path)}
    ends = []
    app = client_app(problem.task_fn)
    with Weather(lambda: app, 3, node_config=config, faults=storm) as grid:
        for _ in range(2):
            for r in range(1, 9):
                play(strategy, grid, arrays, r)
            ends.append(strategy.model.x.copy())
            assert strategy.exchange.resyncs == 0
    np.testing.assert_array_equal(*ends)


def test_a_worker_of_an_earlier_run_forgets_it(tmp_path):
    """It was in a first run alone; in the second it joins late, and must not build on the first."""
    problem, storm = Exact(n=4), Storm()
    storm.chance = 0.0
    config = {"state-store": "disk", "state-dir": str(tmp_path)}
    arrays = problem.task_fn(0, 4).initial_arrays()
    app = client_app(problem.task_fn)
    with Weather(lambda: app, 4, node_config=config, faults=storm) as grid:
        for hidden, join in ((frozenset({0, 1}), 99), (frozenset({2, 3}), 7)):
            strategy = make_strategy("ef14", compressor=TOPK, downlink=TOPK, lr=0.02, seed=SEED)
            for r in range(1, 12):
                grid.hidden = hidden if r < join else frozenset()
                play(strategy, grid, arrays, r)
    assert len(strategy.population.clients) == 4
    assert_replicas(strategy, tmp_path)


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.everyone])
def test_what_needs_everyone_says_who_is_missing(name, tmp_path, caplog):
    row, problem, storm = TABLE[name], Exact(n=N), Storm()
    storm.chance = 0.0
    strategy = make_strategy(name, seed=SEED, **row.options)
    arrays = problem.task_fn(0, N).initial_arrays()
    with weather(problem, tmp_path, storm) as grid, caplog.at_level(logging.WARNING):
        for r in range(1, 6):
            play(strategy, grid, arrays, r)
        before = strategy.model.x.copy()
        grid.hidden = frozenset({3})
        play(strategy, grid, arrays, 6)
        np.testing.assert_array_equal(strategy.model.x, before)
        assert "round 6 is void: no answer of clients [3]" in caplog.text
        for r in range(7, 26):
            play(strategy, grid, arrays, r)
        with pytest.raises(RoundError, match=r"needs every client, and clients \[3\]"):
            play(strategy, grid, arrays, 26)
