"""What `scripts/matrix` compares between versions: that it could differ, and does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flowerpress.compressors.testing.conformance import forced_kernels
from flowerpress.strategies import strategy_names
from tests import same_bytes

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", ["squarm-sgd", "marina", "onebit-adam"])
def test_bytes_do_not_depend_on_the_kernels(name: str) -> None:
    digests = set()
    for kernels in ("numpy", "numba"):
        with forced_kernels(kernels):
            digests.add(same_bytes.digest(name))
    assert len(digests) == 1


def test_one_bit_more_is_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = same_bytes.digest("dsgd")[0]
    task_fn = same_bytes.task_fn

    def other(client: int, clients: int) -> object:
        task = task_fn(client, clients)
        gradient = task.gradient
        task.gradient = lambda x, batch: (gradient(x, batch)[0], gradient(x, batch)[1] * 1.0000001)
        return task

    monkeypatch.setattr(same_bytes, "task_fn", other)
    assert same_bytes.digest("dsgd")[0] != before


def test_a_line_for_every_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_bytes, "digest", lambda name: (name[::-1], 7))
    *lines, last = same_bytes.lines()
    assert [line.split() for line in lines] == [[n, n[::-1], "7"] for n in strategy_names()]
    assert last.split()[0] == "all"
    assert set(same_bytes.OPTIONS) <= set(strategy_names())


def test_it_works_without_the_extras() -> None:
    command = [sys.executable, "-m", "tests.without_extras"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
