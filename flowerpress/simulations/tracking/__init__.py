"""Runs shown by TensorBoard, MLflow or Weights & Biases, written by these libraries themselves."""

from flowerpress.simulations.tracking.several import Trackers, make_trackers
from flowerpress.simulations.tracking.tracker import Judged, Tracker, Writer
from flowerpress.simulations.tracking.writers import TRACKERS, make_tracker, require_tracker

__all__ = [
    "TRACKERS",
    "Judged",
    "Tracker",
    "Trackers",
    "Writer",
    "make_tracker",
    "make_trackers",
    "require_tracker",
]
