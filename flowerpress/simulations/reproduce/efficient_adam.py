"""Efficient-Adam: Chen, Shen, Liu, Luo 2023, arXiv:2205.14473."""

from __future__ import annotations

from typing import Any

from flowerpress.simulations.reproduce.arms import Grid, arm, vision
from flowerpress.simulations.reproduce.claims import Claim, Paper, Study
from flowerpress.simulations.reproduce.figures import ACCURACY, DOWN, UP, last
from flowerpress.simulations.reproduce.rules import at_most, less, more, near
from flowerpress.simulations.tasks.text_source import source_here

ADAM, BOTH, NONE, ONE = "Adam", "Efficient-Adam", "without feedback", "uplink alone"

_TEXTS = {"shakespeare": "Shakespeare's plays", "stdlib": "Python's standard library"}


def _vision(quick: bool) -> Study:
    common, said = vision(quick, 100)
    grid: Grid = (0.03, 0.1, 0.3) if quick else (0.0005, 0.001, 0.002, 0.004)
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
            less(UP, BOTH, ADAM, 8 if quick else 9),
            less(DOWN, BOTH, ADAM, 8 if quick else 9),
            more(ACCURACY, BOTH, NONE, 0.5),
            near(ACCURACY, BOTH, ONE, 0.5),
        ),
    )


def _text(quick: bool) -> Study:
    rounds, hidden = (60, 16) if quick else (300, 32)
    grid: Grid = (0.002, 0.006, 0.018) if quick else (0.001, 0.002, 0.004, 0.008)
    common: dict[str, Any] = {"task": "text", "clients": 4, "rounds": rounds}
    source = source_here()  # named, so that what is kept of one is not taken for the other
    common["task_options"] = {
        "hidden": hidden,
        "batch_size": 8,
        "partition": "iid",
        "source": source,
    }
    spec, loss = "loggrid:3", last("loss", "loss")
    return Study(
        f"a causal transformer of width {hidden} on characters of {_TEXTS[source]}, 4 workers "
        f"with random windows, batch 8, {rounds} rounds, 3-bit logarithmic grid both ways; "
        "held-out loss, in nats.",
        (
            arm(ADAM, "adam", None, grid, **common),
            arm(BOTH, "efficient-adam", spec, grid, downlink=spec, **common),
            arm(NONE, "efficient-adam", spec, grid, downlink=spec, feedback="none", **common),
        ),
        (loss, UP, DOWN),
        (
            at_most(loss, BOTH, ADAM, 1.02),
            less(UP, BOTH, ADAM, 9),
            less(DOWN, BOTH, ADAM, 5),
            less(loss, BOTH, NONE, 1.01),
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
        Claim(
            "efficient-adam-text",
            "The same holds of a language model.",
            "The paper has a larger model and set.",
            _text,
        ),
    ),
)
