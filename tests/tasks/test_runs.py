"""Tasks in whole runs."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from flowerpress.simulations import simulate
from flowerpress.simulations.tasks import make_task_fn
from flowerpress.strategies import make_strategy

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("one_torch_thread")


def run(task_fn, rounds=10):
    strategy = make_strategy("ef21", compressor="topk:0.5", lr=0.5)
    return simulate(strategy, task_fn, num_clients=4, num_rounds=rounds)


def vector(result):
    return np.concatenate([array.numpy().ravel() for array in result.arrays.values()])


def test_numpy_and_torch_clients_meet_in_one_run():
    pytest.importorskip("sklearn")
    pytest.importorskip("torch")
    by_numpy, by_torch = (make_task_fn("digits", backend=b) for b in ("numpy", "torch"))
    alone = vector(run(by_numpy))
    mixed = vector(run(lambda client, count: (by_numpy, by_torch)[client % 2](client, count)))
    assert np.abs(alone).max() > 0.01
    # Near-ties of top-k may fall differently by rounding; the run as a whole may not.
    assert np.linalg.norm(alone - mixed) < 1e-2 * np.linalg.norm(alone)


def test_libsvm_reaches_a_stationary_point(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "data"
    path.write_text(
        "".join(
            f"{label} 1:{a!r} 2:{b!r}\n"
            for label, (a, b) in zip(
                [1, -1] * 20, rng.standard_normal((40, 2)).tolist(), strict=True
            )
        )
    )
    fn = make_task_fn("libsvm", path=path, partition="contiguous", equal_shards=4, x0="normal")
    strategy = make_strategy("ef21", compressor="topk:k=1", lr=0.5 / fn.smoothness(4).max())
    start = fn.evaluate_fn(0, fn.initial_arrays())
    result = simulate(strategy, fn, num_clients=4, num_rounds=300)
    end = fn.evaluate_fn(300, result.arrays)
    assert start["gradient_norm_sq"] > 1e-3
    assert end["gradient_norm_sq"] < 1e-20
    assert result.arrays["x"].numpy().dtype == np.float64


@pytest.mark.parametrize("example", ["least_squares.py", "numpy_and_torch.py"])
def test_examples_run(example, capsys):
    if "torch" in example:
        pytest.importorskip("sklearn")
        pytest.importorskip("torch")
        pytest.importorskip("flwr_datasets")
    runpy.run_path(str(ROOT / "examples" / example), run_name="__main__")
    assert "bytes sent to the server" in capsys.readouterr().out
