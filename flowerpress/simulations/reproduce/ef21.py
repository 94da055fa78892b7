"""EF21: Richtarik, Sokolov, Fatkhullin 2021, arXiv:2106.05203."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowerpress.simulations.reproduce.arms import arm, powers
from flowerpress.simulations.reproduce.claims import Claim, Finding, Paper, Rule, Study, Table
from flowerpress.simulations.reproduce.figures import bytes_until, growth, last
from flowerpress.simulations.reproduce.rules import less

# The three-clients example: L, the root mean square of the L_i, and the strong convexity.
_SLOPES = np.array([[-3.0, 2.0, 2.0], [2.0, -3.0, 2.0], [2.0, 2.0, -3.0]])
_EIGENVALUES = np.linalg.eigvalsh(2 * _SLOPES.T @ _SLOPES / 3 + np.eye(3) / 2)
_L, _MU, _L_I = float(_EIGENVALUES[-1]), float(_EIGENVALUES[0]), 2 * 17.0 + 0.5
_THETA = 1 - np.sqrt(2 / 3)  # top-1 of three coordinates
_STEP = float(1 / (_L + _L_I * np.sqrt(2 * (2 / 3) / _THETA**2)))


def _example(quick: bool) -> Study:
    rounds = 600 if quick else 3000
    common: dict[str, Any] = {"task": "divergence", "clients": 3, "rounds": rounds, "lr": _STEP}
    common["max_scale"] = 0.0  # what grows is not to be refused
    common["task_options"] = {"example": "three-clients"}
    loss = growth("loss", "f, end / start")

    def theorem(table: Table) -> Finding:
        value, bound = table.mean("EF21", loss.name), (1 - _STEP * _MU) ** rounds
        return Finding(value <= bound, f"{value:.3g}, theorem {bound:.3g}")

    def diverges(table: Table) -> Finding:
        value, exact = table.mean("no memory", loss.name), (1 + 11 * _STEP / 6) ** (2 * rounds)
        return Finding(abs(value / exact - 1) < 0.01, f"{value:.4g}, by the formula {exact:.4g}")

    return Study(
        f"f_i(x) = (a_i' x)^2 + |x|^2 / 4 in space, three workers, top-1, exact gradients, "
        f"{rounds} rounds of the step of EF21's theorem, {_STEP:.3g}.",
        (
            arm("no memory", "dsgd", "topk:k=1", **common),
            arm("EF14", "ef14", "topk:k=1", **common),
            arm("EF21", "ef21", "topk:k=1", **common),
        ),
        (loss,),
        (
            Rule(
                "without memory x grows by 1 + 11 lr / 6 a round, so f by its square, within 1 %",
                diverges,
            ),
            Rule("EF21 is below its theorem's bound, (1 - lr mu)^T", theorem),
            less(loss, "EF14", "no memory", 1e3),
        ),
    )


def _logistic(quick: bool) -> Study:
    clients, rounds = (10, 500) if quick else (20, 3000)
    common: dict[str, Any] = {"task": "breast-cancer", "clients": clients, "rounds": rounds}
    options: dict[str, Any] = {"partition": "contiguous", "equal_shards": clients, "x0": "normal"}
    common["task_options"] = options
    target = 1e-4 if quick else 1e-6
    norm, sent = (
        last("gradient_norm_sq", "|grad f|^2"),
        bytes_until("gradient_norm_sq", target),
    )
    return Study(
        f"logistic regression with the non-convex regularizer (0.1) on breast-cancer, {clients} "
        f"workers in the order of the rows, top-2 of 30, exact gradients, {rounds} rounds; kB "
        f"until |grad f|^2 is {target:g}.",
        (
            arm("gradient descent", "fedavg", None, powers(-1, 2), **common),
            arm("EF14", "ef14", "topk:k=2", powers(-3, 0) if quick else powers(-5, 0), **common),
            arm("EF21", "ef21", "topk:k=2", powers(-3, 0) if quick else powers(-5, 0), **common),
        ),
        (norm, sent),
        (less(norm, "EF21", "EF14", 10), less(sent, "EF21", "gradient descent", 2)),
    )


PAPER = Paper(
    "ef21",
    "Richtarik, Sokolov, Fatkhullin 2021, arXiv:2106.05203",
    (
        Claim(
            "ef21-divergence",
            "Where top-1 without memory goes away from the solution, EF21 converges linearly.",
            "The example is that of Beznosikov et al. 2020, as the paper has it.",
            _example,
        ),
        Claim(
            "ef21-logistic",
            "EF21 goes on to high accuracy where EF14 stalls, at fewer bits than gradient descent.",
            "The paper has four LIBSVM sets of 8,000 to 50,000 rows, and multiples of the "
            "theorem's step; its floor of EF14 is that of large steps.",
            _logistic,
        ),
    ),
)
