"""Sketching strategies under loss, absence, restarts, lost disks, late joins and liars."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from flowerpress.clients import FunctionTask
from flowerpress.compressors import Draw, decompress, make_compressor
from flowerpress.protocol import Instruction, Reply
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy
from flowerpress.worker.stores import DiskStore
from tests.algorithms.problems import SEED, Quadratics, cohorts, trajectory
from tests.algorithms.sketching import LossyGrid, run, seeded_loss, signs_of
from tests.reference import sketched as reference

NAMES = ["fetchsgd", "sketched-sgd", "sketched-amsgrad"]
N, DIM, K, ROWS, COLUMNS, LR = 4, 120, 6, 3, 40, 0.02
OPTIONS = {"rows": ROWS, "columns": COLUMNS, "k": K, "lr": LR}
BETAS = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-3}
OWED = {"sketched-sgd": ("u", "v"), "sketched-amsgrad": ("e",)}
CLOSE = {"rtol": 0, "atol": 1e-9}


def make(name, **options):
    more = BETAS if name == "sketched-amsgrad" else {"momentum": 0.9}
    return make_strategy(name, **{**OPTIONS, **more, **options})


def expected(name, problem, grid, rounds, k=K, columns=COLUMNS):
    """The reference's models and states, given what came through in the run on `grid`."""
    weights, signs = np.ones(problem.n), signs_of(ROWS, columns, problem.dim)
    arguments = problem.x0, problem.gradient, weights, signs
    if name == "fetchsgd":
        steps = reference.fetchsgd(*arguments, LR, k, grid.event, 0.9, zero=True, mask=True)
    elif name == "sketched-sgd":
        steps = reference.sketched_sgd(*arguments, LR, k, grid.event, 0.9, candidates=4)
    else:
        steps = reference.sketched_amsgrad(
            *arguments, lambda r: LR, k, grid.event, **BETAS, candidates=4
        )
    states = [next(steps) for _ in range(rounds)]
    return np.array([x for x, _ in states]), states[-1][1]


def state_of(folder, client):
    (path,) = folder.glob(f"run-*/client-{client}.safetensors")
    return DiskStore(path).load()


def check_replicas(strategy, folder):
    """Each worker's replica, brought up to date, is the server's model to the bit."""
    model = strategy.model
    for client in strategy.population.clients.values():
        if client.held < 0:
            continue
        state = state_of(folder, client.id)
        x = state.vectors["replica.x"]
        # A worker whose last answer was lost may be ahead of what the server knows.
        replica = type(model.replica)(model.rule, int(state.numbers["held"]), x)
        replica.follow(model.part_for(client.held), model.layout)
        np.testing.assert_array_equal(replica.x, model.x)


def check_memories(strategy, folder, names, expected):
    """Each worker's vectors, settled as they will be, are the reference's."""
    for client in strategy.population.clients.values():
        state = state_of(folder, client.id)
        vectors, numbers = state.vectors, state.numbers
        if "places" in vectors and client.receiver.applied == numbers["answer"]:
            if "delta" not in vectors:
                deltas = strategy.model.log.since(int(numbers["awaited"]))
                vectors["delta"] = np.frombuffer(deltas.packets[0], np.uint8)
            moved = np.flatnonzero(decompress(vectors["delta"].tobytes()))
            for name in OWED[strategy.name]:
                vectors[name][moved] = 0
        for name in names:
            np.testing.assert_allclose(vectors[name], expected[name][client.id], **CLOSE)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_lost_messages_and_absence_are_as_declared(name, fraction, tmp_path):
    """Each message is lost with 15 %, and each comes to a new process with what is on the disk."""
    problem = Quadratics(n=N, dim=DIM, noise=0.2)
    strategy = make(name, fraction_train=fraction)
    grid = LossyGrid(problem, tmp_path, seeded_loss(0.15))
    models = run(strategy, problem, 40, grid)
    x, state = expected(name, problem, grid, 40)
    np.testing.assert_allclose(models[1:], x, **CLOSE)
    check_replicas(strategy, tmp_path)
    losses = [
        {*event.reached} - {*event.sketched} or {*event.sketched} - {*event.exact}
        for event in grid.events.values()
    ]
    assert sum(map(bool, losses)) > 5, "messages were lost indeed"
    assert strategy.exchange.resyncs == 0
    assert strategy.exchange.refused == 0
    if name != "fetchsgd":
        names = {"sketched-sgd": ("u", "v"), "sketched-amsgrad": ("m", "e")}[name]
        check_memories(strategy, tmp_path, names, state)


class TwiceGrid(LossyGrid):
    """Every question reaches its worker twice, and only the second answer comes through."""

    def _deliver(self, message):
        if message.metadata.message_type == "train":
            super()._deliver(message)
        return super()._deliver(message)


@pytest.mark.parametrize("name", NAMES)
def test_a_question_that_comes_twice_is_answered_once(name, tmp_path):
    problem = Quadratics(n=N, dim=DIM)
    models = run(make(name), problem, 10, LossyGrid(problem, tmp_path / "once"))
    twice = run(make(name), problem, 10, TwiceGrid(problem, tmp_path / "twice"))
    np.testing.assert_array_equal(twice, models)


@pytest.mark.parametrize("name", NAMES)
def test_a_lost_disk_loses_what_was_owed_and_nothing_else(name, tmp_path):
    problem = Quadratics(n=N, dim=DIM)
    strategy, grid = make(name), LossyGrid(problem, tmp_path)

    def between(r):
        if r == 12:  # heard of in round 12, when the model is sent whole in round 13
            grid.lose_disk(1, 12)

    models = run(strategy, problem, 25, grid, between)
    assert 1 not in grid.event(12).reached
    assert 1 in grid.event(13).reached
    np.testing.assert_allclose(models[1:], expected(name, problem, grid, 25)[0], **CLOSE)
    check_replicas(strategy, tmp_path)


@pytest.mark.parametrize("name", ["sketched-sgd", "sketched-amsgrad"])
def test_a_disk_lost_between_the_exchanges(name, tmp_path):
    problem = Quadratics(n=N, dim=DIM)
    strategy = make(name)

    def loses(r, client, stage, direction):
        if (r, client, stage, direction) == (9, 2, 2, "down"):
            grid.lose_disk(2, 10)
        return False

    grid = LossyGrid(problem, tmp_path, loses)
    models = run(strategy, problem, 20, grid)
    assert 2 in grid.event(9).sketched
    assert 2 not in grid.event(9).exact
    np.testing.assert_allclose(models[1:], expected(name, problem, grid, 20)[0], **CLOSE)
    check_replicas(strategy, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_late_joiner_takes_part_at_once(name, tmp_path):
    problem = Quadratics(n=N, dim=DIM)
    strategy, grid = make(name), LossyGrid(problem, tmp_path)
    grid.hidden = {3}

    def between(r):
        if r == 8:
            grid.hidden = set()

    models = run(strategy, problem, 20, grid, between)
    assert 3 in grid.event(8).sketched
    np.testing.assert_allclose(models[1:], expected(name, problem, grid, 20)[0], **CLOSE)
    check_replicas(strategy, tmp_path)


@pytest.mark.parametrize("name", ["sketched-sgd", "sketched-amsgrad"])
def test_after_a_long_absence_all_that_was_sent_counts_as_sent(name, tmp_path):
    """A model of 8 numbers is smaller than two deltas: worker 0 is sent it whole in round 9."""
    problem = Quadratics(n=3, dim=8)

    def loses(r, client, stage, direction):
        return client == 0 and 4 < r < 9 and direction == "down"

    strategy, grid = make(name, columns=8, k=1, candidates=4), LossyGrid(problem, tmp_path, loses)
    grid.event(4).whole.append(0)  # how it learns that its last answer was applied
    models = run(strategy, problem, 20, grid)
    model, _ = expected(name, problem, grid, 20, k=1, columns=8)
    np.testing.assert_allclose(models[1:], model, **CLOSE)
    grid.event(4).whole.clear()
    other, _ = expected(name, problem, grid, 20, k=1, columns=8)
    assert np.abs(models[1:] - other).max() > 1e-4, "it makes a difference"


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_on_the_replica_changes_nothing(name, tmp_path):
    """Workers then see the step in an evaluation, before they are told that they were in it."""
    problem = Quadratics(n=3, dim=DIM)

    def task_fn(i, n):
        return FunctionTask(
            problem.x0,
            lambda x, _: (0.0, problem.gradient(i, x, 1)),
            evaluate=lambda x: {"norm": float(np.linalg.norm(x))},
        )

    _, plain = trajectory(make(name), task_fn, 3, 15)
    strategy = make(name, fraction_evaluate=1.0, fraction_train=1.0)
    result, evaluated = trajectory(strategy, task_fn, 3, 15, state_dir=tmp_path)
    assert sum(row.purpose == "evaluate" and row.direction == "up" for row in result.ledger.rows)
    np.testing.assert_array_equal(evaluated, plain)


def test_without_momentum_nothing_is_lost_or_sent_twice(tmp_path):
    """x^t - lr mean(v_i) = x^0 - lr (sum of the mean gradients), with all workers there."""
    problem = Quadratics(n=N, dim=DIM, noise=0.2)
    strategy = make("sketched-sgd", momentum=0.0)
    _, models = trajectory(strategy, problem.task_fn, N, 30, state_dir=tmp_path)
    owed = []
    for i in range(N):
        v = state_of(tmp_path, i).vectors["v"]
        v[models[-1] != models[-2]] = 0  # the last step, of which it was not told yet
        owed.append(v)
    gradients = [
        np.mean([problem.gradient(i, models[r - 1], r) for i in range(N)], axis=0)
        for r in range(1, 31)
    ]
    uncompressed = problem.x0 - LR * sum(gradients)
    # 30 rounds of additions of numbers below 10.
    np.testing.assert_allclose(
        models[-1] - LR * np.mean(owed, axis=0), uncompressed, rtol=0, atol=1e-12
    )


class LyingGrid(LossyGrid):
    """Worker 0's packets in one of the exchanges are replaced by `lie` of them."""

    def __init__(self, problem, folder, stage, lie):
        super().__init__(problem, folder)
        self.stage, self.lie = stage, lie

    def _deliver(self, message):
        reply = super()._deliver(message)
        if message.metadata.message_type == "train" and message.metadata.dst_node_id == 2:
            order, said = Instruction.decode(message.content), Reply.decode(reply.content)
            if order.stage == self.stage:
                reply.content = replace(said, packets=[self.lie(said.packets[0])]).encode()
                event = self.event(order.round)
                (event.sketched if self.stage == 1 else event.exact).remove(0)
        return reply


def another_table(data):
    sketch = make_compressor(f"countsketch:rows={ROWS},columns={COLUMNS}")
    return sketch.compress(np.ones(DIM), Draw(SEED + 1)).data


LIES = {
    "damaged": lambda data: data[:-1],
    "no sketch": lambda data: make_compressor("identity").compress(np.ones(DIM)).data,
    "another hash": another_table,
}


@pytest.mark.parametrize("lie", ["damaged", "no sketch", "another hash"])
@pytest.mark.parametrize("name", NAMES)
def test_a_lying_worker_is_refused_and_the_others_go_on(name, lie, tmp_path, caplog):
    problem = Quadratics(n=3, dim=DIM)
    grid = LyingGrid(problem, tmp_path, 1, LIES[lie])
    strategy = make(name)
    with caplog.at_level(logging.WARNING, "flowerpress"):
        models = run(strategy, problem, 6, grid)
    assert strategy.exchange.refused == 6
    assert "refused client 0: " in caplog.text
    np.testing.assert_allclose(models[1:], expected(name, problem, grid, 6)[0], **CLOSE)


@pytest.mark.parametrize("name", ["sketched-sgd", "sketched-amsgrad"])
def test_a_lie_in_the_second_exchange_is_refused(name, tmp_path):
    problem = Quadratics(n=3, dim=DIM)
    grid = LyingGrid(problem, tmp_path, 2, LIES["no sketch"])
    strategy = make(name)
    models = run(strategy, problem, 6, grid)
    assert strategy.exchange.refused == 6
    np.testing.assert_allclose(models[1:], expected(name, problem, grid, 6)[0], **CLOSE)


class WithBuffers(FunctionTask):
    """A task with one buffer, which counts up in every gradient."""

    def __init__(self, x0, gradient, start):
        super().__init__(x0, gradient)
        self.count = np.array([float(start)])

    def initial_arrays(self):
        arrays = super().initial_arrays()
        arrays["count"] = type(next(iter(arrays.values())))(np.zeros(1))
        return arrays

    def buffer_names(self):
        return ("count",)

    def buffers(self):
        return {"count": self.count}

    def load_buffers(self, values):
        self.count = values["count"].copy()

    def gradient(self, x, batch):
        self.count = self.count + 1
        return super().gradient(x, batch)


@pytest.mark.parametrize("name", NAMES)
def test_buffers_come_with_the_first_exchange(name):
    problem = Quadratics(n=2, dim=DIM)

    def task_fn(i, n):
        return WithBuffers(problem.x0, lambda x, _: (0.0, problem.gradient(i, x, 1)), 7 * i)

    result = simulate(make(name), task_fn, 2, 5)
    assert result.arrays["count"].numpy() == [5.0]
    assert set(cohorts(result)) == {1, 2, 3, 4, 5}
