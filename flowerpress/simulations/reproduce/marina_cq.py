"""MARINA with correlated quantization: Panferov et al. 2024, arXiv:2401.05518."""

from __future__ import annotations

from typing import Any

from flowerpress.simulations.reproduce.claims import (
    Claim,
    Column,
    Finding,
    Paper,
    Rule,
    Study,
    Table,
)
from flowerpress.simulations.reproduce.figures import bytes_until, rounds_until
from flowerpress.simulations.reproduce.marina_arms import (
    ALIKE,
    AUTHORS,
    CQ,
    DSGD,
    GD,
    IQ,
    IQ_AUTHORS,
    PERMK,
    RANDK,
    Problem,
    paper_bits,
)
from flowerpress.simulations.reproduce.rules import at_most, less

_ALL = (GD, PERMK, RANDK, CQ, ALIKE, AUTHORS, IQ, IQ_AUTHORS, DSGD)
_NORM = "gradient_norm_sq"
_QUICK = (GD, PERMK, CQ, ALIKE, AUTHORS, IQ, IQ_AUTHORS, DSGD)
_MANY = (GD, PERMK, ALIKE, AUTHORS, IQ, IQ_AUTHORS)
_CONSTANTS = (
    "CQ's and independent quantization's step sizes with three constants A of the compressors' "
    "collection: for any workers (d - 1) / n, for workers that are alike d / n^2, and the authors' "
    "d / (4 n^2), of independent ones (d - 1) / n and d / (4 n)"
)


def _quadratics(
    noise: float, base: int, quick: bool, sizes: tuple[int, ...] = (2, 10, 50)
) -> tuple[list[Problem], float]:
    """Return the problems over n, of which there is one when quick, and the target."""
    options: dict[str, Any] = {"dim": 32, "noise": noise}
    if quick:
        sizes, base = (10,) if 10 in sizes else (40,), base // 4
    target = 1e-3 if quick else 1e-4
    return [Problem("quadratic", options, 32, n, base) for n in sizes], target


def as_theory(bits: Column, problem: Problem, arm: str, than: str, label: str) -> Rule:
    """Return the rule that two methods' bytes are to each other about as theory has it."""

    def check(table: Table) -> Finding:
        by_theory = problem.cost(than) / problem.cost(arm)
        measured = table.mean(than + label, bits.name) / table.mean(arm + label, bits.name)
        said = f"{measured:.3g} times, by theory {by_theory:.3g}"
        return Finding(abs(measured / by_theory - 1) <= 0.25, said)

    text = f"{bits.name}: {than + label} over {arm + label} is within 25 % of the theory's ratio"
    return Rule(text, check)


def _alike(quick: bool) -> Study:
    return _of(*_quadratics(0.0, 110, quick), _QUICK if quick else _ALL)


def _many(quick: bool) -> Study:
    return _of(*_quadratics(0.0, 110, quick, (100, 200, 400)), _MANY)


def _of(problems: list[Problem], target: float, used: tuple[str, ...]) -> Study:
    rounds, sent = rounds_until(_NORM, target), bytes_until(_NORM, target)
    bits = paper_bits(32, _NORM, target)
    rules: list[Rule] = []
    for problem in problems:
        label = f", n = {problem.n}"
        if problem.n < 10:  # correlation needs a cohort
            continue
        rules += [
            at_most(rounds, PERMK + label, GD + label, 1.0),
            less(sent, PERMK + label, ALIKE + label),
            less(sent, ALIKE + label, IQ + label, 1.5),
            as_theory(bits, problem, ALIKE, IQ, label),
            as_theory(bits, problem, AUTHORS, IQ_AUTHORS, label),
        ]
    return Study(
        f"the tridiagonal quadratic, d = 32, all workers alike, steps and coins by theory; kB and "
        f"rounds until |grad f|^2 is {target:g}.",
        tuple(p.arm(method, f", n = {p.n}") for p in problems for method in used),
        (sent, rounds, bits),
        tuple(rules),
    )


def _unlike(quick: bool) -> Study:
    columns, arms, rules = [], [], []
    for noise, base in ((0.05, 130), (0.3, 220)):
        problems, target = _quadratics(noise, base, quick)
        sent = bytes_until(_NORM, target)
        columns = [sent, rounds_until(_NORM, target), paper_bits(32, _NORM, target)]
        for problem in problems if quick else problems[1:]:
            label = f", n = {problem.n}, s = {noise:g}"
            used = (CQ, AUTHORS, IQ, IQ_AUTHORS) if quick else _ALL
            arms += [problem.arm(method, label) for method in used]
            rules += [
                less(sent, AUTHORS + label, IQ_AUTHORS + label, 1.5 if noise < 0.1 else 1.0),
                at_most(sent, CQ + label, IQ + label, 1.05),
            ]
    return Study(
        f"the same with workers that differ: A_i and b_i have relative noise s; until |grad f|^2 "
        f"is {target:g}.",
        tuple(arms),
        tuple(columns),
        tuple(rules),
    )


def _logistic(quick: bool) -> Study:
    target = 1e-3 if quick else 1e-5
    options: dict[str, Any] = {"lam": 0.1, "partition": "iid", "equal_shards": 10}
    problem = Problem("breast-cancer", options, 30, 10, 40 if quick else 80)
    sent, rounds = bytes_until(_NORM, target), rounds_until(_NORM, target)
    return Study(
        "logistic regression with the non-convex regularizer (0.1) on breast-cancer, ten workers "
        f"with equal random shards, steps and coins by theory; until |grad f|^2 is {target:g}.",
        tuple(problem.arm(method) for method in (_QUICK if quick else _ALL)),
        (sent, rounds),
        (
            less(sent, AUTHORS, IQ_AUTHORS, 1.5),
            at_most(sent, CQ, IQ, 1.05),
            less(sent, AUTHORS, GD),
        ),
    )


PAPER = Paper(
    "marina-cq",
    "Panferov, Demidovich, Rammal, Richtarik 2024, arXiv:2401.05518",
    (
        Claim(
            "marina-cq-alike",
            "Where workers are alike, MARINA needs fewer bits with correlated than with "
            "independent quantization, as many times fewer as theory says, and PermK fewer still.",
            f"The paper's quadratic. {_CONSTANTS}. Of d = 32 a packet is "
            "mostly header, so bits are also counted as in the paper.",
            _alike,
        ),
        Claim(
            "marina-cq-many",
            "The same holds of hundreds of workers.",
            "The paper's quadratic, up to its n.",
            _many,
        ),
        Claim(
            "marina-cq-unlike",
            "Correlated quantization is never worse than independent, and better where workers "
            "differ a little.",
            f"{_CONSTANTS}. Of these only the first is proven where workers differ, and it is the "
            "same for both, so that theory's step gains nothing by correlation.",
            _unlike,
        ),
        Claim(
            "marina-cq-logistic",
            "The same holds of logistic regression.",
            "The authors' notebooks have phishing and w8a; breast-cancer has 569 rows.",
            _logistic,
        ),
    ),
)
