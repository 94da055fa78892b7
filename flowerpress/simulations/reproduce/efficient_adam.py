"""Efficient-Adam: Chen, Shen, Liu, Luo 2023, arXiv:2205.14473."""

from __future__ import annotations

from flowerpress.simulations.reproduce.arms import Grid, arm, vision
from flowerpress.simulations.reproduce.claims import Claim, Paper, Study
from flowerpress.simulations.reproduce.figures import ACCURACY, DOWN, UP
from flowerpress.simulations.reproduce.rules import less, more, near

ADAM, BOTH, NONE, ONE = "Adam", "Efficient-Adam", "without feedback", "uplink alone"


def _vision(quick: bool) -> Study:
    common, said = vision(quick, 100)
    grid: Grid = (0.004, 0.016) if quick else (0.0005, 0.001, 0.002, 0.004)
    spec = "loggrid:3"
    return Study(
        f"{said}, random shards, 3-bit logarithmic grid both ways.",
        (
            arm(ADAM, "adam", None, grid, **common),
            arm(BOTH, "efficient-adam", spec, grid, downlink=spec, **common),
            arm(NONE, "efficient-adam", spec, grid, downlink=spec, feedback="none", **common),
            arm(ONE, "efficient-adam", spec, grid, downlink="identity", **common),
        ),
        (ACCURACY, UP, DOWN),
        (
            near(ACCURACY, BOTH, ADAM, 1.0),
            less(UP, BOTH, ADAM, 4 if quick else 9),
            less(DOWN, BOTH, ADAM, 4 if quick else 9),
            more(ACCURACY, BOTH, NONE),
            near(ACCURACY, BOTH, ONE, 0.5),
        ),
    )


PAPER = Paper(
    "efficient-adam",
    "Chen, Shen, Liu, Luo 2023, arXiv:2205.14473",
    (
        Claim(
            "efficient-adam-vision",
            "Two-way quantization with feedback both ways is as accurate as Adam at a tenth of "
            "the bytes; without feedback it is not.",
            "The paper has convolutional networks on CIFAR and ImageNet.",
            _vision,
        ),
    ),
)
