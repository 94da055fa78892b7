"""The command that measures a large model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def measured(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.big_model", *words],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_it_says_what_it_measured() -> None:
    done = measured("--dim", "1e5", "--rounds", "2", "--compressor", "blocked(topk:0.01, 30000)")
    assert done.returncode == 0, done.stderr
    for who in ("server", "client"):
        assert re.search(rf"now {who} +round 2 +peak -?[\d.]+ d ", done.stdout)
    assert "at most 4.2 d" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("init", ["dense", "compressed"])
@pytest.mark.parametrize("task", ["array", "torch"])
def test_bars(task: str, init: str) -> None:
    done = measured("--bars", "--init", init, "--task", task)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held: ") == 2
