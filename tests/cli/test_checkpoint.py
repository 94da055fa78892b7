"""`flowerpress run` killed with signal 9, and started again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flowerpress.cli import main
from flowerpress.simulations.recorder import Recorder

pytest.importorskip("sklearn")  # the task digits

ROUNDS = 40
RUN = ["run", "digits", "--strategy", "ef21", "--compressor", "topk:0.05", "--lr", "0.5"]
RUN += ["--clients", "3", "--rounds", str(ROUNDS), "--threads", "1"]


def outcome(folder: Path) -> dict[str, Any]:
    """What a run's results say, but for its seconds."""
    (file,) = folder.glob("*/results.json")
    (run,) = json.loads(file.read_text("utf-8"))["runs"]
    for record in (run, *run["history"]):
        del record["seconds"]
    return run  # type: ignore[no-any-return]


def rounds_saved(folder: Path) -> int:
    names = sorted(path.stem for path in folder.glob("run/round-*.safetensors"))
    return int(names[-1].removeprefix("round-")) if names else -1


def test_kill_9_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "saved"
    command = [*RUN, "--checkpoint", str(saved), "--resume"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flowerpress", *command, "--out", str(tmp_path / "never")],
        stdout=subprocess.DEVNULL,
    )
    try:
        while rounds_saved(saved) < 3:
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert 3 <= rounds_saved(saved) < ROUNDS
    (never,) = (tmp_path / "never").iterdir()
    assert [path.name for path in never.iterdir()] == ["results.json"]
    (run,) = json.loads((never / "results.json").read_text("utf-8"))["runs"]
    assert run["status"] == "running", "a kill leaves what was written at the beginning"
    assert "history" not in run
    assert main([*command, "--out", str(tmp_path / "never")]) == 0
    (resumed,) = {*(tmp_path / "never").iterdir()} - {never}
    (run,) = json.loads((never / "results.json").read_text("utf-8"))["runs"]
    assert run["status"] == "interrupted"
    assert run["reason"] == f"it was killed, and went on in {resumed.name}"
    (tmp_path / "resumed").mkdir()
    resumed.rename(tmp_path / "resumed" / resumed.name)
    assert main([*RUN, "--out", str(tmp_path / "whole")]) == 0
    assert outcome(tmp_path / "resumed") == outcome(tmp_path / "whole")
    assert main([*command[:-1], "--out", str(tmp_path / "again")]) == 2
    assert "resume it (--resume, or resume=true), or name another" in capsys.readouterr().err


def test_progress_counts_what_was_sent_before_the_run_was_resumed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    no_pictures: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hear = Recorder.hear

    def slow(self: Recorder, news: list[Any]) -> None:  # as if rounds before had taken that long
        hear(self, [fields | {"seconds": 100.0} for fields in news])

    monkeypatch.setattr(Recorder, "hear", slow)
    command = ["run", "digits", "--clients", "2", "--checkpoint", str(tmp_path / "saved")]
    command += ["--out", str(tmp_path / "out")]
    assert main([*command, "--rounds", "3"]) == 0
    capsys.readouterr()
    assert main([*command, "--rounds", "5", "--resume"]) == 0
    shown = capsys.readouterr().out
    (first, last) = (line for line in shown.splitlines() if line.startswith("  round "))
    assert first.startswith("  round 4/5 "), "the rounds before are shown no more"
    total = last.rpartition(" up ")[2]
    (row,) = (line for line in shown.splitlines() if "ef21-sgdm topk" in line and total in line)
    assert f" {total} " in row, "the table has the same bytes"
    files = (tmp_path / "out").glob("*/results.json")
    seconds = [json.loads(path.read_text("utf-8"))["runs"][0]["seconds"] for path in files]
    assert [min(seconds) < 100, max(seconds) > 400] == [True, True], "rounds 0 to 3 count too"


def test_a_baseline_has_a_folder_of_its_own(tmp_path: Path) -> None:
    command = ["run", "digits", "--clients", "2", "--rounds", "2", "--baseline", "--lr", "0.1"]
    command += ["--out", str(tmp_path / "out"), "--checkpoint", str(tmp_path / "saved")]
    assert main(command) == 0
    folders = {path.parent.name for path in tmp_path.glob("saved/*/round-*")}
    assert folders == {"run", "baseline"}
    assert main([*command, "--resume"]) == 0


def test_resume_needs_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--resume"]) == 2
    assert capsys.readouterr().err == "flowerpress: --resume needs --checkpoint\n"


def test_another_task_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "digits", "--clients", "2", "--rounds", "1", "--out", str(tmp_path / "out")]
    command += ["--checkpoint", str(tmp_path / "saved"), "--resume"]
    assert main(command) == 0
    assert main([*command, "--partition", "dirichlet:0.5"]) == 2
    assert "task_options = {}, this one has {'partition': 'dirichlet:0.5'}" in (
        capsys.readouterr().err
    )
