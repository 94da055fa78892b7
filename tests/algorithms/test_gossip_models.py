"""Nodes' own models: evaluated each, with buffers of their own, on an engine or after a restart."""

import numpy as np
import pytest
from flwr.app import MetricRecord

from flowerpress.clients import FunctionTask, TorchTask
from flowerpress.simulations import Faults, simulate
from flowerpress.strategies import make_strategy
from tests.algorithms.gossiping import Nodes, run
from tests.algorithms.problems import SEED, vector

OPTIONS = {"compressor": "topk:k=2", "lr": 0.02, "gamma": 0.2}


def test_nodes_evaluate_their_own_models():
    problem = Nodes(n=4, noise=0.3)

    def task_fn(i, n):
        def gradient(x, batch):
            return 0.0, problem.A[i] @ (x - problem.b[i])

        return FunctionTask(problem.x0, gradient, evaluate=lambda x: {"first": float(x[0])})

    seen = []

    def keep(contents, key):
        seen.append(sorted(content["metrics"]["first"] for content in contents))
        return MetricRecord({})

    strategy = make_strategy(
        "squarm-sgd", fraction_evaluate=1.0, evaluate_metrics_aggr_fn=keep, **OPTIONS
    )
    _, models = run(strategy, task_fn, 4, 8)
    # Collected in each round: what they evaluate is what was collected a moment before.
    np.testing.assert_array_equal(seen, np.sort(models[:, :, 0], axis=1))
    assert len({round(value, 12) for value in seen[-1]}) == 4


def test_nodes_models_are_evaluated_each_and_as_their_mean():
    problem = Nodes(n=4, noise=0.3)
    strategy = make_strategy("squarm-sgd", collect_every=3, **OPTIONS)
    result = simulate(
        strategy,
        problem.task_fn,
        4,
        8,
        SEED,
        evaluate_fn=lambda r, arrays: MetricRecord({"first": float(vector(arrays)[0])}),
        node_evaluate_fn=lambda r, arrays: MetricRecord({"first": float(vector(arrays)[0])}),
    )
    collected = [record for record in result.history if record.nodes]
    assert [record.round for record in collected] == [3, 6, 8]
    for record in collected:
        mean = np.mean([node["first"] for node in record.nodes.values()])
        assert record.metrics["first"] == pytest.approx(mean, abs=1e-14)
        assert record.train["consensus-error"] > 0
    assert all(record.up_collected > 0 for record in collected)
    assert result.history[1].up_collected == 0


def normalised(i, n):
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
        )
    rng = np.random.default_rng(i)
    data = (rng.standard_normal((40, 3)).astype(np.float32) + i, rng.integers(0, 2, 40))
    return TorchTask(model, torch.nn.CrossEntropyLoss(), data, batch_size=8)


def train_normalised(folder, kill):
    """Return the final model, and the nodes' running means after each round."""
    strategy = make_strategy("squarm-sgd", compressor="topk:0.3", lr=0.05, gamma=0.3)
    strategy.collect_every = 1
    means = []

    def keep(record):
        if record.round:
            models = [arrays for _, arrays in strategy.local_models()]
            means.append([arrays["1.running_mean"].numpy() for arrays in models])

    faults = Faults(kill=kill)
    result = simulate(
        strategy, normalised, 3, 6, SEED, on_round=keep, state_dir=folder, faults=faults
    )
    return result.arrays, np.array(means)


def test_buffers_stay_with_the_nodes_and_their_mean_is_the_result(tmp_path):
    arrays, means = train_normalised(tmp_path / "alive", {})
    assert means.shape == (6, 3, 4)
    np.testing.assert_allclose(arrays["1.running_mean"].numpy(), means[-1].mean(axis=0), rtol=1e-6)
    apart = np.abs(means[-1][0] - means[-1][2]).max()
    assert apart > 0.5, "their data differ, and so do their statistics"
    # The count of batches is of one node's own steps: 5 a round.
    assert int(arrays["1.num_batches_tracked"].numpy()) == 6 * 5
    # A new process for each message, as in a deployment, changes nothing.
    every = {k: [0, 1, 2] for k in range(1, 40)}
    again, same = train_normalised(tmp_path / "killed", every)
    np.testing.assert_array_equal(means, same)
    np.testing.assert_array_equal(vector(arrays), vector(again))
