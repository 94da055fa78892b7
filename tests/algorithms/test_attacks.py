"""One absurd update, in any round of any cohort, leaves a run about where it would have been."""

import numpy as np
import pytest

from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations import InProcessGrid, simulate
from flowerpress.strategies import make_strategy
from tests.algorithms.problems import vector
from tests.protocol.test_hostile_clients import HelloGrid, hello

D, N, ROUNDS = 20, 10, 30
CENTRES = np.random.default_rng(1).standard_normal((N, D))
OPTIONS = {
    "fedavg": {"lr": 0.3},
    "dsgd": {"lr": 0.3, "compressor": "qsgd:15"},
    "ef21": {"lr": 0.2, "compressor": "topk:0.4"},
    "ef21-sgdm": {"lr": 0.1, "compressor": "topk:0.4", "momentum": 0.5},
    "onebit-adam": {"lr": 0.05, "warmup_rounds": 10, "beta2": 0.9},
}


def distance(name, cohort, evil=None, at=1, size=1e14):
    """From the solution; `evil` sends an update of that norm the `at`-th time that it is asked."""

    def task_fn(i, n):
        calls = [0]

        def gradient(x, batch):
            calls[0] += 1
            if (i, calls[0]) == (evil, at):
                return 0.0, np.full(D, size / np.sqrt(D))
            return 0.0, x - CENTRES[i]

        return FunctionTask(np.full(D, 3.0), gradient)

    options = {**OPTIONS[name], "fraction_train": cohort / N, "min_train_nodes": cohort}
    strategy = make_strategy(name, **options)
    x = vector(simulate(strategy, task_fn, N, ROUNDS, threads=1).arrays)
    return float(np.linalg.norm(x - CENTRES.mean(axis=0)))


@pytest.mark.parametrize("cohort", [2, 3])
@pytest.mark.parametrize("name", OPTIONS)
def test_one_update_of_norm_1e14(name, cohort):
    """By the clients of the first cohorts in their first round, and by a late one in its third."""
    honest = distance(name, cohort)
    for evil, at in ((0, 1), (7, 1), (9, 3)):
        # One update less of a client is felt for some rounds, the more the fewer there are: EF21's
        # estimate lacks it until the client is asked again. Twice the distance, as promised, with
        # what is left of the start (10 away) for those that come close to the solution.
        assert distance(name, cohort, evil, at) <= 2 * honest + 0.05, (evil, at)


@pytest.mark.slow
@pytest.mark.parametrize("cohort", [1, 2, 3, 10])
@pytest.mark.parametrize("name", OPTIONS)
def test_whoever_sends_it_and_whenever(name, cohort):
    honest = distance(name, cohort)
    for evil in range(N):
        for at in (1, 2, 3, 5):
            assert distance(name, cohort, evil, at) <= 2 * honest + 0.05, (evil, at)


def test_a_client_that_always_sends_900_times_its_gradient_throws_the_model_a_bounded_way():
    """The others' gradients grow with that, and the reference does not: nothing runs away."""

    def task_fn(i, n):
        factor = 900 if i == 0 else 1
        return FunctionTask(np.full(D, 3.0), lambda x, _: (0.0, factor * (x - CENTRES[i])))

    sizes = []
    simulate(
        make_strategy("dsgd", compressor="identity", lr=0.1),
        task_fn,
        N,
        80,
        evaluate_fn=lambda r, arrays: sizes.append(np.linalg.norm(vector(arrays))),
    )
    # Its update is at most 1000 times the first gradients' norm (about 14), has a tenth of the
    # weight and a step of 0.1; and the model was at most 20 away when it came.
    assert 20 < max(sizes) < 20 + 0.1 * 0.1 * 1000 * 15


class LateGrid(InProcessGrid):
    """Some nodes are not there at first."""

    hidden = frozenset()

    def get_node_ids(self):
        return [node for node in super().get_node_ids() if node not in self.hidden]


@pytest.mark.parametrize("first", [1, 2, 5])
def test_a_late_starters_first_update(first):
    """However few began: of one alone there is its own norm, which the late one does not set."""

    def run(size):
        def task_fn(i, n):
            calls = [0]

            def gradient(x, batch):
                calls[0] += 1
                late = i == first and calls[0] == 1
                return 0.0, np.full(D, size) if late and size else x - CENTRES[i]

            return FunctionTask(np.full(D, 3.0), gradient)

        strategy = make_strategy("ef21", compressor="topk:0.4", lr=0.2, min_available_nodes=1)
        strategy.min_train_nodes = 1
        with LateGrid(lambda: client_app(task_fn), first + 1) as grid:
            last = grid.get_node_ids()[-1]
            arrays = task_fn(0, 1).initial_arrays()
            for server_round in range(1, 61):
                grid.hidden = frozenset({last} if server_round < 10 else ())
                orders = list(strategy.configure_train(server_round, arrays, None, grid))
                strategy.aggregate_train(server_round, grid.send_and_receive(orders))
        return float(np.linalg.norm(strategy.model.x - CENTRES[: first + 1].mean(axis=0)))

    # Both have 50 rounds left; the refused one starts one later.
    assert run(1e13) <= 2 * run(0) + 1e-3


# Weights --------------------------------------------------------------------------------------


def weighted(examples, rounds=40, lies=None, **options):
    """The model that clients 0, 1, ... pull to 0, 1, ..., each with so many examples."""

    def task_fn(i, n):
        return FunctionTask(np.zeros(2), lambda x, _: (0.0, x - float(i)), num_examples=examples[i])

    strategy = make_strategy("fedavg", lr=0.5, min_available_nodes=len(examples), **options)
    with HelloGrid(lambda: client_app(task_fn), len(examples)) as grid:
        grid.lies = lies or {}
        result = strategy.start(grid, task_fn(0, 1).initial_arrays(), num_rounds=rounds)
    return strategy, vector(result.arrays)[0]


def test_one_integer_does_not_take_the_mean(caplog):
    """A client counts for ten times the median of what was stated, and no more."""
    strategy, x = weighted([2**50] + [100] * 9)
    assert strategy.population.mass(strategy.population.clients[0]) == 1000
    np.testing.assert_allclose(x, 45 * 100 / 1900, rtol=1e-9)
    said = "says it has 1125899906842624 examples, the median is 100: it counts for 1000"
    assert said in caplog.text
    _, x = weighted([2**50] + [100] * 9, max_weight=0)
    assert x < 1e-6
    # Honest numbers are what they are.
    strategy, x = weighted([100, 1000, 300, 50])
    assert [strategy.population.mass(c) for c in strategy.population.clients.values()] == [
        100,
        1000,
        300,
        50,
    ]
    np.testing.assert_allclose(x, (1000 + 600 + 150) / 1450, rtol=1e-9)


def test_a_hello_that_states_all_the_examples_there_are():
    lies = {(2, "query"): hello(examples=2**52)}
    _, x = weighted([100] * 5, lies=lies)
    np.testing.assert_allclose(x, 10 * 100 / 1400, rtol=1e-9)
    _, x = weighted([100] * 5, weights="uniform", lies=lies)
    np.testing.assert_allclose(x, 2.0, rtol=1e-9)


class Joining(LateGrid, HelloGrid):
    pass


def test_whoever_came_first_is_weighed_anew_when_there_is_a_median():
    """Alone it counted for all; a sum shared with it is begun anew, once."""

    def task_fn(i, n):
        return FunctionTask(
            np.zeros(2), lambda x, _: (0.0, x - float(i)), num_examples=2**50 if i == 0 else 100
        )

    strategy = make_strategy("ef21", compressor="identity", lr=0.5)
    strategy.min_available_nodes = strategy.min_train_nodes = 1
    masses = []
    with Joining(lambda: client_app(task_fn), 4) as grid:
        nodes = grid.get_node_ids()
        arrays = task_fn(0, 1).initial_arrays()
        for server_round in range(1, 61):
            grid.hidden = frozenset(nodes[1 + server_round // 5 :])
            orders = list(strategy.configure_train(server_round, arrays, None, grid))
            strategy.aggregate_train(server_round, grid.send_and_receive(orders))
            masses.append(strategy.population.mass(strategy.population.clients[0]))
    # With one other, which is no median, ten times the smaller; then of three, and so it stays.
    assert sorted(set(masses), reverse=True) == [2.0**50, 1000.0]
    np.testing.assert_allclose(strategy.model.x, (1 + 2 + 3) * 100 / 1300, rtol=1e-9)


def test_weights_are_the_same_after_a_restart():
    """They are part of what a checkpoint holds, not computed from who is there."""
    strategy, _ = weighted([2**50, 100, 100], rounds=1)
    state = strategy.population.state()
    other = make_strategy("fedavg").run.population
    other.restore(state)
    assert [client.mass for client in other.clients.values()] == [1000.0, 100.0, 100.0]
    assert not other.weigh()
    assert [client.mass for client in other.clients.values()] == [1000.0, 100.0, 100.0]


@pytest.mark.parametrize("value", [0.5, -1, float("nan"), float("inf"), "10", True])
def test_max_weight_is_a_number_from_one_or_zero(value):
    with pytest.raises(ValueError, match=r"max_weight is .*: expected a number >= 1, or 0"):
        make_strategy("ef14", max_weight=value)
