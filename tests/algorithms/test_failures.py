"""Clients that join late, fail, answer late or diverge."""

import logging

import numpy as np
import pytest

from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations import InProcessGrid, simulate
from flowerpress.strategies import RoundError, make_strategy
from tests.algorithms.problems import Quadratics, trajectory, worker_memory


class Grid(InProcessGrid):
    """Nodes that come and go."""

    hidden: frozenset = frozenset()

    def get_node_ids(self):
        return [node for node in super().get_node_ids() if node not in self.hidden]


def test_a_late_joiner_counts_from_its_first_round(tmp_path):
    problem = Quadratics(n=3)
    strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.05)
    config = {"state-store": "disk", "state-dir": str(tmp_path)}
    with Grid(lambda: client_app(problem.task_fn), 3, node_config=config) as grid:
        grid.hidden = frozenset({4})
        arrays = problem.task_fn(0, 3).initial_arrays()
        for server_round in range(1, 121):
            if server_round == 6:
                grid.hidden = frozenset()
            messages = strategy.configure_train(server_round, arrays, None, grid)
            assert len(messages) == (2 if server_round < 6 else 3)
            strategy.aggregate_train(server_round, grid.send_and_receive(messages))
            met = [c for c in strategy.population.clients.values() if c.receiver.applied]
            mean = sum(worker_memory(tmp_path, c.id, c.receiver.applied) for c in met) / len(met)
            np.testing.assert_allclose(strategy.g, mean, rtol=0, atol=1e-12)
    gradient = problem.full_gradient(strategy.model.x)
    assert np.linalg.norm(gradient) < 0.1 * np.linalg.norm(problem.full_gradient(problem.x0))


def test_a_nan_gradient_leaves_the_client_out_and_says_where(caplog):
    problem = Quadratics(n=3)

    def task_fn(i, n):
        task = problem.task_fn(i, n)
        if i == 1:
            return FunctionTask(problem.x0, lambda x, _: (0.0, np.where(x == x[2], np.nan, x)))
        return task

    strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.05)
    with caplog.at_level(logging.WARNING, "flowerpress"):
        result, models = trajectory(strategy, task_fn, 3, 5)
    assert "client 1" in caplog.text
    assert "position 2" in caplog.text
    assert np.isfinite(models).all()
    assert {row.client for row in result.ledger.rows if row.payload and row.direction == "up"} == {
        0,
        2,
    }


def test_a_run_ends_when_every_client_fails():
    def task_fn(i, n):
        return FunctionTask(np.ones(3), lambda x, _: (0.0, x * np.nan))

    with pytest.raises(RoundError, match="round 1: all 2 clients fail; client 0: ValueError: grad"):
        simulate(make_strategy("ef14", compressor="sign", lr=0.1), task_fn, 2, 3)


def test_a_client_with_another_layout_is_refused_with_the_difference():
    def task_fn(i, n):
        return FunctionTask(np.ones(3 + i), lambda x, _: (0.0, x))

    with pytest.raises(
        RoundError, match="1 of 2 clients cannot take part: layouts differ at array"
    ):
        simulate(make_strategy("ef14", compressor="sign", lr=0.1), task_fn, 2, 3)


def test_divergence_ends_the_run_with_the_remedy():
    problem = Quadratics(n=3)
    for options in ({"lr": 1e200}, {"lr": 1e200, "downlink": "topk:k=2"}):
        strategy = make_strategy("ef21", compressor="topk:k=2", **options)
        with pytest.raises(RoundError, match="lower lr"):
            simulate(strategy, problem.task_fn, 3, 50)


def test_one_failing_client_does_not_end_a_sampled_run():
    problem = Quadratics(n=5)

    def task_fn(i, n):
        if i == 2:
            return FunctionTask(problem.x0, lambda x, _: (0.0, x * np.nan))
        return problem.task_fn(i, n)

    strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.05, fraction_train=0.2)
    strategy.min_train_nodes = 1
    result, _ = trajectory(strategy, task_fn, 5, 30)
    assert len(result.history) == 31


def test_a_late_reply_does_not_run_beside_the_next_round():
    import threading
    import time

    inside, most = [0], [0]
    lock = threading.Lock()

    def slow(x, _):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.15)
        with lock:
            inside[0] -= 1
        return 0.0, x

    strategy = make_strategy("dsgd", compressor="identity", lr=0.1)
    simulate(strategy, lambda i, n: FunctionTask(np.ones(2), slow), 1, 4, timeout=0.05, threads=4)
    assert most[0] == 1
