"""Flower's engines, as real processes, give the bytes and the trajectory of the in-process one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from flowerpress.simulations import SimulationResult, simulate
from flowerpress.simulations.loopback import COMPLETED, Loopback
from flowerpress.simulations.tasks import make_task_fn
from flowerpress.strategies import make_strategy

pytestmark = pytest.mark.flower
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with Loopback(tmp_path_factory.mktemp("ray"), simulation=True) as flower:
        yield flower


def in_process(
    strategy: str, clients: int, rounds: int, lr: float = 0.5, **node_configs: Any
) -> SimulationResult:
    task_fn = make_task_fn("digits", seed=0)
    return simulate(
        make_strategy(strategy, compressor="topk:0.1", lr=lr),
        task_fn,
        clients,
        rounds,
        evaluate_fn=task_fn.evaluate_fn,
        **node_configs,
    )


def assert_same_run(folder: Path, expected: SimulationResult) -> None:
    """Equal to the last bit: replies are taken in order of the clients' ids on every engine."""
    model = load_file(folder / "model.safetensors")
    assert sorted(model) == sorted(expected.arrays)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(model[name], array.numpy())
    run = json.loads((folder / "results.json").read_text("utf-8"))["runs"][0]
    assert [r["up_bytes"] for r in run["history"]] == [r.up_bytes for r in expected.history]
    assert [r["down_bytes"] for r in run["history"]] == [r.down_bytes for r in expected.history]
    assert [r["metrics"] for r in run["history"]] == [r.metrics for r in expected.history]


@pytest.mark.parametrize(
    ("strategy", "lr"), [("ef21", 0.5), ("ef21-sgdm", 0.5), ("squarm-sgd", 0.05)]
)
def test_ray_simulation(ray: Loopback, tmp_path: Path, strategy: str, lr: float) -> None:
    config: dict[str, Any] = {"strategy": strategy, "compressor": "topk:0.1", "lr": lr}
    config |= {"min-available-nodes": 4}
    config |= {"num-server-rounds": 4, "out": str(tmp_path), "round-timeout": 120}
    report = ray.run(ROOT, config, federation_config={"num-supernodes": 4}, limit=300)
    assert report.status == COMPLETED, ray.log("run")
    (folder,) = tmp_path.iterdir()
    assert_same_run(folder, in_process(strategy, 4, 4, lr))


def test_wrong_option_fails_the_run_and_says_why(ray: Loopback) -> None:
    config = {"strategy": "ef14", "momentum": 0.5, "num-server-rounds": 1}
    report = ray.run(ROOT, config, limit=300)
    assert report.status == "finished:failed"
    assert "strategy ef14 has no option 'momentum': it has" in ray.log("run")


@pytest.mark.parametrize(("strategy", "lr"), [("ef21-sgdm", 0.5), ("squarm-sgd", 0.05)])
def test_deployment(tmp_path: Path, strategy: str, lr: float) -> None:
    script = [sys.executable, ROOT / "examples" / "deploy_loopback.py", "--folder", tmp_path]
    script += ["--strategy", strategy, "--lr", str(lr)]
    done = subprocess.run(
        [*script, "--numpy-only", "--rounds", "3", "--limit", "400"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert COMPLETED in done.stdout
    (folder,) = (tmp_path / "results").iterdir()
    own = {0: {"compressor": "topk:0.05"}, 1: {"compressor": "qsgd:7"}}
    assert_same_run(folder, in_process(strategy, 3, 3, lr, node_configs=own))
    states = sorted(path.name for path in (tmp_path / "state").rglob("*.safetensors"))
    assert states == [f"client-{i}.safetensors" for i in range(3)]
