"""CDAdam: Wang, Lin, Chen 2022, arXiv:2111.00705."""

from __future__ import annotations

from typing import Any

from flowerpress.simulations.reproduce.arms import Grid, arm
from flowerpress.simulations.reproduce.claims import Claim, Paper, Study
from flowerpress.simulations.reproduce.figures import bytes_until, last
from flowerpress.simulations.reproduce.rules import at_most, less

DENSE, CD, ONEBIT, EF21 = "AMSGrad", "CDAdam", "1-bit Adam", "EF21"


def _study(quick: bool) -> Study:
    clients, rounds = (8, 150) if quick else (20, 1000)
    grid: Grid = (0.001, 0.004, 0.016, 0.064) if quick else (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
    steps: Grid = (0.5, 1.0, 2.0) if quick else (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
    common: dict[str, Any] = {"task": "breast-cancer", "clients": clients, "rounds": rounds}
    common["task_options"] = {"partition": "contiguous", "lam": 0.1}
    target = 1e-3 if quick else 1e-4
    norm, sent = last("gradient_norm_sq", "|grad f|^2"), bytes_until("gradient_norm_sq", target)
    both: dict[str, Any] = {"downlink": "sign", "beta2": 0.99, **common}
    return Study(
        "logistic regression with the non-convex regularizer (0.1) on breast-cancer, "
        f"{clients} workers in the order of the rows, exact gradients, {rounds} rounds, scaled "
        f"signs both ways; kB until |grad f|^2 is {target:g}.",
        (
            arm(DENSE, "amsgrad", None, grid, beta2=0.99, **common),
            arm(CD, "cdadam", "sign", grid, **both),
            arm(ONEBIT, "onebit-adam", "sign", grid, warmup_rounds=rounds * 15 // 100, **both),
            arm(EF21, "ef21", "sign", steps, **common),
        ),
        (norm, sent),
        (
            at_most(norm, CD, DENSE, 10),
            less(sent, CD, DENSE),
            less(sent, CD, ONEBIT),
            less(norm, CD, ONEBIT),
        ),
    )


PAPER = Paper(
    "cdadam",
    "Wang, Lin, Chen 2022, arXiv:2111.00705",
    (
        Claim(
            "cdadam-logistic",
            "CDAdam goes as far as AMSGrad at far fewer bytes, and needs fewer than 1-bit Adam.",
            "The paper has LIBSVM sets and networks on CIFAR-10.",
            _study,
        ),
    ),
)
