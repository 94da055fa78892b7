"""`flowerpress run --track`: what it leaves in the folder, and what it says where it cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from flowerpress.cli import main
from flowerpress.simulations.tracking import TRACKERS

OPTIONS = ["--strategy", "ef21", "--lr", "0.1", "--clients", "3", "--threads", "1", "--rounds", "3"]


def run(name: str, *more: str) -> int:
    return main(["run", f"own_tasks.py:{name}", *OPTIONS, "--out", "runs", *more])


def scalars(folder: Path, name: str) -> dict[str, list[tuple[int, float]]]:
    """The values of a run's metric, by the run's name."""
    found = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    values: dict[str, Any] = {}
    for where in folder.glob("runs/*/tensorboard/*"):
        events = found.EventAccumulator(str(where))
        events.Reload()
        values[where.name] = [(each.step, each.value) for each in events.Scalars(name)]
    return values


def test_a_run_and_its_baseline_are_two_runs(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    assert run("task_fn", "--track", "tensorboard", "--baseline") == 0
    found = scalars(folder, "bytes/up")
    assert set(found) == {"ef21 topk_0.01", "fedavg baseline"}
    assert [[step for step, _ in values] for values in found.values()] == [[0, 1, 2, 3]] * 2
    assert found["ef21 topk_0.01"][-1] != found["fedavg baseline"][-1]


def test_a_resumed_run_has_all_its_rounds(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    saved = ["--checkpoint", "saved"]
    assert run("task_fn", *saved) == 0
    assert run("task_fn", *saved, "--resume", "--rounds", "5", "--track", "tensorboard") == 0
    (values,) = scalars(folder, "bytes/up").values()
    assert [step for step, _ in values] == [0, 1, 2, 3, 4, 5]
    assert len({value for _, value in values}) == 6


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_said_before_anything_has_run(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert run("task_fn", "--track", name) == 2
    shown = capsys.readouterr()
    assert f"pip install 'flowerpress[{name}]'" in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert not (folder / "runs").exists()


def test_an_unknown_tracker(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("task_fn", "--track", "tensorbord") == 2
    assert "did you mean 'tensorboard'?" in capsys.readouterr().err
    assert not (folder / "runs").exists()


def test_a_tracker_that_fails_loses_no_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    from flowerpress.simulations.tracking.in_tensorboard import TensorBoardWriter

    def full(self: object, step: int, values: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(TensorBoardWriter, "write", full)
    assert run("task_fn", "--track", "tensorboard") == 0
    shown = capsys.readouterr()
    said = "warning: tracking by tensorboard has failed, and the run goes on without it: OSError"
    assert shown.out.count(said) == 1
    assert "round 3/3" in shown.out
    assert list(folder.glob("runs/*/model.safetensors"))
