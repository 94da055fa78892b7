"""What `flowerpress plot` draws of the folders that it is given, and what it leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowerpress.cli import main
from flowerpress.simulations.compare import plotted
from flowerpress.simulations.compare.comparison import Comparison
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.results import make_folder, save_runs, write_json
from flowerpress.simulations.verdict import FAILED, INTERRUPTED
from tests.compare.made_up import outcome

VALUES = (0.1, 0.5, 0.9)


def saved(
    folder: Path, values: tuple[float, ...] = VALUES, status: str = "done", **of: Any
) -> None:
    """A folder of a run that has ended."""
    experiment = Experiment(**{"task": "digits", "strategy": "ef21", "rounds": 2, **of})
    folder.mkdir(parents=True)
    ended = outcome(values, experiment=experiment, status=status)
    save_runs(folder / "results.json", [ended])


def drawn(comparison: Comparison) -> dict[str, list[tuple[int, int]]]:
    """The seeds and rounds of each method's runs."""
    return {
        result.label: sorted((each.experiment.seed, each.rounds) for each in result.outcomes)
        for result in comparison.results
    }


@pytest.mark.parametrize("short", ["a", "b"])
@pytest.mark.parametrize("status", ["done", INTERRUPTED, FAILED])
def test_of_one_method_and_seed_the_longest_run_counts(
    short: str, status: str, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        if name == short:
            saved(tmp_path / name, VALUES[:2], status)
        else:
            saved(tmp_path / name)
    saved(tmp_path / "c", seed=1)
    found = plotted([tmp_path])
    assert drawn(found) == {"ef21": [(0, 2), (1, 2)]}
    (line,) = found.left_out
    assert line.startswith(f"{tmp_path / short} (ef21, seed 0, 1 rounds): of the same method and")


def test_a_run_that_is_whole_counts_and_not_a_longer_one_that_was_stopped(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    saved(tmp_path / "b", (*VALUES, 0.9), INTERRUPTED)
    assert drawn(plotted([tmp_path])) == {"ef21": [(0, 2)]}


def test_of_runs_of_one_length_the_newest_counts(tmp_path: Path) -> None:
    for name, when, last in (("a", "2026-05-02", 0.7), ("b", "2026-05-01", 0.8)):
        saved(tmp_path / name, (0.1, 0.5, last))
        document = json.loads((tmp_path / name / "results.json").read_text())
        write_json(tmp_path / name / "results.json", document | {"finished": when})
    (result,) = plotted([tmp_path]).results
    assert [each.final for each in result.outcomes] == [{"accuracy": 0.7}]


def test_a_file_that_is_named_twice_is_no_second_run(tmp_path: Path) -> None:
    saved(tmp_path / "a", (0.1, float("nan"), 0.9))  # which is not equal to itself
    found = plotted([tmp_path, tmp_path / "a", tmp_path / "a" / "results.json"])
    assert drawn(found) == {"ef21": [(0, 2)]}
    assert not found.left_out


def test_runs_are_found_at_any_depth(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    saved(tmp_path / "ef14" / "more" / "b", strategy="ef14")
    saved(tmp_path / ".hidden" / "c", strategy="dsgd")
    (tmp_path / "ef14" / "round").symlink_to(tmp_path, target_is_directory=True)
    assert {*drawn(plotted([tmp_path]))} == {"ef21", "ef14"}


def test_what_has_not_ended_is_left_out_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = make_folder(tmp_path / "runs", Experiment(task="digits"))
    with pytest.raises(ValueError, match=r"no run has ended: .* was killed goes on with --resume"):
        plotted([tmp_path / "runs"])
    saved(tmp_path / "runs" / "a")
    damaged = tmp_path / "runs" / "damaged"
    damaged.mkdir()
    (damaged / "results.json").write_text("{")
    assert main(["plot", str(tmp_path / "runs"), "--out", str(tmp_path / "plot")]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"flowerpress: left out: {running}/results.json: the run goes on")
    assert f"left out: {damaged}/results.json is no results.json of a run" in second
    assert len(json.loads((tmp_path / "plot" / "summary.json").read_text())["left_out"]) == 2
    with pytest.raises(ValueError, match=r"is no results\.json of a run"):  # it alone is named
        plotted([damaged, tmp_path / "runs" / "a"])


def test_a_folder_without_runs_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no results\.json of a run is in it, nor in a folder"):
        plotted([tmp_path])


def _status(folder: Path) -> str:
    (run,) = json.loads((folder / "results.json").read_text())["runs"]
    return str(run["status"])


def test_a_resumed_run_marks_the_folder_that_was_killed(tmp_path: Path) -> None:
    out, saves, experiment = tmp_path / "out", tmp_path / "saves", Experiment(task="digits")
    killed = make_folder(out, experiment, saves)
    others = [make_folder(out, experiment, each) for each in (tmp_path / "others", None)]
    assert _status(killed) == "running"
    resumed = make_folder(out, experiment, saves, resume=True)
    assert [_status(each) for each in (killed, *others, resumed)] == [INTERRUPTED, *3 * ["running"]]
    with pytest.raises(ValueError, match=f"it was killed, and went on in {resumed.name}"):
        plotted([killed])


def test_a_run_that_begins_or_that_has_ended_marks_and_is_marked_by_none(tmp_path: Path) -> None:
    experiment = Experiment(task="digits")
    ended = make_folder(tmp_path / "out", experiment, tmp_path / "saves")
    make_folder(tmp_path / "out", experiment, tmp_path / "saves")
    assert _status(ended) == "running"
    save_runs(ended / "results.json", [outcome(VALUES, experiment=experiment)])
    make_folder(tmp_path / "out", experiment, tmp_path / "saves", resume=True)
    assert _status(ended) == "done"


NAMES = ["./mine.py", "mine.py", "mine.py:task_fn", "/srv/app/mine.py:task_fn", "{}/mine.py"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_one_task_however_it_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    saved(tmp_path / "runs" / "a", task="mine.py")
    saved(tmp_path / "runs" / "b", task=name.format(tmp_path), seed=1)
    assert drawn(plotted([Path("runs")])) == {"ef21": [(0, 2), (1, 2)]}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mine.py:other", "different tasks: "),
        ("others.py", "different tasks: "),
        ("digits", "different tasks: digits (1x), mine.py (1x); name the folders of one of them"),
        ("there/mine.py", "different tasks (files of one name, and not of one content): "),
    ],
)
def test_other_tasks_are_refused_with_what_to_do(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "there" / "mine.py").write_text("x = 1")
    saved(tmp_path / "runs" / "a", task="mine.py")
    saved(tmp_path / "runs" / "b", task=name)
    with pytest.raises(ValueError, match="runs are of") as raised:
        plotted([tmp_path / "runs"])
    assert told in str(raised.value)
