"""Measures claims: step sizes on some seeds, then the table and the verdict on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowerpress.simulations.compare.runs import broken, key, run_all
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.means import mean
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.reproduce.claims import (
    TUNING,
    UNMEASURED,
    Arm,
    Claim,
    Finding,
    Paper,
    Row,
    Study,
    Table,
    verdict,
)

SEEDS, QUICK_SEEDS = (2, 3, 4), (2, 3)


@dataclass(frozen=True)
class Measured:
    """A claim, its table and its verdict.

    Attributes
    ----------
    table : Table or None
        None: the claim could not be measured.
    findings : tuple of Finding
        One for each rule.
    failures : tuple of str
        Why it could not be measured.
    """

    paper: Paper
    claim: Claim
    study: Study
    tuned_on: tuple[int, ...]
    seeds: tuple[int, ...]
    table: Table | None
    findings: tuple[Finding, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """What the findings come to."""
        return UNMEASURED if self.table is None else verdict(list(self.findings))

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values; what is not finite as text."""
        rows = self.table.rows if self.table else {}
        return {
            "paper": self.paper.name,
            "citation": self.paper.citation,
            "claim": self.claim.name,
            "says": self.claim.says,
            "setup": self.study.setup,
            "differs": self.claim.differs,
            "tuned_on": list(self.tuned_on),
            "seeds": list(self.seeds),
            "verdict": self.verdict,
            "failures": list(self.failures),
            "rules": [
                {"rule": rule.text, "held": found.held, "measured": found.said}
                for rule, found in zip(self.study.rules, self.findings, strict=False)
            ],
            "rows": {
                name: {
                    "lr": row.lr,
                    "at_edge_of_grid": row.at_edge,
                    "values": {k: [_json(v) for v in vs] for k, vs in row.values.items()},
                    "experiment": self._experiment(name, row),
                }
                for name, row in rows.items()
            },
        }

    def _experiment(self, name: str, row: Row) -> dict[str, Any]:
        """Return what was run for a row on the first seed."""
        arm = next(arm for arm in self.study.arms if arm.name == name)
        lr = row.lr if arm.grid and not isinstance(row.lr, str) else None
        return asdict(arm.experiment(self.seeds[0], lr))


def _json(value: float) -> float | str:
    return value if abs(value) < float("inf") else str(value)


def measure(
    claims: Sequence[tuple[Paper, Claim]],
    *,
    quick: bool = False,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    folder: Path | None = None,
    on_stage: Callable[[str, int], None] | None = None,
    on_run: Callable[[Outcome], None] | None = None,
) -> list[Measured]:
    """Measure claims.

    Parameters
    ----------
    claims : sequence of (Paper, Claim)
        See `find`.
    quick : bool, default False
        Whether in minutes: smaller problems, one tuning seed, two seeds for the verdict.
    seeds : sequence of int, optional
        For the verdict; none that steps are tuned on.
    jobs, folder
        As of `run_all`.
    on_stage : callable, optional
        Called with what begins, and how many runs it has.
    on_run : callable, optional
        Called with each run's outcome as it ends.

    Raises
    ------
    ValueError
        A seed is one that step sizes are tuned on, or there is none.
    """
    tuned_on = TUNING[:1] if quick else TUNING
    given = tuple(seeds) if seeds is not None else QUICK_SEEDS if quick else SEEDS
    if not given:
        raise ValueError("a verdict needs a seed")
    if both := sorted(set(given) & set(TUNING)):
        raise ValueError(f"seed {both[0]} is one that step sizes are tuned on: give another")
    studies = [claim.study(quick) for _, claim in claims]
    arms = [(study, arm) for study in studies for arm in study.arms]

    def play(stage: str, experiments: list[Experiment]) -> dict[str, Outcome]:
        each = {key(experiment): experiment for experiment in experiments}
        if on_stage:
            on_stage(stage, len(each))
        found = run_all(list(each.values()), jobs=jobs, folder=folder, on_done=on_run)
        return dict(zip(each, found, strict=True))

    trials = [
        a.experiment(s, lr) for _, a in arms if len(a.grid) > 1 for lr in a.grid for s in tuned_on
    ]
    tried = play("step sizes", trials)
    chosen = {id(arm): _best(study, arm, tuned_on, tried) for study, arm in arms}
    finals = [arm.experiment(seed, chosen[id(arm)]) for _, arm in arms for seed in given]
    played = play("verdicts", finals)
    return [
        _measured(paper, claim, study, tuned_on, given, chosen, played)
        for (paper, claim), study in zip(claims, studies, strict=True)
    ]


def _best(
    study: Study, arm: Arm, seeds: tuple[int, ...], tried: dict[str, Outcome]
) -> float | None:
    """Return the step size whose mean of the first column is the best; the smallest of equals."""
    if len(arm.grid) < 2:
        return arm.grid[0] if arm.grid else None
    column = study.columns[0]

    def cost(lr: float) -> float:
        runs = [tried[key(arm.experiment(seed, lr))] for seed in seeds]
        found = mean([column.read(run) for run in runs])
        return found if column.less else -found

    return min(sorted(arm.grid), key=cost)


def _measured(
    paper: Paper,
    claim: Claim,
    study: Study,
    tuned_on: tuple[int, ...],
    seeds: tuple[int, ...],
    chosen: dict[int, float | None],
    played: dict[str, Outcome],
) -> Measured:
    rows, failures = {}, []
    for arm in study.arms:
        lr = chosen[id(arm)]
        runs = [played[key(arm.experiment(seed, lr))] for seed in seeds]
        failures += [f"{arm.name}: {run.reason}" for run in runs if broken(run)]
        values = {c.name: tuple(c.read(run) for run in runs) for c in study.columns}
        at_edge = len(arm.grid) > 1 and lr in {min(arm.grid), max(arm.grid)}
        steps = {run.experiment.strategy_options.get("lr") for run in runs}
        rows[arm.name] = Row(steps.pop() if len(steps) == 1 else "theory", at_edge, values)
    if failures:
        unique = tuple(dict.fromkeys(failures))
        return Measured(paper, claim, study, tuned_on, seeds, None, failures=unique)
    table = Table(rows)
    findings = tuple(rule.check(table) for rule in study.rules)
    return Measured(paper, claim, study, tuned_on, seeds, table, findings)
