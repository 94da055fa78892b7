"""Runs are as recorded: see `tests.recorded`."""

from __future__ import annotations

import pytest

from benchmarks.round_trace import trace
from flowerpress.compressors.testing import forced_kernels
from flowerpress.strategies import strategy_names
from tests import recorded

LINES = dict(line.rsplit(maxsplit=1) for line in recorded.FILE.read_text("utf-8").splitlines())
# One of each kind; the others in scripts/nightly.
SOON = {"ef21-sgdm", "pp-marina", "cdadam", "sketched-sgd", "squarm-sgd"}


@pytest.mark.parametrize(
    "name",
    [
        each if each in SOON else pytest.param(each, marks=pytest.mark.slow)
        for each in strategy_names()
    ],
)
def test_runs_are_as_recorded(name: str) -> None:
    found = {f"{name:<18}{way:<19}".rstrip(): recorded.digest(name, way) for way in recorded.WAYS}
    assert found == {run: LINES[run] for run in found}


def test_each_run_is_recorded_once() -> None:
    runs = [f"{name:<18}{way}" for name in strategy_names() for way in recorded.WAYS]
    assert list(LINES) == runs


def test_a_round_of_two_clients_takes_at_most_601_calls() -> None:
    """Half of the 1,203 that it took at commit 92fccfe; each update is checked and decoded once."""
    with forced_kernels("numpy"):
        found = trace("ef21", clients=2)
    assert sum(found.calls.values()) <= 601
    assert found.opened == {"CRCs": 2, "decodes": 2}
