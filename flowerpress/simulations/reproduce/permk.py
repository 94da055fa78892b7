"""Hessian variance and PermK: Szlendak, Tyurin, Richtarik 2022, arXiv:2110.03300."""

from __future__ import annotations

from itertools import pairwise

from flowerpress.simulations.reproduce.claims import Claim, Finding, Paper, Rule, Study, Table
from flowerpress.simulations.reproduce.figures import bytes_until, rounds_until
from flowerpress.simulations.reproduce.marina_arms import GD, PERMK, RANDK, Problem
from flowerpress.simulations.reproduce.rules import at_most, less


def _study(quick: bool) -> Study:
    levels = (0.0, 0.3) if quick else (0.0, 0.05, 0.1, 0.2, 0.8)
    target = 1e-3 if quick else 1e-4
    sent, rounds = (
        bytes_until("gradient_norm_sq", target),
        rounds_until("gradient_norm_sq", target),
    )
    arms = []
    for level in levels:
        base = (30 if quick else 120) + round((100 if quick else 500) * level)
        problem = Problem("quadratic", {"dim": 32, "noise": level}, 32, 10, base)
        arms += [problem.arm(method, f", s = {level:g}") for method in (GD, PERMK, RANDK)]

    def gain(table: Table, level: float) -> float:
        values = (table.mean(f"{m}, s = {level:g}", sent.name) for m in (RANDK, PERMK))
        randk, permk = values
        return randk / permk

    def shrinks(table: Table) -> Finding:
        found = [gain(table, level) for level in levels]
        said = ", ".join(f"{each:.3g}" for each in found)
        return Finding(all(a > b for a, b in pairwise(found)), said)

    alike = f", s = {levels[0]:g}"
    return Study(
        f"the tridiagonal quadratic, d = 32, ten workers whose A_i and b_i have relative noise s, "
        f"steps by theory, K = d / n; until |grad f|^2 is {target:g}.",
        tuple(arms),
        (sent, rounds),
        (
            at_most(rounds, PERMK + alike, GD + alike, 1.0),
            less(sent, PERMK + alike, RANDK + alike, 2.5),
            Rule("kB: what PermK gains on RandK shrinks as s grows", shrinks),
        ),
    )


PAPER = Paper(
    "permk",
    "Szlendak, Tyurin, Richtarik 2022, arXiv:2110.03300",
    (
        Claim(
            "permk-variance",
            "Where the workers' Hessians are alike PermK needs gradient descent's rounds, sqrt(n) "
            "times fewer bits than RandK, and less of that the more they differ.",
            "The paper has d = 1000 and n of 10 to 10,000.",
            _study,
        ),
    ),
)
