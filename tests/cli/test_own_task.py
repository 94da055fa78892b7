"""`flowerpress run` with a user's own file, and everything that may be wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from flowerpress.cli import main
from flowerpress.cli.own_apps import own_task_app
from flowerpress.user_code import load_module

OPTIONS = ["--strategy", "ef21", "--lr", "0.1", "--clients", "3", "--threads", "1"]


def run(name: str, *more: str, rounds: int = 6) -> int:
    return main(["run", name, *OPTIONS, "--rounds", str(rounds), "--out", "runs", *more])


def results(folder: Path) -> tuple[Path, dict[str, Any]]:
    (file,) = folder.glob("runs/*/results.json")
    (one,) = json.loads(file.read_text("utf-8"))["runs"]
    return file.parent, one


@pytest.mark.parametrize(
    "name",
    [
        "own_tasks.py",
        "./own_tasks.py",
        "own_tasks.py:task_fn",
        "own_tasks",
        "own_tasks:task_fn",
        "sub/tasks.py",
        "pack.tasks",
        "pack.tasks:task_fn",
        "ABSOLUTE",
    ],
)
def test_ways_to_name_it(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("sub", "pack"):
        (folder / place).mkdir()
        shutil.copy("own_tasks.py", folder / place / "tasks.py")
    name = str(folder / "own_tasks.py") if name == "ABSOLUTE" else name
    assert run(name, rounds=2) == 0
    where, one = results(folder)
    assert one["status"] == "done"
    assert where.name.endswith("tasks-ef21")
    assert "train loss" in capsys.readouterr().out, "there is nothing else to show"


def test_all_that_run_offers_works_for_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["-S", "fraction-evaluate=1.0", "--baseline", "--checkpoint", "saved"]
    assert run("own_tasks.py:measured", *command) == 0
    shown = capsys.readouterr().out
    assert "clients' accuracy 75.00 %" in shown
    assert "ratio to dense" in shown
    (where,) = folder.glob("runs/*")
    assert {path.name for path in where.iterdir()} == {
        "results.json",
        "model.safetensors",
        "baseline.safetensors",
        "plot.png",
    }
    pressed, dense = json.loads((where / "results.json").read_text("utf-8"))["runs"]
    assert pressed["final_evaluate"] == {"accuracy": 0.75}
    assert pressed["history"][-1]["evaluate"] == {"accuracy": 0.75}
    assert dense["config"]["task"] == "own_tasks.py:measured"
    assert run("own_tasks.py:measured", *command, "--resume") == 0


def test_a_task_function_may_have_a_model_and_an_evaluation(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("own_tasks.py:evaluated", "--compressor", "identity", rounds=30) == 0
    where, one = results(folder)
    assert one["history"][0]["metrics"] == {"first": 1.0}
    assert one["final"]["first"] == pytest.approx(1.0, abs=0.1)
    assert load_file(where / "model.safetensors")["x"].shape == (5,)
    assert "first 1" in capsys.readouterr().out


def test_serve_and_join_take_the_same_names(folder: Path) -> None:
    app = own_task_app("own_tasks.py:measured")
    assert app is not None
    assert app.run_config["task"] == f"{folder / 'own_tasks.py'}:measured"
    assert callable(app.load("client"))
    assert app.load("server").__class__.__name__ == "ServerApp"
    assert own_task_app("digits") is None
    assert own_task_app("nothing.py") is None
    (folder / "my_app.py").write_text("server_app = client_app = task_fn = None\n")
    assert own_task_app("my_app.py") is None, "an app of its own"


WRONG = {
    "no such file": ("own_task.py", "own_task.py is not there"),
    "no such module": ("own.tasks:fn", "there is no module 'own.tasks'"),
    "a typo": (
        "digit",
        "unknown task 'digit': did you mean 'digits'? `flowerpress list tasks` shows",
    ),
    "a folder": ("./", "is a folder: give the path of a Python file"),
    "no such function": ("own_tasks.py:task", "own_tasks.py: task is not there; define task("),
    "no function": ("own_tasks.py:number", "number is not callable"),
    "other arguments": ("own_tasks.py:too_few", "must take (partition_id, num_partitions)"),
    "no task": ("own_tasks.py:no_task", "gave a str, not a Task"),
    "not Python": ("syntax.py", "syntax.py, line 2: "),
    "raises": ("raising.py", "raising.py, line 3: ZeroDivisionError: division by zero"),
    "lacks a package": ("lacking.py", "lacking.py, line 1: ModuleNotFoundError: No module named"),
    "ends": ("ending.py", "ending.py, line 2: ending.py ends the process when it is imported"),
    "empty": ("empty.py", "empty.py: task_fn is not there"),
    "binary": ("binary.py", "binary.py"),
    "a library's": ("json", "json: task_fn is not there"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_it_is_one_line(
    wrong: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in {
        "syntax.py": "x = 1\ndef task_fn(:\n",
        "raising.py": "x = 1\n\ny = x / 0\n",
        "lacking.py": "import no_such_package_anywhere\n",
        "ending.py": "import sys\nsys.exit('usage')\n",
        "empty.py": "",
    }.items():
        (folder / name).write_text(text)
    (folder / "binary.py").write_bytes(bytes(range(256)))
    name, said = WRONG[wrong]
    assert run(name) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("flowerpress: ")
    assert shown.err.count("\n") == 1
    assert said in shown.err
    assert not list(folder.glob("runs/*"))


def test_its_options_are_not_the_shipped_ones(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("own_tasks.py", "--batch-size", "4") == 2
    assert "'batch-size' is an option of shipped tasks" in capsys.readouterr().err


def test_an_error_in_its_gradient_names_the_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("own_tasks.py:undefined") == 2
    shown = capsys.readouterr()
    lines = (folder / "own_tasks.py").read_text("utf-8").splitlines()
    line = next(i for i, text in enumerate(lines, 1) if "unknown_name" in text)
    where = f"own_tasks.py, line {line}: NameError: name 'unknown_name' is not defined"
    assert where in shown.err
    assert where in shown.out, "a warning as soon as it happens"
    assert "all 3 clients fail" in shown.err
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.out + shown.err
    assert not list(folder.glob("runs/*")), "nothing was measured"


def test_an_error_in_its_evaluation_names_the_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.py").write_text(
        "from own_tasks import task_fn\n\n\ndef evaluate_fn(server_round, arrays):\n"
        "    return {'first': arrays['y']}\n"
    )
    assert run("mine.py") == 2
    assert capsys.readouterr().err == "flowerpress: mine.py, line 5: KeyError: 'y'\n"


def test_a_file_is_loaded_once_and_another_of_its_name_is_another(folder: Path) -> None:
    for place in ("a", "b"):
        (folder / place).mkdir()
        (folder / place / "same.py").write_text(f"where = {place!r}\n")
    first = load_module("a/same.py")
    assert load_module("a/same.py") is first
    assert (first.where, load_module("b/same.py").where) == ("a", "b")


def test_the_final_model_is_kept(folder: Path) -> None:
    assert run("own_tasks.py", "--compressor", "identity", rounds=200) == 0
    where, _ = results(folder)
    np.testing.assert_allclose(load_file(where / "model.safetensors")["x"], 1.0, atol=1e-6)
