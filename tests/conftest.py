"""What every test shares: no telemetry, no update checks, no display, no deadlines."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from flowerpress.simulations.compare import figures, runs
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# Deadlines fail on a busy machine without a fault in the code: the first call of a kernel compiles.
settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_finish() -> None:
    """Let collections of garbage pass over ten thousand tests: Flower makes one for each array."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Undo what a test made of flowerpress's log: a Flower App sends it where Flower's goes."""
    log = logging.getLogger("flowerpress")
    handlers, level, propagate = log.handlers.copy(), log.level, log.propagate
    yield
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run experiments here: a process takes seconds to start, and gives the same.

    Nor are figures drawn, of which each comparison has ten: tests/compare has one with them.
    """

    def one_by_one(experiments: dict[str, Experiment], jobs: int) -> Iterator[tuple[str, Outcome]]:
        for name, experiment in experiments.items():
            yield name, runs.run(experiment)

    monkeypatch.setattr(runs, "_run", one_by_one)
    monkeypatch.setattr(figures, "figures", lambda _: {"overview.png": b"a picture"})
