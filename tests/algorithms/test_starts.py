"""How workers start: all at first, from some batches; and what never starts."""

import numpy as np
import pytest

from flowerpress.clients import FunctionTask, client_app
from flowerpress.compressors import compressor_names
from flowerpress.simulations import simulate
from flowerpress.strategies import RoundError, make_strategy, strategy_names, strategy_options
from tests.algorithms.gossiping import Weather
from tests.algorithms.problems import SEED, Quadratics, cohorts, trajectory

N = 6
CLOSE = {"rtol": 0, "atol": 1e-9}
ALL_FIRST = ["ef21", "ef21-sgdm", "ef21-sgd2m", "cdadam", "dasha", "diana"]
OPTIONS = {
    "diana": {"compressor": "randk:k=4", "init_all": True},
    "dasha": {"compressor": "randk:k=4"},
    "cdadam": {"compressor": "topk:k=2"},
}


@pytest.mark.parametrize("name", ALL_FIRST)
def test_all_are_asked_to_start_and_then_a_sample(name):
    problem = Quadratics(n=N)
    options = {"compressor": "topk:k=2", **OPTIONS.get(name, {}), "fraction_train": 0.4}
    strategy = make_strategy(name, lr=0.02, **options)
    task_fn = problem.task_fn if name != "dasha" else full(problem)
    result, _ = trajectory(strategy, task_fn, N, 8)
    asked = cohorts(result)
    assert asked[1] == list(range(N))
    assert {len(asked[r]) for r in range(2, 9)} == {2}
    options["init_all"] = False
    result, _ = trajectory(make_strategy(name, lr=0.02, **options), task_fn, N, 8)
    assert {len(cohort) for cohort in cohorts(result).values()} == {2}


def full(problem):
    return lambda i, n: FunctionTask(
        problem.x0, lambda x, _: (0.0, problem.A[i] @ (x - problem.b[i]))
    )


def test_what_it_costs_to_start_when_drawn():
    """Workers that were not heard yet count as if their gradient was zero."""
    problem = Quadratics(n=10, dim=8, seed=3)
    found = {}
    for init_all in (True, False):
        options = {"compressor": "topk:k=4", "lr": 0.05, "fraction_train": 0.2}
        strategy = make_strategy("ef21", init_all=init_all, **options)
        _, models = trajectory(strategy, problem.task_fn, 10, 12)
        g = problem.full_gradient(problem.x0)
        first = (models[0] - models[1]) / 0.05
        found[init_all] = np.linalg.norm(first - g) / np.linalg.norm(g)
    assert found[True] < 1e-12, "the first step is gradient descent's"
    assert found[False] > 0.5, "two of ten workers, divided by ten"


def test_who_joins_late_starts_at_once_and_whose_start_was_lost_is_asked_again():
    problem = Quadratics(n=5)
    strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.02, fraction_train=0.3)
    strategy.min_train_nodes = strategy.min_available_nodes = 1
    with Weather(lambda: client_app(problem.task_fn), 5) as grid:
        arrays, asked = problem.task_fn(0, 5).initial_arrays(), []
        for server_round in range(1, 9):
            grid.hidden = frozenset({4} if server_round < 5 else ())
            grid.lose_up = frozenset({2} if server_round < 3 else {4} if server_round > 4 else ())
            orders = list(strategy.configure_train(server_round, arrays, None, grid))
            asked.append({grid.partition(order.metadata.dst_node_id) for order in orders})
            strategy.aggregate_train(server_round, grid.send_and_receive(orders))
    assert asked[0] == {0, 1, 2, 3}
    assert [2 in each for each in asked[:3]] == [True] * 3, "until it is heard"
    assert [4 in each for each in asked[4:7]] == [True] * 3, "three times out of turn, no more"
    assert all(len(each) <= 2 for each in asked[3:])
    assert len(asked[7]) == 1


def test_all_start_again_after_one_has_lost_its_memory(tmp_path):
    problem = Quadratics(n=N)
    strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.02, fraction_train=0.4)

    def lose(record):
        if record.round == 3:
            for path in tmp_path.glob("run-*/client-*.safetensors"):
                path.unlink()

    result, _ = trajectory(strategy, problem.task_fn, N, 8, state_dir=tmp_path, on_round=lose)
    sizes = [len(cohort) for cohort in cohorts(result).values()]
    assert strategy.exchange.resyncs > 0
    assert sizes == [N, 2, 2, 2, N, 2, 2, 2]


# The first gradient ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ef21", "ef21-sgdm", "ef21-sgd2m"])
def test_the_first_gradient_is_of_so_many_batches(name):
    problem = Quadratics(n=3, noise=1.0)
    for batches in (1, 4):
        strategy = make_strategy(name, compressor="topk:k=2", lr=0.1, init_batches=batches)
        _, models = trajectory(strategy, problem.task_fn, 3, 2)
        first = []
        for i in range(3):
            rng = np.random.default_rng([SEED, i, 1])
            noise = [rng.standard_normal(problem.dim) for _ in range(batches)]
            first.append(problem.A[i] @ (problem.x0 - problem.b[i]) + np.mean(noise, axis=0))
        g = np.mean(first, axis=0)
        np.testing.assert_allclose(models[1], problem.x0 - 0.1 * g, **CLOSE)


def test_the_first_gradient_may_be_of_all_the_data_or_of_local_steps():
    problem = Quadratics(n=3)

    def task_fn(i, n):
        def gradient(x, batch):
            return 0.0, problem.A[i] @ (x - problem.b[i]) + (0.0 if batch is None else batch)

        return FunctionTask(problem.x0, gradient, draw=lambda rng: rng.standard_normal(8))

    strategy = make_strategy("ef21-sgdm", compressor="topk:k=2", lr=0.1, init_batches=0)
    _, models = trajectory(strategy, task_fn, 3, 1)
    expected = problem.x0 - 0.1 * problem.full_gradient(problem.x0)
    np.testing.assert_allclose(models[1], expected, **CLOSE)
    options = {"compressor": "topk:k=2", "lr": 0.1, "local_steps": 2}
    strategy = make_strategy("ef21", init_batches=3, **options)
    _, models = trajectory(strategy, task_fn, 3, 1)
    local = []
    for i in range(3):
        rng = np.random.default_rng([SEED, i, 1])
        for _ in range(3):
            y = problem.x0
            for _ in range(2):
                y = y - 0.1 * (problem.A[i] @ (y - problem.b[i]) + rng.standard_normal(8))
            local.append(y)
    np.testing.assert_allclose(models[1], np.mean(local, axis=0), **CLOSE)
    with pytest.raises(ValueError, match="init_batches is 0: expected 1 or more where there are"):
        make_strategy("ef21", init_batches=0, **options)
    for value in (-1, 1.5, True):
        with pytest.raises(ValueError, match=r"init_batches is .*: expected a whole number >= 0"):
            make_strategy("ef21", init_batches=value)


def test_a_first_gradient_that_was_refused_is_taken_anew():
    """From as many batches: its momentum began with it."""
    calls = []

    def task_fn(i, n):
        def gradient(x, batch):
            if i == 0:
                calls.append(1)
            return 0.0, np.full(4, 1e12) if i == 0 and len(calls) == 1 else x - i

        return FunctionTask(np.ones(4), gradient)

    strategy = make_strategy("ef21-sgdm", compressor="topk:k=1", lr=0.1, init_batches=5)
    simulate(strategy, task_fn, 4, 3)
    assert strategy.exchange.oversized == 1
    assert len(calls) == 5 + 5 + 1


# What is no start -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", strategy_names())
@pytest.mark.parametrize("value", [0, 0.0, -0.5, 1.5, float("nan"), float("inf"), "0.5", None])
def test_a_fraction_is_refused_when_made(name, value):
    with pytest.raises(ValueError, match=r"fraction_train is .*: expected"):
        make_strategy(name, fraction_train=value)
    if value != 0:
        with pytest.raises(ValueError, match=r"fraction_evaluate is .*: expected a number in \[0"):
            make_strategy(name, fraction_evaluate=value)


SPECS = sorted(
    {spec for spec in compressor_names() if spec not in ("topk", "randk", "signtopk", "threshold")}
    | {"topk:0.1", "randk:0.1", "signtopk:0.1", "threshold:1.0", "sign:scale=l2", "cq:range=50"}
    | {"sign:block=tensor", "topk:0.01+qsgd", "topk:0.1+qsgd:1", "topk:0.1+sign", "permk+qsgd"}
    | {"topk:0.01+qsgd:7,bucket=16", "randk:0.1+qsgd", "hadamard+sign", "qsgd:7+rans"}
)
DIM = 2000


def linear(i, n):
    centre = np.random.default_rng(i).standard_normal(DIM)
    arrays = {"a": np.zeros((40, 25)), "b": np.zeros(DIM - 1000)}
    return FunctionTask(arrays, lambda x, _: (0.0, x - centre))


@pytest.mark.parametrize("key", ["compressor", "downlink"])
@pytest.mark.parametrize("name", strategy_names())
def test_a_compressor_is_refused_when_made_or_runs(name, key):
    """Never only at the clients."""
    if key not in strategy_options(name):
        return
    made = []
    for spec in SPECS:
        try:
            strategy = make_strategy(name, **{key: spec})
        except ValueError:
            continue
        simulate(strategy, linear, 2, 2, threads=1)
        failing = [c.failing for c in strategy.population.clients.values() if c.failing]
        assert not failing, (spec, failing)
        assert strategy.exchange.refused == 0, spec
        made.append(spec)
    assert made, "some can be used"


FEEDBACK = ["ef14", "ef21", "ef21-sgdm", "cdadam", "efficient-adam", "comp-ams", "onebit-adam"]


@pytest.mark.parametrize("spec", ["topk:0.01+qsgd", "topk:0.1+qsgd:7", "topk:0.01+terngrad"])
@pytest.mark.parametrize("name", [*FEEDBACK, "squarm-sgd", "choco-sgd"])
def test_a_chain_that_is_no_contraction_on_models_of_ordinary_size(name, spec):
    with pytest.raises(ValueError, match=r"error feedback needs a contractive.*bucket=16"):
        make_strategy(name, compressor=spec)
    make_strategy(name, compressor="topk:0.01+qsgd:7,bucket=16")


@pytest.mark.parametrize("name", ["ef21", "onebit-adam", "marina", "choco-sgd"])
@pytest.mark.parametrize("spec", ["topk:3", "qsgd:0", "sign:l3", "topk:0.1,k=3"])
def test_a_spec_that_is_wrong_is_said_once_and_of_no_size(name, spec):
    """What error feedback tries with models of some sizes has nothing to do with it."""
    with pytest.raises(ValueError, match=f"^compressor '{spec}': ") as caught:
        make_strategy(name, compressor=spec)
    assert str(caught.value).count("compressor") == 1
    with pytest.raises(ValueError, match=r"^compressor 'sign:scale=l2': error feedback needs"):
        make_strategy("ef21", compressor="sign:scale=l2")
    with pytest.raises(ValueError, match=r"^compressor 'topk:0.01.qsgd' for a model of, say, 1048"):
        make_strategy("ef21", compressor="topk:0.01+qsgd")


@pytest.mark.parametrize("key", ["compressor", "downlink"])
def test_a_chain_that_is_none_on_this_model_ends_the_run_before_it_begins(key):
    """Some lengths are tried when a strategy is made; this one is in between."""
    spec = "topk:0.0005+uniform:2"
    strategy = make_strategy("ef14", compressor="topk:0.1")
    setattr(strategy, key, spec)
    size = 200_000

    def task_fn(i, n):
        return FunctionTask(np.zeros(size, np.float32), lambda x, _: (0.0, x - 1))

    with pytest.raises(RoundError, match=f"for a model of {size} numbers|neither"):
        simulate(strategy, task_fn, 2, 2)
    assert {row.purpose for row in strategy.ledger.rows} == {"hello"}


def test_a_run_whose_clients_all_fail_ends_with_an_error_though_some_were_never_asked():
    def broken(i, n):
        def gradient(x, batch):
            raise ValueError(f"no data in {i}")

        return FunctionTask(np.zeros(2), gradient)

    options = {"compressor": "identity", "fraction_train": 0.2, "min_train_nodes": 2}
    for rounds in (1, 2, 30):
        strategy = make_strategy("dsgd", **options)
        with pytest.raises(RoundError, match=r"all \d clients that were asked, of 10, fail; .*no"):
            simulate(strategy, broken, 10, rounds)
    strategy = make_strategy("dsgd", compressor="identity")
    with pytest.raises(RoundError, match=r"round 1: all 10 clients fail; client 0: .*no data in 0"):
        simulate(strategy, broken, 10, 3)


def test_random_signs_are_for_birder():
    for name, why in (("dsgd", "for birder alone"), ("marina", "for birder alone"), ("ef14", "")):
        for spec in ("randsign", "topk:0.1+randsign"):
            with pytest.raises(ValueError, match=why or "neither"):
                make_strategy(name, compressor=spec)
    make_strategy("birder", compressor="randsign")


@pytest.mark.parametrize("spec", ["permk+cq", "permk+cq:4", "permk+cq:range=2"])
def test_permk_and_cq_are_not_one_collection(spec):
    """A coordinate of PermK has one sender: nobody is there whose error CQ could make up for."""
    for name in ("marina", "dsgd", "diana"):
        with pytest.raises(
            ValueError, match=r"nothing to correlate; write permk, cq, or permk\+cq"
        ):
            make_strategy(name, compressor=spec)
    make_strategy("marina", compressor="permk+cq:rounding=independent")
