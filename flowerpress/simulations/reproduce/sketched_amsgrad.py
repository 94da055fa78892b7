"""SketchedAMSGrad: Xian, Huang, Huang 2022, arXiv:2210.07454."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from flowerpress.simulations.reproduce.arms import Grid, arm, vision
from flowerpress.simulations.reproduce.claims import Claim, Paper, Study
from flowerpress.simulations.reproduce.figures import ACCURACY, UP, tail
from flowerpress.simulations.reproduce.rules import at_most, less, more, near

DENSE, AMS, SGD = "AMSGrad", "SketchedAMSGrad", "Sketched-SGD"


def _vision(quick: bool) -> Study:
    common, said = vision(quick, 120)
    sketch, k = ("countsketch:columns=20", 0.05) if quick else ("countsketch:columns=200", 0.01)
    dense: Grid = (0.02, 0.06, 0.2) if quick else (0.001, 0.003, 0.01)
    ams: Grid = (0.006, 0.02, 0.06) if quick else (0.001, 0.003, 0.01, 0.03)
    sgd: Grid = (0.2, 0.6, 2.0) if quick else (0.05, 0.1, 0.2, 0.4)
    own: dict[str, Any] = {"k_ratio": k, "candidates": 2, **common}
    moments: dict[str, Any] = {"beta1": 0.0, "beta2": 0.9, "eps": 1e-4}
    return Study(
        f"{said}, random shards; {sketch} "
        f"for both sketched methods, {100 * k:g} % of the coordinates a round.",
        (
            arm(DENSE, "amsgrad", None, dense, **common),
            arm(AMS, "sketched-amsgrad", sketch, ams, **moments, **own),
            arm(SGD, "sketched-sgd", sketch, sgd, momentum=0.0, **own),
        ),
        (ACCURACY, UP),
        (
            more(ACCURACY, AMS, SGD),
            near(ACCURACY, AMS, DENSE, 2.0),
            less(UP, AMS, DENSE, 2 if quick else 10),
        ),
    )


def _speed(quick: bool) -> Study:
    sizes, rounds = ((1, 4, 16), 150) if quick else ((1, 4, 16, 64), 600)
    norm = tail("gradient_norm_sq", "|grad f|^2")
    options: dict[str, Any] = {"dim": 64, "gradient_noise": 1.0, "convexity": 0.01}
    own: dict[str, Any] = {"k": 8, "candidates": 2, "beta1": 0.0, "beta2": 0.9, "eps": 1e-3}
    return Study(
        f"the tridiagonal quadratic, d = 64, all workers alike, noise of norm 1 in each gradient, "
        f"{rounds} rounds, lr 0.01, 8 coordinates a round; means of the second half.",
        tuple(
            arm(
                f"n = {n}",
                "sketched-amsgrad",
                "countsketch:columns=16",
                task="quadratic",
                task_options=options,
                clients=n,
                rounds=rounds,
                lr=0.01,
                min_train_nodes=1,
                **own,
            )
            for n in sizes
        ),
        (norm,),
        tuple(less(norm, f"n = {many}", f"n = {fewer}", 1.5) for fewer, many in pairwise(sizes)),
    )


def _lengths(quick: bool) -> Study:
    dims = (128, 512, 2048) if quick else (128, 512, 2048, 8192)
    rounds = 100 if quick else 300
    norm, k = tail("gradient_norm_sq", "|grad f|^2", 0.1), 16
    own: dict[str, Any] = {"k": k, "candidates": 2, "beta1": 0.0, "beta2": 0.9, "eps": 1e-3}
    arms, rules = [], []
    for dim in dims:
        common: dict[str, Any] = {"task": "quadratic", "clients": 4, "rounds": rounds, "lr": 0.02}
        common |= {"task_options": {"dim": dim, "gradient_noise": 0.1}, **own}
        rows = 2 * round(0.4 * (dim - 1).bit_length()) + 1
        sketch = f"countsketch:rows={rows},columns={4 * k}"
        arms += [
            arm(f"d = {dim}", "sketched-amsgrad", sketch, **common),
            arm(f"d = {dim}, exact top-k", "sketched-amsgrad", "identity", **common),
        ]
        rules.append(at_most(norm, f"d = {dim}", f"d = {dim}, exact top-k", 1.5))
    first, most = dims[0], dims[-1]
    rules.append(
        at_most(UP, f"d = {most}", f"d = {first}", 1.3 * most.bit_length() / first.bit_length())
    )
    return Study(
        "the tridiagonal quadratic of d coordinates, 4 workers alike, noise of norm 0.1 in each "
        f"gradient, {k} coordinates a round, lr 0.02, {rounds} rounds; tables of {4 * k} columns "
        "and about 0.8 log2 d rows, beside tables in which nothing collides; means of the last "
        "tenth.",
        tuple(arms),
        (norm, UP),
        tuple(rules),
    )


PAPER = Paper(
    "sketched-amsgrad",
    "Xian, Huang, Huang 2022, arXiv:2210.07454",
    (
        Claim(
            "sketched-amsgrad-vision",
            "SketchedAMSGrad reaches more than Sketched-SGD with the same sketch, and as much as "
            "AMSGrad.",
            "The paper's networks and sets are larger; its own settings are not known to us. v "
            "starts at eps = 0.0001: at 0.01 it never moved on digits, and the method was "
            "Sketched-SGD.",
            _vision,
        ),
        Claim(
            "sketched-amsgrad-workers",
            "Its error falls as workers are added (linear speed-up).",
            "A quadratic with noise of known size stands for the paper's networks.",
            _speed,
        ),
        Claim(
            "sketched-amsgrad-lengths",
            "What a round sends grows with log d, for a fixed number k of coordinates.",
            "Rows of the table follow log d, and what is lost by collisions is measured.",
            _lengths,
        ),
    ),
)
