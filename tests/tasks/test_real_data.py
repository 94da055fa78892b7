"""The tasks `breast-cancer` and `resnet`: what their data and models are."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from flowerpress.protocol import Layout
from flowerpress.simulations import simulate
from flowerpress.simulations.tasks import make_task_fn
from flowerpress.strategies import make_strategy

from .checks import check_contract, check_gradient, start

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_breast_cancer_is_the_set():
    pytest.importorskip("sklearn")
    fn = make_task_fn("breast-cancer", seed=3)
    whole = fn.held_out()
    check_contract(fn(2, 5))
    assert whole.num_examples == sum(fn(i, 6).num_examples for i in range(6)) == 569
    # 212 malignant, 357 benign; features of mean 0 and deviation 1, so that
    # the gradient at zero is minus half the mean of b_j a_j
    assert sorted(np.unique(whole._labels, return_counts=True)[1].tolist()) == [212, 357]
    np.testing.assert_allclose(whole._features.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(whole._features.std(axis=0), 1, atol=1e-12)
    expected = -(whole._labels @ whole._features) / (2 * 569)
    np.testing.assert_allclose(whole.gradient(np.zeros(30), None)[1], expected, atol=1e-12)
    check_gradient(whole, np.full(30, 0.1), None, step=1e-5, rtol=1e-6)


def test_breast_cancers_shards_may_be_equal():
    pytest.importorskip("sklearn")
    fn = make_task_fn("breast-cancer", equal_shards=20, x0="normal")
    assert [fn(i, 20).num_examples for i in range(20)] == [28] * 20
    assert np.linalg.norm(start(fn(0, 20))) > 1


def test_a_missing_scikit_learn_is_named():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from flowerpress.simulations.tasks import make_task_fn\n"
        "try: make_task_fn('breast-cancer')\n"
        "except ImportError as error: sys.exit('scikit-learn' not in str(error))\n"
        "sys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def resnet():
    pytest.importorskip("torch")
    pytest.importorskip("mlxtend")
    return make_task_fn("resnet", hidden=2, batch_size=8)


def test_resnets_running_statistics_are_buffers(resnet):
    task = resnet(0, 50)
    x = start(task)
    before = task.buffers()
    task.gradient(x, task.draw(np.random.default_rng(0)))
    after = task.buffers()
    assert len(before) == 3 * 10  # mean, variance and count of ten layers
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == set(before)
    task.load_buffers(before)
    check_contract(task)


def test_resnets_default_size():
    pytest.importorskip("torch")
    pytest.importorskip("mlxtend")
    task = make_task_fn("resnet", seed=1)(0, 100)
    arrays = task.initial_arrays()
    assert Layout.of(arrays, task.buffer_names()).dim == 42_938


def test_resnet_learns_in_a_run_and_its_buffers_travel(resnet):
    strategy = make_strategy("ef21-sgdm", compressor="topk:0.1", lr=0.1, momentum=0.5)
    result = simulate(strategy, resnet, 3, 12)
    losses = [row.train["loss"] for row in result.history[1:]]
    assert np.mean(losses[-3:]) < 0.97 * np.mean(losses[:3])
    name = "first.1.running_mean"
    assert not np.array_equal(result.arrays[name].numpy(), resnet.initial_arrays()[name].numpy())
