"""A refused update is as if its worker had not been asked: nothing of it stays in any memory."""

import logging

import numpy as np
import pytest

from flowerpress.clients import FunctionTask, client_app
from flowerpress.protocol import Instruction, Reply
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy, strategy_names
from flowerpress.worker import worker
from flowerpress.worker.stores import DiskStore
from tests.algorithms import lives
from tests.algorithms.lives import N, assert_same, killed_at, strategy_of
from tests.algorithms.problems import SEED, Quadratics, trajectory, worker_memory
from tests.protocol.test_absurd_updates import HostileGrid
from tests.protocol.test_hostile_clients import forged, identity

SPIKY, ROUNDS, AT = 1, 9, 4
NAMES = [*strategy_names(), "onebit-adam, warm-up"]
# Their updates have one size, or nearly, whatever the gradient: the gradient's own tells.
NORMALISED = {"birder", "efficient-adam"}


def run(name, event, calls=AT):
    """The models, where client 1's gradient number `calls` is what `event` makes of it."""
    problem = Quadratics(n=4, dim=8)

    def task_fn(i, n):
        count = [0]

        def gradient(x, batch):
            count[0] += 1
            g = problem.A[i] @ (x - problem.b[i])
            return 0.0, event(g) if (i, count[0]) == (SPIKY, calls) else g

        return FunctionTask(problem.x0, gradient)

    options = {"warmup_rounds": 2 + 5 * ("warm" in name), "lr": 0.05}
    options = options if name.startswith("onebit") else lives.OPTIONS.get(name, {})
    strategy = make_strategy(name.split(",")[0], **options)
    _, models = trajectory(strategy, task_fn, 4, ROUNDS)
    return strategy, models


def spike(g):
    return g + 1e9


def absent(g):
    raise ValueError("not today")


@pytest.mark.parametrize("told", [True, False], ids=["the worker's word", "the update's size"])
@pytest.mark.parametrize("name", NAMES)
def test_an_absurd_gradient_is_as_if_its_worker_had_been_away(name, told, monkeypatch):
    """To the bit: moments, errors, sums, momenta and own models go back to what they were."""
    if not told:
        if name in NORMALISED:
            return
        monkeypatch.setattr(worker, "length", lambda vector: 0.0)
    strategy, models = run(name, spike)
    assert strategy.exchange.oversized == strategy.exchange.refused == 1
    _, without = run(name, absent)
    np.testing.assert_array_equal(models, without)
    if name != "birder":  # of whose random signs one more or less may not show
        _, calm = run(name, lambda g: g)
        assert not np.array_equal(models, calm)


@pytest.mark.parametrize("size", [1e6, 1e12])
@pytest.mark.parametrize("name", ["fedavg", "dsgd", "ef14", "ef21-sgdm", "ef21-sgd2m", "cdadam"])
def test_a_spike_is_forgotten_within_fifty_rounds(name, size):
    """Twice the distance without it, and what missing one update of one client leaves by then."""

    def distance(event):
        centres = np.linspace(-1, 1, 20).astype("f4") * np.arange(1, 5)[:, None]

        def task_fn(i, n):
            count = [0]

            def gradient(x, batch):
                count[0] += 1
                g = x - centres[i].astype("f4")
                return 0.0, event(g) if (i, count[0]) == (0, 20) else g

            return FunctionTask(np.zeros(20, "f4"), gradient)

        compressor = {"fedavg": "identity", "cdadam": "sign"}.get(name, "topk:0.25")
        strategy = make_strategy(name, compressor=compressor, lr=0.1)
        x = simulate(strategy, task_fn, 4, 70, threads=1).arrays["x"].numpy()
        return float(np.linalg.norm(x - centres.mean(axis=0)))

    def huge(g):
        g = g.copy()
        g[3] += np.float32(size)
        return g

    # The calm runs end within 1e-3 to 2 of the solution. One update of one of four clients is a
    # quarter of a step of size 0.1, and contracts by 0.9^50 = 0.005.
    assert distance(huge) <= 2 * distance(lambda g: g) + 0.01


def test_old_moments_take_a_vector_each_only_while_a_packet_is_in_flight(tmp_path):
    """On the disk too; "v-" is v without the last gradient."""
    strategy = make_strategy("ef21-sgd2m", compressor="topk:k=2", lr=0.05, momentum=0.3)
    problem = Quadratics(n=2)
    trajectory(strategy, problem.task_fn, 2, 3, state_dir=tmp_path)
    (path,) = tmp_path.glob("run-*/client-0.safetensors")
    kept = {name for name in DiskStore(path).load().vectors if not name.startswith("reply")}
    assert kept == {"memory", "v", "v-", "u", "u-"}
    v, before = (worker_memory(tmp_path, 0, 0, name) for name in ("v", "v-"))
    last = (v - 0.7 * before) / 0.3
    again = make_strategy("ef21-sgd2m", compressor="topk:k=2", lr=0.05, momentum=0.3)
    x = trajectory(again, problem.task_fn, 2, 2)[1][-1]
    np.testing.assert_allclose(last, problem.gradient(0, x, 3), rtol=0, atol=1e-12)


DAMAGED = {
    "no content": lambda reply: forged(reply, packets=[]),
    "cut": lambda reply: forged(reply, packets=[reply.packets[0][:-1]]),
    "another length": lambda reply: forged(reply, packets=[identity(np.ones(5))]),
    "too large": lambda reply: forged(reply, packets=[identity(np.full(8, 1e9))]),
}


def hostile_run(name, lie, at=4, rounds=8):
    problem = Quadratics(n=4, dim=8)
    strategy = make_strategy(name, seed=SEED, **lives.OPTIONS.get(name, {}))
    models = []
    with HostileGrid(lambda: client_app(problem.task_fn), 4) as grid:
        grid.hostile = SPIKY
        arrays = problem.task_fn(0, 4).initial_arrays()
        for server_round in range(1, rounds + 1):
            grid.lie = lie if server_round == at else Reply.encode
            orders = list(strategy.configure_train(server_round, arrays, None, grid))
            strategy.aggregate_train(server_round, grid.send_and_receive(orders))
            models.append(strategy.model.x.copy())
    return strategy, np.array(models)


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", ["ef21-sgdm", "birder", "ef14", "efficient-adam", "sketched-sgd"])
def test_damage_and_excess_on_the_way(name, damage):
    """Averages leave out whatever was refused; what would be owed is owed, unless it was absurd."""
    _, models = hostile_run(name, DAMAGED[damage])
    _, lost = hostile_run(name, lambda reply: forged(reply, status="failed"))
    without = np.array(absent_in_round(name, 4))
    owing = name in {"ef14", "efficient-adam", "sketched-sgd"}
    expected = lost if owing and damage != "too large" else without
    np.testing.assert_array_equal(models, expected)
    assert name == "birder" or not np.array_equal(lost, without)


def absent_in_round(name, at, rounds=8):
    problem = Quadratics(n=4, dim=8)
    strategy = make_strategy(name, **lives.OPTIONS.get(name, {}))

    def task_fn(i, n):
        count = [0]

        def gradient(x, batch):
            count[0] += 1
            if (i, count[0]) == (SPIKY, at):
                raise ValueError("not today")
            return problem.task_fn(i, n).gradient(x, batch)

        return FunctionTask(problem.x0, gradient, draw=lambda rng: np.zeros(8))

    return trajectory(strategy, task_fn, 4, rounds)[1][1:]


class Spiky(lives.Noisy):
    """One gradient is absurd: client 1's of round 3, whichever life computes it."""

    def __init__(self, i):
        super().__init__(i)
        rng = np.random.default_rng([lives.SEED, SPIKY, 3])
        self.marked = 0.1 * rng.standard_normal(lives.PROBLEM.dim)

    def gradient(self, x, batch):
        loss, g = super().gradient(x, batch)
        return loss, spike(g) if batch is not None and np.array_equal(batch, self.marked) else g


@pytest.mark.parametrize(
    "name", ["ef14", "ef21-sgd2m", "efficient-adam", "birder", "sketched-amsgrad", "squarm-sgd"]
)
def test_a_server_killed_after_a_refusal(name, tmp_path, monkeypatch, caplog):
    """The next question names it still, in another life of both."""
    monkeypatch.setattr(lives, "task_fn", lambda i, n: Spiky(i))
    with caplog.at_level(logging.WARNING, "flowerpress"):
        whole, ends = lives.whole_run(monkeypatch, name)
    assert "round 3: refused client 1" in caplog.text
    for positions in ([ends[3]], [ends[3] - 1, ends[3] + 1], [ends[3] + N]):
        folder = tmp_path / str(positions)
        assert_same(killed_at(monkeypatch, name, folder, positions, ends), whole)


def test_a_lost_question_does_not_lose_the_refusal():
    """It is named until another one is: the worker may hear of it rounds later."""
    strategy = strategy_of("ef21-sgdm")
    problem = Quadratics(n=4, dim=8)
    with HostileGrid(lambda: client_app(problem.task_fn), 4) as grid:
        grid.hostile, heard = SPIKY, []
        arrays = problem.task_fn(0, 4).initial_arrays()
        for server_round in range(1, 6):
            grid.lie = DAMAGED["too large"] if server_round == 2 else Reply.encode
            orders = list(strategy.configure_train(server_round, arrays, None, grid))
            heard.append(Instruction.decode(orders[SPIKY].content))
            replies = grid.send_and_receive([o for o in orders if server_round != 3])
            strategy.aggregate_train(server_round, replies)
    assert (
        [order.absurd for order in heard] == [order.refused for order in heard] == [0, 0, 2, 2, 2]
    )
