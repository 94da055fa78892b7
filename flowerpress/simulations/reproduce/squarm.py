"""SQuARM-SGD: Singh, Data, George, Diggavi 2021, arXiv:2005.07041."""

from __future__ import annotations

from typing import Any

from flowerpress.simulations.reproduce.arms import Grid, arm, vision
from flowerpress.simulations.reproduce.claims import Claim, Paper, Study
from flowerpress.simulations.reproduce.figures import ACCURACY, SENT, last
from flowerpress.simulations.reproduce.rules import at_most, less, more, near

SQUARM, PLAIN, ALWAYS = "SQuARM-SGD", "without momentum", "without trigger"
CHOCO, DENSE = "CHOCO-SGD", "dense gossip"
_NEVER: dict[str, Any] = {"threshold": -1.0, "threshold_step": 0.0, "threshold_every": 0}


def _study(quick: bool) -> Study:
    common, said = vision(quick, 80, partition="dirichlet:0.5")
    common = {**common, "topology": "ring", "collect_every": 20}
    grid: Grid = (0.2, 0.4, 0.8) if quick else (0.02, 0.05, 0.1, 0.2)
    spec = "signtopk:0.1" if quick else "signtopk:0.02"
    gamma = 0.4 if quick else 0.15
    trigger: dict[str, Any] = {"threshold": 400.0, "threshold_step": 200.0, "threshold_every": 10}
    if not quick:
        trigger = {"threshold": 600.0, "threshold_step": 200.0, "threshold_every": 50}
    steps: dict[str, Any] = {"local_steps": 5, "momentum": 0.9, "gamma": gamma, **common}
    plain: dict[str, Any] = {**steps, "momentum": 0.0}
    loss = last("loss", "loss")
    slow = tuple(lr / 4 for lr in grid)
    return Study(
        f"{said}, shards dirichlet:0.5, on a ring; SQuARM "
        f"has five steps a round with momentum 0.9, `{spec}`; held-out loss and accuracy of "
        "the mean model.",
        (
            arm(SQUARM, "squarm-sgd", spec, slow, **steps, **trigger),
            arm(PLAIN, "squarm-sgd", spec, grid, **plain, **trigger),
            arm(ALWAYS, "squarm-sgd", spec, slow, **steps, **_NEVER),
            arm(CHOCO, "choco-sgd", spec, grid, gamma=gamma, **common),
            arm(DENSE, "d-psgd", None, slow, local_steps=5, momentum=0.9, **common),
        ),
        (loss, ACCURACY, SENT),
        (
            near(ACCURACY, SQUARM, DENSE, 2.0),
            less(SENT, SQUARM, DENSE, 5 if quick else 100),
            more(ACCURACY, SQUARM, PLAIN),
            less(SENT, SQUARM, ALWAYS, 1.1),
            near(ACCURACY, SQUARM, ALWAYS, 0.5),
            more(ACCURACY, SQUARM, CHOCO),
            at_most(SENT, SQUARM, CHOCO, 1.05),
        ),
    )


PAPER = Paper(
    "squarm",
    "Singh, Data, George, Diggavi 2021, arXiv:2005.07041",
    (
        Claim(
            "squarm-gossip",
            "On a ring, local steps, momentum, sparse signs and a trigger come within a point or "
            "two of dense gossip, at far fewer bytes than it and than CHOCO-SGD.",
            "The paper trains ResNet-20 on CIFAR-10 for 300 epochs.",
            _study,
        ),
    ),
)
