"""1-bit Adam: Tang et al. 2021, arXiv:2102.02888; beside Birder: Peng et al. 2023 (NeurIPS)."""

from __future__ import annotations

from typing import Any

from flowerpress.simulations.reproduce.arms import Grid, arm, vision
from flowerpress.simulations.reproduce.claims import Claim, Paper, Study
from flowerpress.simulations.reproduce.figures import ACCURACY, DOWN, UP
from flowerpress.simulations.reproduce.rules import less, more, near

ADAM, ONEBIT, NONE, BIRDER = "Adam", "1-bit Adam", "without feedback", "Birder"


def _study(quick: bool) -> Study:
    common, said = vision(quick, 100)
    grid: Grid = (0.03, 0.1, 0.3) if quick else (0.0005, 0.001, 0.002, 0.004)
    signs: Grid = (0.03, 0.1, 0.3) if quick else (0.01, 0.02, 0.04)
    warm = common["rounds"] * 15 // 100
    sign = "sign:block=tensor"
    pressed: dict[str, Any] = {"downlink": sign, "warmup_rounds": warm, **common}
    return Study(
        f"{said}, random shards; 1-bit Adam takes {warm} rounds to warm up; signs with a scale "
        "for each tensor; Birder's steps go down as 1 / sqrt(t).",
        (
            arm(ADAM, "adam", None, grid, **common),
            arm(ONEBIT, "onebit-adam", sign, grid, **pressed),
            arm(NONE, "onebit-adam", sign, grid, feedback="none", **pressed),
            arm(BIRDER, "birder", "randsign", signs, decay="sqrt", **common),
        ),
        (ACCURACY, UP, DOWN),
        (
            near(ACCURACY, ONEBIT, ADAM, 1.0),
            less(UP, ONEBIT, ADAM, 5),
            more(ACCURACY, ONEBIT, NONE, 0.5),
            near(ACCURACY, BIRDER, ADAM, 1.0),
            less(UP, BIRDER, ONEBIT, 2),
        ),
    )


PAPER = Paper(
    "onebit-adam",
    "Tang et al. 2021, arXiv:2102.02888; Peng et al. 2023 (Birder)",
    (
        Claim(
            "onebit-adam-vision",
            "After a dense warm-up of 15 % signs of the momentum do as well as Adam, at 5 times "
            "fewer bytes; Birder does without the warm-up.",
            "The paper trains BERT and ResNet-18, and its 5 times are beside floats of 16 bits.",
            _study,
        ),
    ),
)
