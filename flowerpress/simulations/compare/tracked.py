"""A comparison's runs, told to TensorBoard, MLflow or Weights & Biases when all have ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from flowerpress.simulations.compare.comparison import Comparison
from flowerpress.simulations.tracking import make_trackers

_OTHER = re.compile(r"[^\w.+=:-]+")  # what has no place in the name of a folder


def track(comparison: Comparison, trackers: Sequence[str], folder: Path) -> None:
    """Tell trackers of every run on a seed reported.

    Parameters
    ----------
    comparison : Comparison
    trackers : sequence of str
        Their names, see `make_tracker`.
    folder : Path
        Gets the files, unless a library's own settings say another place.
    """
    for result in comparison.results:
        name = _OTHER.sub("_", result.label)
        for outcome in result.outcomes:
            run = make_trackers(trackers, folder, f"{name}-seed-{outcome.experiment.seed}")
            run.begin({"method": result.label, **outcome.experiment.as_dict()})
            run.resumed(outcome.history)
            run.end(outcome)
