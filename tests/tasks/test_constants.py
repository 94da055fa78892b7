"""Smoothness constants: no pair of points breaks them, and `lr=theory` needs no pen."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.cli import main
from flowerpress.server.theory import Smoothness, dsgd_lr, ef21_lr
from flowerpress.simulations.constants import with_constants
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.own_task import TaskSource, find_task
from flowerpress.simulations.tasks import make_task_fn
from flowerpress.simulations.tasks.logistic import LogisticTask
from flowerpress.simulations.tasks.logistic_constants import logistic_smoothness


def check_pairs(tasks, weights, s, dim, scale, rng):
    """Check the definitions on pairs far and near; return the largest share of each bound."""
    most = np.zeros(3)
    for _ in range(60):
        x = scale * rng.standard_normal(dim)
        y = x + 10 ** rng.uniform(-4, 0.5) * rng.standard_normal(dim)
        each = np.array([t.gradient(x, None)[1] - t.gradient(y, None)[1] for t in tasks])
        mean, distance = weights @ each, float((x - y) @ (x - y))
        squares = float(weights @ np.sum(each**2, axis=1)) / distance
        whole = float(mean @ mean) / distance
        variance = float(weights @ np.sum((each - mean) ** 2, axis=1)) / distance
        bounds = np.array([s.L, s.plus, s.pm]) ** 2
        found = np.array([whole, squares, variance])
        assert np.all(found <= bounds * (1 + 1e-9) + 1e-12)
        assert np.sum(each**2, axis=1).max() <= s.L_max**2 * distance * (1 + 1e-9)
        most = np.maximum(most, found / np.maximum(bounds, 1e-300))
    return most


@pytest.mark.parametrize("alike", [True, False])
def test_no_pair_breaks_the_bounds_of_logistic_regression(alike):
    rng = np.random.default_rng(0)
    sizes = (3, 8, 40)
    parts = [rng.standard_normal((m, 4)) * (1 if alike else [5, 0.2, 1, 2]) for m in sizes]
    tasks = [LogisticTask(part, np.where(rng.random(len(part)) < 0.5, -1.0, 1)) for part in parts]
    weights = np.array(sizes) / sum(sizes)
    s = logistic_smoothness(parts, weights, 0.1)
    near = check_pairs(tasks, weights, s, 4, 0.01, rng)
    check_pairs(tasks, weights, s, 4, 3.0, rng)
    assert near[0] > 0.05  # the bounds are not idle
    assert near[1] > 0.05


def test_constants_of_logistic_regression_by_hand():
    one, other = np.array([[2.0, 0.0]]), np.array([[0.0, 4.0]])
    s = logistic_smoothness([one, other], np.array([0.5, 0.5]), 0.1)
    assert (s.L, s.L_max) == pytest.approx((2.2, 4.2))
    # B_1 = diag(1, 0), B_2 = diag(0, 4), B = diag(1/2, 2): |B_i - B| = 2 for both
    assert s.L_pm**2 == pytest.approx(min((1 + 16) / 2, ((1 + 2) ** 2 + (4 + 2) ** 2) / 8))
    assert s.L_plus**2 == pytest.approx(min((1.2**2 + 4.2**2) / 2, 2.2**2 + s.L_pm**2))
    assert logistic_smoothness([one], np.ones(1), 0.0) == Smoothness(1.0, 1.0, 0.0, 0.0, 1.0)


def test_the_variance_of_a_batch_is_bounded():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((6, 3))
    task = LogisticTask(rows, np.where(rng.random(6) < 0.5, -1.0, 1.0))
    bound = logistic_smoothness([rows], np.ones(1), 0.1, 2).L_batch ** 2
    pairs = [np.array([i, j]) for i in range(6) for j in range(i)]
    for _ in range(20):
        x, y = rng.standard_normal((2, 3))
        each = [task.gradient(x, b)[1] - task.gradient(y, b)[1] for b in pairs]
        variance = float(np.sum(np.var(each, axis=0)))
        assert variance <= bound * float((x - y) @ (x - y))


def test_wide_data_get_the_simpler_bounds():
    rng = np.random.default_rng(2)
    parts = [rng.standard_normal((3, 2001)) for _ in range(2)]
    wide = logistic_smoothness(parts, np.array([0.5, 0.5]), 0.1)
    own = [np.linalg.norm(part, 2) ** 2 / 12 for part in parts]
    assert pytest.approx(np.mean(own) + 0.2) == wide.L
    assert wide.L_pm**2 == pytest.approx(np.mean(np.square(own)))


@pytest.mark.parametrize(
    ("name", "clients", "options"),
    [
        ("quadratic", 5, {"noise": 0.5, "dim": 6}),
        ("divergence", 3, {"example": "three-clients"}),
        ("divergence", 2, {}),
        ("breast-cancer", 7, {}),
        ("breast-cancer", 7, {"partition": "contiguous", "lam": 0.0}),
    ],
    ids=str,
)
def test_no_pair_breaks_the_bounds_of_shipped_tasks(name, clients, options):
    if name == "breast-cancer":
        pytest.importorskip("sklearn")
    fn = make_task_fn(name, **options)
    tasks = [fn(i, clients) for i in range(clients)]
    dim = len(fn.initial_arrays()["x"].numpy())
    rng = np.random.default_rng(0)
    weights = np.full(clients, 1 / clients)
    check_pairs(tasks, weights, fn.smoothness_of(clients), dim, 0.5, rng)


def test_weights_count_in_the_constants():
    pytest.importorskip("sklearn")
    pytest.importorskip("flwr_datasets")
    fn = make_task_fn("breast-cancer", partition="dirichlet:0.3")
    sizes = np.array([fn(i, 4).num_examples for i in range(4)])
    own = fn.smoothness(4)
    uniform, weighted = (fn.smoothness_of(4, w) for w in ("uniform", "num-examples"))
    assert pytest.approx(fn.smoothness()[0]) == weighted.L  # the mean over all rows
    assert pytest.approx(weighted.L, rel=1e-4) != uniform.L
    assert uniform.plus**2 <= np.mean(own**2) * (1 + 1e-12)
    assert weighted.plus**2 <= np.average(own**2, weights=sizes) * (1 + 1e-12)


def test_a_step_size_by_theory_needs_no_constants():
    options = {"lr": "theory"}
    task = {"example": "three-clients"}
    run = Experiment(
        task="divergence",
        strategy="ef21",
        compressor="topk:k=1",
        clients=3,
        rounds=1,
        strategy_options=options,
        task_options=task,
    ).prepare()
    assert "smoothness=17.1667 smoothness-plus=24.1575 smoothness-pm=16.9967" in run.constants
    assert run.experiment.strategy_options["smoothness"] == pytest.approx(103 / 6)
    run.simulate()
    s = make_task_fn("divergence", **task).smoothness_of(3)
    assert run.strategy.lr == pytest.approx(ef21_lr(s, 1 / 3))


def test_theorems_of_convex_functions_get_the_largest_constant():
    source = find_task("divergence", 0, {"example": "three-clients"})
    given, line = with_constants("dsgd", {"lr": "theory"}, source, 3)
    assert given["smoothness_plus"] == pytest.approx(34.5)
    assert "smoothness-plus=34.5" in line
    dense = Experiment(
        task="divergence",
        strategy="ef21",
        clients=3,
        rounds=1,
        strategy_options={"lr": "theory"},
        task_options={"example": "three-clients"},
    ).dense()
    run = dense.prepare()
    run.simulate()
    assert run.strategy.lr == pytest.approx(dsgd_lr(Smoothness(103 / 6, 34.5), 0.0, 3, 3))


@pytest.mark.parametrize("options", [{}, {"lr": 0.1}, {"lr": "theory", "smoothness": 3.0}], ids=str)
def test_what_is_given_stays(options):
    source = find_task("quadratic")
    assert with_constants("ef21", options, source, 4) == (options, "")


def test_a_given_constant_stays_beside_the_tasks():
    source = find_task("quadratic", 0, {"noise": 0.3})
    given, line = with_constants("ef21", {"lr": "theory", "smoothness_plus": 9.0}, source, 4)
    assert given["smoothness_plus"] == 9.0
    assert given["smoothness"] > 0
    assert "smoothness-plus" not in line


def test_batches_of_vr_marina_have_their_own_constant():
    pytest.importorskip("sklearn")
    source = find_task("breast-cancer", 0, {"batch_size": 8})
    given, _ = with_constants("vr-marina", {"lr": "theory"}, source, 4)
    assert given["smoothness_batch"] > given["smoothness_plus"]
    assert "smoothness_batch" not in with_constants("marina", {"lr": "theory"}, source, 4)[0]


def test_a_task_without_constants_still_says_what_to_give():
    pytest.importorskip("sklearn")
    experiment = Experiment(task="digits", strategy="ef21", strategy_options={"lr": "theory"})
    with pytest.raises(ValueError, match="L > 0 for lr=theory"):
        experiment.prepare()


OWN = """
import numpy as np
from flowerpress.clients import FunctionTask

def task_fn(i, n):
    return FunctionTask(np.zeros(2), lambda x, batch: (float(x @ x), 2 * (x - i)))

def smoothness_of(n):
    return {returned}
"""


def test_ones_own_task_may_give_its_constants(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(OWN.format(returned="2.0"))
    command = ["run", str(path), "--strategy", "ef21", "--lr", "theory", "--rounds", "1"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert "constants: smoothness=2 smoothness-plus=2 smoothness-pm=2" in capsys.readouterr().out


@pytest.mark.parametrize("returned", [-1.0, "L", [1, 2], float("nan"), Smoothness(0.0)], ids=str)
def test_constants_that_are_none_are_refused(returned):
    source = TaskSource(lambda i, n: None, None, lambda n: returned)
    with pytest.raises(ValueError, match=r"smoothness_of\(4\) gave .*return L, a number above 0"):
        with_constants("ef21", {"lr": "theory"}, source, 4)
