"""The processes of a comparison end with it, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowerpress.simulations.compare.runs import run_all
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.reading import read_runs


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_where_an_outcome_is_kept_ends_the_processes(error: type[BaseException]) -> None:
    def full_disk(_: Outcome) -> None:
        raise error

    many = [
        Experiment(task="digits", strategy="fedavg", clients=2, rounds=40, seed=seed)
        for seed in range(100)
    ]
    with pytest.raises(error):
        run_all(many, jobs=1, on_done=full_disk)
    assert not multiprocessing.active_children()


def test_ctrl_c_keeps_what_has_ended(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "flowerpress", "compare", "digits", "--jobs", "1"]
    words += ["-m", "fedavg lr=0.1", "--rounds", "40", "--seeds", "200", "--out", str(out)]
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("runs/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].endswith("--resume goes on with it")
    kept = list(out.glob("runs/*.json"))
    assert kept
    assert all(read_runs(path)[0].status == "done" for path in kept)
    assert not _left(process.pid)


def test_a_parent_that_is_killed_leaves_no_processes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "flowerpress", "compare", "digits", "--jobs", "1"]
    words += ["-m", "fedavg lr=0.1", "--rounds", "4", "--seeds", "2000", "--out", str(out)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(words, stderr=quiet, stdout=quiet, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(out.glob("runs/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _children(process.pid)
    process.kill()
    process.wait()
    left = _left(process.pid)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def _left(pid: int) -> list[int]:
    """Processes of a group that are there after some seconds still."""
    deadline = time.monotonic() + 10
    while (found := _children(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _children(pid: int) -> list[int]:
    """Processes that were started by one that has ended are in its process group still."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(each.name)) == pid:
                found.append(int(each.name))
        except OSError:
            continue
    return found
