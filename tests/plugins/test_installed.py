"""Another package's compressor, algorithm and task, built and installed for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flowerpress.simulations.loopback import COMPLETED, Loopback
from tests.plugins.pages import write_package

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("own-algorithm.md", "own-compressor.md", "own-task.md")

USE = """
import numpy as np
from flowerpress.compressors import compressor_names, decompress, make_compressor
from flowerpress.compressors.testing import check_compressor

assert "middle" in compressor_names()
compressor = make_compressor("middle:2")
assert type(compressor).__module__ == "middle"
packet = compressor.compress(np.array([1.0, 3.0, 5.0]))
assert packet.compressor == "middle:2"
assert decompress(packet.data).tolist() == [2, 2, 5]

# It composes with the package's own.
both = make_compressor("topk:k=3+middle:1")
assert both.compress(np.arange(5.0)).compressor == "topk:k=3+middle:1"

check_compressor("middle:3", draws=40)
print("kept every promise")
"""

BREAK = """
from flowerpress.compressors.testing import check_compressor
import middle

def traits(self, dim, cohort=1):
    return middle.Traits(True, 0.5, None, None, 16 + 32 * -(-dim // self.block))

middle.Middle.traits = traits
check_compressor("middle:3", draws=40)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the pages' packages installed in it, offline."""
    if find_spec("pip") is None or find_spec("setuptools") is None:
        pytest.skip("needs pip and setuptools to build a package")
    folder = tmp_path_factory.mktemp("plugin")
    packages = [str(write_package(page, folder / page)) for page in PAGES]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([*command, "--target", str(folder / "site"), *packages], check=True, timeout=300)
    return folder / "site"


def environment(site):
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}


def python(code, site, *words, cwd=None):
    return subprocess.run(
        [sys.executable, *(("-W", "error", "-c", code) if code else ()), *words],
        env=environment(site),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def command(site, folder, *words):
    done = python("", site, "-m", "flowerpress", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_found_used_and_conforms(site):
    done = python(USE, site)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "kept every promise"


def test_the_kit_catches_its_lies(site):
    done = python(BREAK, site)
    assert done.returncode == 1
    assert "AssertionError" in done.stderr
    assert "about" in done.stderr or "at most" in done.stderr


def model_below(folder):
    (path,) = folder.glob("*/model.safetensors")
    return load_file(path)["x"]


def test_an_algorithm_and_a_task_of_another_package_run_by_name(site, tmp_path):
    """On the command line, with options of its own, saved on the way and resumed."""
    listed = command(site, tmp_path, "list")
    assert "majority-vote     signSGD with majority vote: each coordinate goes where" in listed
    assert "wells             Pull each client towards a place of its own." in listed
    words = ("run", "wells", "--strategy", "majority-vote", "--lr", "0.05", "--clients", "3")
    words = (*words, "-S", "pull=0.0")
    whole = command(site, tmp_path, *words, "--rounds", "80", "--out", "whole")
    assert "majority-vote sign" in whole
    x = model_below(tmp_path / "whole")
    np.testing.assert_allclose(x, [1.0, -2.0, 3.0], atol=0.051)  # a step from the median
    saved = (*words, "--checkpoint", "saved")
    command(site, tmp_path, *saved, "--rounds", "30", "--out", "first")
    command(site, tmp_path, *saved, "--rounds", "80", "--out", "second", "--resume")
    np.testing.assert_array_equal(model_below(tmp_path / "second"), x)


@pytest.mark.flower
def test_flwr_run_takes_an_algorithm_of_another_package(site, tmp_path, monkeypatch):
    """Flower refuses keys that the app does not have: its options go in one text."""
    monkeypatch.setenv("PYTHONPATH", environment(site)["PYTHONPATH"])
    config = {"strategy": "majority-vote", "lr": 0.01, "num-server-rounds": 3}
    config |= {"strategy-options": "pull=0.001 weights=uniform", "out": str(tmp_path / "out")}
    with Loopback(tmp_path / "flower", simulation=True) as flower:
        report = flower.run(ROOT, config, federation_config={"num-supernodes": 2}, limit=300)
        assert report.status == COMPLETED, flower.log("run")
    (found,) = (tmp_path / "out").glob("*/results.json")
    (run,) = json.loads(found.read_text("utf-8"))["runs"]
    assert run["config"]["strategy"] == "majority-vote"
    assert run["config"]["strategy_options"] == {"lr": 0.01, "pull": 0.001, "weights": "uniform"}
    assert [row["round"] for row in run["history"]] == [0, 1, 2, 3]


@pytest.mark.slow
def test_they_run_over_the_link(site, tmp_path):
    config = 'strategy="majority-vote" lr=0.05 num-server-rounds=80 strategy-options="pull=0.0"'
    words = ("--bind", "127.0.0.1:0", "--insecure", "--min-clients", "2", "--run-config", config)
    start = [sys.executable, "-m", "flowerpress"]
    options = {"env": environment(site), "cwd": tmp_path, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*start, "serve", "wells", *words], **options) as server:
        line = next(each for each in server.stderr if "listening on port" in each)
        port = line.split("port ")[1].split()[0]
        join = [*start, "join", "wells", "--server", f"127.0.0.1:{port}", "--insecure", "--client"]
        clients = [
            subprocess.Popen(
                [*join, str(i)], env=environment(site), cwd=tmp_path, stderr=subprocess.DEVNULL
            )
            for i in range(2)
        ]
        for _ in server.stderr:  # until it ends
            pass
        assert [each.wait(60) for each in (server, *clients)] == [0, 0, 0]
    x = model_below(tmp_path / "out")
    np.testing.assert_allclose(x, [1.0, -2.0, 3.0], atol=0.101)
