"""Which file of a comparison's folder of runs is which run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from flowerpress.simulations.compare.methods import Candidate
from flowerpress.simulations.compare.runs import key
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.results import write_file

INDEX = "index.csv"
_HEADS = ("file", "method", "lr", "seed", "kind", "status")


class Index:
    """The runs of a comparison by the names of their files; written when all have ended."""

    def __init__(self, methods: Sequence[Candidate]) -> None:
        self._methods = methods
        self._rows: dict[str, tuple[object, ...]] = {}

    def add(self, kind: str, wanted: Sequence[Experiment], outcomes: Sequence[Outcome]) -> None:
        """Note runs, and what they are for: "tuning" or "seeds"."""
        for experiment, outcome in zip(wanted, outcomes, strict=True):
            name = key(experiment)
            lr = experiment.strategy_options.get("lr", "")
            method = self._method(experiment)
            self._rows[name] = f"{name}.json", method, lr, experiment.seed, kind, outcome.status

    def write(self, folder: Path) -> None:
        """Write the file; raises `OSError` where it cannot be written."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_HEADS)
        writer.writerows(self._rows.values())
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / INDEX, text.getvalue().encode())

    def _method(self, experiment: Experiment) -> str:
        """Return what the comparison calls the method of a run."""
        lr = experiment.strategy_options.get("lr")
        for each in self._methods:
            tried = lr if each.lr == "tuned" and isinstance(lr, float | int) else None
            if each.run(experiment.seed, tried) == experiment:
                return each.label
        return experiment.title
