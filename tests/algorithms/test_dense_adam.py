"""Dense Adam, AMSGrad and FedAMS: the uncompressed methods of the family."""

import numpy as np
import pytest
import torch

from flowerpress.simulations.experiment import Experiment
from flowerpress.strategies import make_strategy, strategy_class, strategy_options
from tests.algorithms.problems import Quadratics, cohorts, trajectory
from tests.algorithms.test_adam import (
    CLOSE,
    N,
    constant,
    follow,
    local_steps,
    mean_gradient,
)
from tests.reference import adam as reference
from tests.reference.compressors import identity

ROUNDS = 40


def test_adam_is_torchs_on_the_mean_gradient():
    problem = Quadratics(n=N, noise=0.3)
    strategy = make_strategy("adam", lr=0.05, beta1=0.8, beta2=0.95, eps=1e-3)
    _, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    x = torch.tensor(problem.x0, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.05, betas=(0.8, 0.95), eps=1e-3)
    gradient, expected = mean_gradient(problem), []
    for r in range(1, ROUNDS + 1):
        x.grad = torch.from_numpy(gradient(x.detach().numpy(), r))
        optimizer.step()
        expected.append(x.detach().numpy().copy())
    # The same formula, with its divisions and the mean's sum in another order.
    np.testing.assert_allclose(models[1:], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"decay": "sqrt"}, {"schedule": "1/sqrt"}])
def test_adam_without_correction_follows_its_reference(options):
    problem = Quadratics(n=N, noise=0.3)
    strategy = make_strategy("adam", lr=0.05, bias_correction=False, **options)
    _, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    rate = (lambda r: 0.05 / np.sqrt(r)) if options else constant(0.05)
    steps = reference.adam(problem.x0, mean_gradient(problem), rate, 0.9, 0.999, 1e-8)
    np.testing.assert_allclose(models[1:], follow(steps, ROUNDS), **CLOSE)


def test_amsgrad_follows_its_reference_and_is_comp_ams_uncompressed():
    problem = Quadratics(n=N, noise=0.3)
    options = {"lr": 0.05, "beta2": 0.9}
    _, models = trajectory(make_strategy("amsgrad", **options), problem.task_fn, N, ROUNDS)
    steps = reference.amsgrad(problem.x0, mean_gradient(problem), constant(0.05), 0.9, 0.9, 1e-8)
    np.testing.assert_allclose(models[1:], follow(steps, ROUNDS), **CLOSE)
    pressed = make_strategy("comp-ams", compressor="identity", **options)
    np.testing.assert_array_equal(trajectory(pressed, problem.task_fn, N, ROUNDS)[1], models)


@pytest.mark.parametrize("fraction", [1.0, 0.4])
def test_fedams_follows_its_reference(fraction):
    problem = Quadratics(n=N, noise=0.3)
    options = {"lr": 0.05, "local_lr": 0.02, "local_steps": 3, "beta2": 0.9, "eps": 1e-3}
    strategy = make_strategy("fedams", fraction_train=fraction, **options)
    result, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    expected = reference.fedcams(
        problem.x0,
        local_steps(problem, 0.02, 3),
        N,
        lambda v, i, r: identity(v),
        constant(0.05),
        cohorts(result).get,
        beta1=0.9,
        beta2=0.9,
        eps=1e-3,
    )
    np.testing.assert_allclose(models[1:], follow(expected, ROUNDS), **CLOSE)


def test_local_steps_are_a_pseudo_gradient():
    """Its scale is nothing to Adam: twice local_lr is twice the way, and the same direction."""
    problem = Quadratics(n=N)
    options = {"lr": 0.01, "local_steps": 3, "eps": 0.0, "local_lr": 1e-6}
    _, near = trajectory(make_strategy("adam", **options), problem.task_fn, N, 5)
    _, plain = trajectory(make_strategy("adam", lr=0.01, eps=0.0), problem.task_fn, N, 5)
    # Three steps of 1e-6 see three times the same gradient, but for 1e-6 of it.
    np.testing.assert_allclose(near, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["adam", "amsgrad", "fedams", "fedavg"])
def test_they_are_dense(name):
    assert not {"compressor", "client_compressors", "downlink"} & set(strategy_options(name))
    with pytest.raises(ValueError, match=f"expected none: {name} is dense"):
        make_strategy(name, compressor="sign")
    problem = Quadratics(n=2)
    own = {0: {"compressor": "topk:k=1"}}
    strategy = make_strategy(name)
    result, _ = trajectory(strategy, problem.task_fn, 2, 2, node_configs=own)
    sent = {row.payload for row in result.ledger.rows if row.purpose == "train"}
    assert sent == {8 * problem.dim + 24}  # a frame of d values, up and down


BASELINES = {
    "efficient-adam": ("adam", {"lr": 0.001, "beta1": 0.9, "bias_correction": False}),
    "onebit-adam": ("adam", {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}),
    "birder": ("adam", {"lr": 0.001, "beta1": 0.95}),
    "adam": ("adam", {"bias_correction": True}),
    "cdadam": ("amsgrad", {"lr": 0.001, "beta2": 0.99, "eps": 1e-8}),
    "comp-ams": ("amsgrad", {"lr": 0.001, "beta2": 0.999}),
    "sketched-amsgrad": ("amsgrad", {"lr": 0.001, "beta2": 0.99}),
    "amsgrad": ("amsgrad", {"beta2": 0.999}),
    "fedcams": ("fedams", {"lr": 0.1, "local_lr": 0.01, "beta2": 0.99, "eps": 1e-3}),
    "fedams": ("fedams", {"lr": 0.1}),
}


@pytest.mark.parametrize("name", BASELINES)
def test_the_dense_run_of_a_method_is_its_own_family_at_its_own_settings(name):
    baseline, options = BASELINES[name]
    assert strategy_class(name).baseline == baseline
    dense = Experiment(task="digits", strategy=name, strategy_options={"decay": "none"}).dense()
    if name == "sketched-amsgrad":  # which has no decay of that kind
        dense = Experiment(task="digits", strategy=name).dense()
    assert dense.strategy == baseline
    assert dense.strategy_options.items() >= options.items()
    dense.prepare()
    lower = Experiment(
        task="digits", strategy=name, strategy_options={"lr": 0.03, "local_steps": 2}
    )
    assert lower.dense().strategy_options.items() >= {"lr": 0.03, "local_steps": 2}.items()
    assert lower.dense(0.5).strategy_options["lr"] == 0.5


@pytest.mark.parametrize("name", ["marina", "ef21", "dsgd"])
def test_the_dense_run_of_a_method_by_theory_is_gradient_descent_by_theory(name):
    options = {"lr": "theory", "smoothness": 4.0, "schedule": "1/sqrt"}
    dense = Experiment(task="digits", strategy=name, strategy_options=options).dense()
    assert (dense.strategy, dense.strategy_options) == ("fedavg", options)
    dense.prepare()
