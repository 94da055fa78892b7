from __future__ import annotations

from collections.abc import Iterator

import pytest

from flowerpress.simulations.compare import runs
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run experiments here: a process takes seconds to start, and gives the same."""

    def one_by_one(experiments: dict[str, Experiment], jobs: int) -> Iterator[tuple[str, Outcome]]:
        for name, experiment in experiments.items():
            yield name, runs.run(experiment)

    monkeypatch.setattr(runs, "_run", one_by_one)
