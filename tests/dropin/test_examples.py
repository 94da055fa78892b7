"""The example apps, as they are and as their five-line diffs make them, keep all they have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
APPS = Path(__file__).resolve().parents[2] / "examples" / "apps"
NAMES = ("torch", "linear", "heads")

# Runs the app of the folder that it is started in, in one process.
RUN = """
import importlib, json, sys, tomllib
from pathlib import Path
from flwr.app import Context, RecordDict
from flwr.common.config import flatten_dict
from flowerpress.simulations.engine import InProcessGrid

sys.path.insert(0, ".")
app = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["flwr"]["app"]
config = {**flatten_dict(app["config"]), **json.loads(sys.argv[1])}
server, client = (
    getattr(importlib.import_module(name.split(":")[0]), name.split(":")[1])
    for name in (app["components"]["serverapp"], app["components"]["clientapp"])
)
nodes = int(config["min-nodes"])
with InProcessGrid(lambda: client, nodes, run_config=config, threads=1) as grid:
    server(grid, Context(grid.run_id, 1, {}, RecordDict(), config))
"""


def copy_of(name: str, folder: Path, *, pressed: bool) -> Path:
    """Return a copy of an app, with its diff applied or not."""
    shutil.copytree(APPS / name, folder)
    if pressed:
        subprocess.run(["git", "apply", "pressed.diff"], cwd=folder, check=True)
    return folder


def run(folder: Path, **config: object) -> dict:
    """Run an app in process; returns what it wrote."""
    config = {"out": str(folder / "out.json"), **config}
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RUN, json.dumps(config)]
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads((folder / "out.json").read_text("utf-8")), "log": done.stderr}


@pytest.mark.parametrize("name", NAMES)
def test_a_diff_has_five_lines(name):
    lines = (APPS / name / "pressed.diff").read_text("utf-8").splitlines()
    changed = [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert 0 < len(changed) <= 5


@pytest.mark.parametrize("name", NAMES)
def test_a_pressed_app_does_what_it_did(name, tmp_path):
    if name == "torch":
        pytest.importorskip("torch")
    number = 8 if name == "torch" else 12
    short = {"num-server-rounds": number, "min-nodes": 4}
    dense = run(copy_of(name, tmp_path / "dense", pressed=False), **short)
    pressed = run(copy_of(name, tmp_path / "pressed", pressed=True), **short)
    assert len(dense["train"]) == len(pressed["train"]) == number
    trained = dense["train"], pressed["train"]
    records = [list(each.values() if isinstance(each, dict) else each) for each in trained]
    for one, other in zip(*records, strict=True):
        assert set(one) == set(other), "the metrics' names"
    assert pressed["accuracy"][-1] > dense["accuracy"][-1] - 0.15
    assert "uplink" in pressed["log"]
    assert "uplink" not in dense["log"]
    if name == "torch":
        # Momentum of all ten parameters goes on from round to round, and the mod has its metric.
        assert {record["momenta"] for record in records[1]} == {10.0}
        assert all(record["seconds"] > 0 for record in records[1])


def test_personal_heads_stay(tmp_path):
    """Classes are in another order on each client: one head for all would know a quarter."""
    found = run(copy_of("heads", tmp_path / "heads", pressed=True), **{"num-server-rounds": 15})
    assert found["accuracy"][-1] > 0.85


def test_the_run_config_swaps_the_algorithm(tmp_path):
    pytest.importorskip("torch")
    folder = copy_of("torch", tmp_path / "app", pressed=True)
    short = {"num-server-rounds": 1, "min-nodes": 2}
    found = run(folder, **{"flowerpress.compressor": "sign", "flowerpress.memory": "ef21", **short})
    assert "sign, memory ef21: uplink" in found["log"]
    assert "uplink" not in run(folder, **{"flowerpress.compressor": "", **short})["log"]
