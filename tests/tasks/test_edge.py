"""A client on an edge device: numpy only, and little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.edge_memory import HEAVY, LIMIT, instructed, measure, write_data

ROOT = Path(__file__).parents[2]
MOST_MB = 310.0  # of the files of an environment, pip among them
KINDS = ["topk:0.1", "sign", "qsgd:7", "natural", "eden:2"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_client_of_a_million_parameters_stays_below_200_mb():
    figures = measure("numpy", hidden=1260, rounds=5)
    assert figures["parameters"] >= 1_000_000
    assert figures["peak"] < LIMIT
    assert figures["heavy"] == []


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_client_works_where_neither_torch_nor_numba_is_installed(tmp_path):
    """In an environment that has what a wheel of this tree requires, and nothing else."""
    python = tmp_path / "venv/bin/python"

    def run(*command):
        done = subprocess.run(
            [str(part) for part in command],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", tmp_path / "venv")
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "-c", ROOT / "constraints.txt", ROOT)
    listed = json.loads(run(*pip, "list", "--format", "json"))
    installed = {package["name"].lower() for package in listed}
    assert "flowerpress" in installed
    assert not installed & {*HEAVY, "scikit-learn", "networkx"}
    files = [path for path in (tmp_path / "venv").rglob("*") if not path.is_symlink()]
    megabytes = sum(path.stat().st_size for path in files if path.is_file()) / 1e6
    assert megabytes < MOST_MB, f"{megabytes:.0f} MB"

    program = tmp_path / "venv/bin/flowerpress"
    assert "join" in run(program, "--help")
    assert "squarm-sgd" in run(program, "list")
    check = "from flowerpress.compressors import make_compressor\n"
    check += "from flowerpress.compressors.testing.conformance import check_compressor\n"
    check += f"for spec in {KINDS}: check_compressor(make_compressor(spec))"
    run(python, "-c", check)

    write_data(tmp_path)
    settings = json.dumps({"folder": str(tmp_path), "hyper": instructed()})
    script = ROOT / "benchmarks/edge_memory.py"
    figures = json.loads(
        run(python, "-I", script, "--client", settings, "--hidden", 1260, "--rounds", 5)
    )
    assert figures["parameters"] >= 1_000_000
    assert figures["peak"] < LIMIT

    # a whole run, the server included
    for who in ("0", "1"):
        (tmp_path / who).mkdir()
        for name in "xy":
            np.save(tmp_path / who / f"{name}.npy", np.load(tmp_path / f"{name}.npy")[:200])
    words = ("run", "npy", "--clients", 2, "--rounds", 3, "--lr", 0.1)
    model = ("-T", "hidden=8", "-T", "dim=784", "-T", "classes=10")
    where = ("--path", tmp_path / "{client}", "--out", tmp_path / "runs")
    for strategy in ("ef21-sgdm", "marina", "squarm-sgd"):
        assert "results in" in run(program, *words, *model, *where, "--strategy", strategy)
