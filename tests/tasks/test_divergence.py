"""The papers' examples do what the papers say."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.simulations import simulate
from flowerpress.simulations.tasks import make_task_fn
from flowerpress.strategies import make_strategy

from .checks import check_contract, check_gradient, start


def run(fn, name, clients, rounds, **options):
    strategy = make_strategy(name, compressor="topk:k=1", **options)
    return simulate(strategy, fn, clients, rounds, evaluate_fn=fn.evaluate_fn)


@pytest.mark.parametrize("example", ["noise", "three-clients"])
def test_contract(example):
    task = make_task_fn("divergence", example=example)(1, 3)
    check_contract(task)
    x = start(task) + 0.3
    check_gradient(task, x, task.draw(np.random.default_rng(0)), step=1e-4, rtol=1e-7)


def test_the_noise_is_the_theorems():
    task = make_task_fn("divergence", gradient_noise=2.0)(0, 1)
    rows = np.array([task.gradient(np.zeros(2), row)[1] for row in range(3)])
    np.testing.assert_allclose(rows.sum(axis=0), 0, atol=1e-15)
    assert np.mean(np.sum(rows**2, axis=1)) == pytest.approx(4.0)
    largest = np.where(np.abs(rows) == np.abs(rows).max(axis=1, keepdims=True), rows, 0)
    mean = largest.mean(axis=0)
    assert mean @ mean == pytest.approx(4.0 / 30)  # E Top1(xi) is sigma / sqrt(30) long
    drawn = {task.draw(np.random.default_rng(seed)) for seed in range(20)}
    assert drawn == {0, 1, 2}
    assert make_task_fn("divergence", gradient_noise=0)(0, 1).draw(np.random.default_rng(0)) is None


def test_top_1_without_memory_leaves_at_the_papers_rate():
    lr, rounds = 0.01, 25
    result = run(make_task_fn("divergence", example="three-clients"), "dsgd", 3, rounds, lr=lr)
    expected = (1 + 11 * lr / 6) ** rounds
    np.testing.assert_allclose(result.arrays["x"].numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["ef14", "ef21"])
def test_memory_brings_the_three_clients_home(name):
    fn = make_task_fn("divergence", example="three-clients")
    result = run(fn, name, 3, 150, lr=0.04)
    assert (
        result.history[-1].metrics["gradient_norm_sq"]
        < 1e-2 * result.history[0].metrics["gradient_norm_sq"]
    )


def test_the_theorems_floor():
    """EF21-SGD that knows the exact gradient stays above sigma^2 / 60; SGD goes far below."""
    fn, clients, lr = make_task_fn("divergence"), 10, 0.01
    tasks = [fn(i, clients) for i in range(clients)]
    rng = np.random.default_rng(0)
    floors = {}
    for ideal in (True, False):
        x, rows = start(tasks[0]), []
        for _ in range(1500):
            exact = tasks[0].gradient(x, None)[1]
            sent = [task.gradient(x, task.draw(rng))[1] for task in tasks]
            if ideal:
                away = np.array(sent) - exact
                largest = np.argmax(np.abs(away), axis=1)
                kept = np.zeros_like(away)
                kept[np.arange(clients), largest] = away[np.arange(clients), largest]
                sent = list(exact + kept)
            x = x - lr * np.mean(sent, axis=0)
            rows.append(exact @ exact)
        floors[ideal] = np.mean(rows[750:])
    assert floors[True] > 1 / 60
    assert floors[False] < 1 / 600


@pytest.mark.parametrize("clients", [1, 2, 10])
def test_the_three_clients_are_three(clients):
    fn = make_task_fn("divergence", example="three-clients")
    with pytest.raises(ValueError, match=f"not of {clients}: give --clients 3"):
        fn.shards(clients)
    assert [len(part) for part in fn.shards(6)] == [1] * 6


def test_constants_by_hand():
    s = make_task_fn("divergence", example="three-clients").smoothness_of(3)
    assert (s.L, s.L_max) == pytest.approx((103 / 6, 34.5))
    assert s.L_plus**2 == pytest.approx(70 / 3 * 25 + 1 / 4)
    assert s.L_pm**2 == pytest.approx(s.L_plus**2 - s.L**2)
    alike = make_task_fn("divergence").smoothness_of(4)
    assert (alike.L, alike.L_plus, alike.L_pm) == (1.0, 1.0, 0.0)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="expected one of noise, three-clients, not 'two'"):
        make_task_fn("divergence", example="two")
    with pytest.raises(ValueError, match="has no partition"):
        make_task_fn("divergence", partition="dirichlet:1")
