"""EF21-SGDM: Fatkhullin, Tyurin, Richtarik 2023, arXiv:2305.15155."""

from __future__ import annotations

from typing import Any

from flowerpress.simulations.reproduce.arms import arm, powers
from flowerpress.simulations.reproduce.claims import Arm, Claim, Paper, Study
from flowerpress.simulations.reproduce.figures import tail
from flowerpress.simulations.reproduce.rules import above, less

_IDEAL = "flowerpress.simulations.reproduce.ideal"
_NORM = tail("gradient_norm_sq", "|grad f|^2")


def _example(quick: bool) -> Study:
    sizes = (1, 10) if quick else (1, 10, 100)
    rounds, lr = 800 if quick else 3000, 0.01
    momentum = 10 * lr

    def of(n: int) -> list[Arm]:
        common: dict[str, Any] = {"clients": n, "rounds": rounds, "lr": lr}
        here: dict[str, Any] = {**common, "task": "divergence"}
        sgd = [] if quick else [arm(f"SGD, n = {n}", "fedavg", **here)]
        return [
            *sgd,
            arm(f"EF14-SGD, n = {n}", "ef14", "topk:k=1", **here),
            arm(f"EF21-SGD-ideal, n = {n}", "fedavg", task=_IDEAL, **common),
            arm(f"EF21-SGD, n = {n}", "ef21", "topk:k=1", **here),
            arm(f"EF21-SGDM, n = {n}", "ef21-sgdm", "topk:k=1", momentum=momentum, **here),
            arm(f"EF21-SGD2M, n = {n}", "ef21-sgd2m", "topk:k=1", momentum=momentum, **here),
        ]

    most = sizes[-1]
    return Study(
        f"f(x) = |x|^2 / 2 in the plane, noise with sigma = 1 of which top-1 is biased, batch 1, "
        f"top-1, {rounds} rounds, lr {lr:g}, momentum (weight of the new gradient) {momentum:g}; "
        "means of the second half.",
        tuple(each for n in sizes for each in of(n)),
        (_NORM,),
        (
            *(above(_NORM, f"EF21-SGD-ideal, n = {n}", 1 / 60) for n in sizes),
            *(less(_NORM, f"EF21-SGDM, n = {n}", f"EF21-SGD, n = {n}", 1.5) for n in sizes),
            less(_NORM, f"EF21-SGD2M, n = {most}", f"EF21-SGDM, n = {most}"),
            less(_NORM, f"EF21-SGD2M, n = {most}", "EF21-SGD2M, n = 1", most / 2),
        ),
    )


def _batch_one(quick: bool) -> Study:
    rounds, grid = (300, powers(-5, -1)) if quick else (2000, powers(-8, -1))
    common: dict[str, Any] = {"task": "breast-cancer", "clients": 10, "rounds": rounds}
    common["task_options"] = {"partition": "contiguous", "lam": 1e-3, "batch_size": 1}
    return Study(
        f"logistic regression with the non-convex regularizer (0.001) on breast-cancer, 10 workers "
        f"in the order of the rows, batch 1, top-2 of 30, {rounds} rounds, momentum 0.1; means "
        "of the second half.",
        (
            arm("EF14-SGD", "ef14", "topk:k=2", grid, **common),
            arm("EF21-SGD", "ef21", "topk:k=2", grid, **common),
            arm("EF21-SGDM", "ef21-sgdm", "topk:k=2", grid, momentum=0.1, **common),
            arm("EF21-SGD2M", "ef21-sgd2m", "topk:k=2", grid, momentum=0.1, **common),
        ),
        (_NORM,),
        (
            less(_NORM, "EF21-SGDM", "EF21-SGD", 2),
            less(_NORM, "EF21-SGDM", "EF14-SGD"),
            less(_NORM, "EF21-SGD2M", "EF21-SGD", 2),
        ),
    )


PAPER = Paper(
    "ef21-sgdm",
    "Fatkhullin, Tyurin, Richtarik 2023, arXiv:2305.15155",
    (
        Claim(
            "ef21-sgdm-divergence",
            "With noise, EF21 stops at a floor that more workers do not lower; momentum on the "
            "workers removes it, and a second momentum comes closer still.",
            "The theorem is of the idealised method, which knows the exact gradient; what the "
            "method itself does is measured, not proven.",
            _example,
        ),
        Claim(
            "ef21-sgdm-batch-1",
            "At batch 1 EF21-SGDM reaches a smaller gradient than EF21-SGD and EF14-SGD.",
            "The paper has MNIST and real-sim with top-10, up to 100 workers, and NEOLITHIC "
            "besides.",
            _batch_one,
        ),
    ),
)
