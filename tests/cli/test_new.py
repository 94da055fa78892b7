"""`flowerpress new`: what it makes runs at once, everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from flowerpress.cli import main
from flowerpress.cli.new_app import START
from flowerpress.simulations.loopback import COMPLETED, Loopback


@pytest.fixture
def app(tmp_path: Path) -> Path:
    assert main(["new", str(tmp_path / "my-app")]) == 0
    return tmp_path / "my-app"


def test_it_trains_in_one_process(app: Path) -> None:
    out = app / "runs"
    words = ["run", f"{app}/my_app/task.py", *START.split(), "--out", str(out)]
    assert main(words) == 0
    (file,) = out.glob("*/results.json")
    history = json.loads(file.read_text("utf-8"))["runs"][0]["history"]
    assert history[-1]["metrics"]["loss"] < history[0]["metrics"]["loss"] / 500


def test_it_tells_commands_that_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my-app"]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert told[1] == ["flwr", "run", "my-app", "--stream"]
    assert told[0][0] == "flowerpress"
    assert main(told[0][1:]) == 0, "it does not diverge"


def test_its_own_server_and_client_make_an_app(app: Path) -> None:
    """Two lives: the first is saved after each round, the second goes on."""
    code = """
import json, sys, tomllib
from pathlib import Path
from flwr.app import Context, RecordDict
from flowerpress.simulations.engine import InProcessGrid
from my_app.client import app as client
from my_app.server import app as server

config = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
config |= {"out": "out", "checkpoint": "saved", **json.loads(sys.argv[1])}
with InProcessGrid(lambda: client, 2, run_config=config, run_id=7) as grid:
    server(grid, Context(grid.run_id, 1, {}, RecordDict(), config))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for more in ({"num-server-rounds": 4}, {"num-server-rounds": 8, "resume": True}):
        command = [sys.executable, "-c", code, json.dumps(more)]
        done = subprocess.run(
            command, cwd=app, env=env, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
    found = [json.loads(f.read_text("utf-8"))["runs"][0] for f in app.glob("out/*/results.json")]
    assert sorted(len(each["history"]) for each in found) == [5, 9]


def test_its_project_is_one(app: Path) -> None:
    project = tomllib.loads((app / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["name"] == "my-app"
    assert project["tool"]["flwr"]["app"]["components"]["clientapp"] == "my_app.client:app"
    assert "{" not in (app / "my_app" / "client.py").read_text("utf-8")


@pytest.mark.parametrize("name", ["1app", "class", "my.app", "flowerpress"])
def test_names_that_are_no_package(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", str(tmp_path / name)]) == 2
    assert "cannot name a package" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_left_alone(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(app.rglob("*"))
    assert main(["new", str(app)]) == 2
    assert "is there already: name another" in capsys.readouterr().err
    assert sorted(app.rglob("*")) == before


@pytest.mark.flower
def test_flwr_run(app: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Loopback(tmp_path / "flower", simulation=True) as flower:
        config = {"num-server-rounds": 5, "out": str(out)}
        report = flower.run(app, config, federation_config={"num-supernodes": 2}, limit=300)
        assert report.status == COMPLETED, flower.log("run")
    (file,) = out.glob("*/results.json")
    assert len(json.loads(file.read_text("utf-8"))["runs"][0]["history"]) == 6


@pytest.mark.slow
def test_serve_and_join(app: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    start = [sys.executable, "-m", "flowerpress"]
    serve = [*start, "serve", ".", "--bind", "127.0.0.1:0", "--insecure", "--min-clients", "2"]
    serve += ["--run-config", "num-server-rounds=20", "--out", str(tmp_path / "out")]
    with subprocess.Popen(serve, cwd=app, env=env, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = next(each for each in server.stderr if "listening on port" in each)
        port = line.split("port ")[1].split()[0]
        clients = []
        for i in range(2):
            join = [*start, "join", ".", "--server", f"127.0.0.1:{port}", "--insecure"]
            join += ["--client", str(i), "--state-dir", str(tmp_path / f"s{i}")]
            clients.append(subprocess.Popen(join, cwd=app, env=env, stderr=subprocess.DEVNULL))
        log = server.stderr.read()
        assert [each.wait(60) for each in (server, *clients)] == [0, 0, 0], log
    assert json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
