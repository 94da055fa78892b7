from __future__ import annotations

import pickle

import numpy as np
import pytest

from flowerpress.simulations import simulate
from flowerpress.simulations.tasks import make_task_fn
from flowerpress.simulations.tridiagonal import Tridiagonal
from flowerpress.strategies import make_strategy

from .checks import check_contract, check_gradient, start


def test_it_is_the_papers_problem():
    fn = make_task_fn("quadratic", dim=5, noise=0.3, seed=2)
    problem = Tridiagonal(4, dim=5, noise=0.3, seed=2)
    x = np.random.default_rng(0).standard_normal(5)
    for client in range(4):
        expected = problem.task_fn(client, 4).gradient(x, None)
        loss, gradient = fn(client, 4).gradient(x, None)
        assert loss == expected[0]
        assert np.array_equal(gradient, expected[1])
    losses, gradients = zip(*(fn(i, 4).gradient(x, None) for i in range(4)), strict=True)
    measured = fn.held_out().evaluate(x)
    assert measured["loss"] == pytest.approx(np.mean(losses))
    assert measured["gradient_norm_sq"] == pytest.approx(np.sum(np.mean(gradients, axis=0) ** 2))
    assert fn.smoothness_of(4) == problem.smoothness


@pytest.mark.parametrize("options", [{}, {"noise": 0.5, "gradient_noise": 2.0, "x0": "far"}])
def test_contract(options):
    task = make_task_fn("quadratic", dim=7, **options)(1, 3)
    check_contract(task)
    x = start(task) + 0.3
    check_gradient(task, x, task.draw(np.random.default_rng(0)), step=1e-4, rtol=1e-7)


def test_the_noise_has_the_variance_that_was_asked_for():
    task = make_task_fn("quadratic", dim=50, gradient_noise=3.0)(0, 2)
    x = np.ones(50)
    exact = task.gradient(x, None)[1]
    rng = np.random.default_rng(5)
    away = np.array([task.gradient(x, task.draw(rng))[1] - exact for _ in range(400)])
    assert np.mean(np.sum(away**2, axis=1)) == pytest.approx(9.0, rel=0.05)
    assert np.linalg.norm(away.mean(axis=0)) < 4 * 3 / np.sqrt(400)


def test_the_mean_is_over_the_clients_there_are():
    fn = make_task_fn("quadratic", noise=0.5)
    with pytest.raises(ValueError, match=r"say how many there are with expect\(num_partitions\)"):
        fn.evaluate_fn(0, fn.initial_arrays())
    values = []
    for clients in (2, 5, 2):
        fn.expect(clients)
        values.append(fn.evaluate_fn(0, fn.initial_arrays())["gradient_norm_sq"])
    assert values[0] == values[2] != values[1]


def test_it_goes_to_another_process_and_back():
    fn = make_task_fn("quadratic", x0="far", dim=9)
    copy = pickle.loads(pickle.dumps(fn))
    assert start(copy(0, 3)).tolist() == [3.0] + [0.0] * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partition": "contiguous"}, "has no partition"),
        ({"dim": 0}, "'dim': expected a whole number, at least 1"),
        ({"noise": -1}, "'noise': expected a number, at least 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_task_fn("quadratic", **options)


@pytest.mark.parametrize("clients", [(0, 0), (3, 3), (-1, 2)])
def test_clients_out_of_range_are_refused(clients):
    with pytest.raises(ValueError, match="is not among"):
        make_task_fn("quadratic")(*clients)


def test_gradient_descent_finds_the_solution_for_any_number_of_clients():
    for clients in (1, 3):
        fn = make_task_fn("quadratic", dim=4, noise=0.2, convexity=0.1)
        strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.5)
        result = simulate(strategy, fn, clients, 150, evaluate_fn=fn.evaluate_fn)
        assert result.history[0].metrics["gradient_norm_sq"] > 0.01
        assert result.history[-1].metrics["gradient_norm_sq"] < 1e-8
