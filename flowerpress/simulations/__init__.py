"""Whole runs: in this process, and as a Flower App; the shipped tasks; experiments and reports."""

from flowerpress.simulations.engine import InProcessGrid
from flowerpress.simulations.faults import Faults
from flowerpress.simulations.recorder import RoundRecord
from flowerpress.simulations.result import SimulationResult
from flowerpress.simulations.results import load_model
from flowerpress.simulations.simulate import simulate
from flowerpress.simulations.tracking import make_tracker

__all__ = [
    "Faults",
    "InProcessGrid",
    "RoundRecord",
    "SimulationResult",
    "load_model",
    "make_tracker",
    "simulate",
]
