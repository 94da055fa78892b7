"""Claims of papers: what is measured for one, what must hold, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.means import mean
from flowerpress.simulations.outcome import Outcome

HOLDS, IN_PART, NOT = "holds", "holds in part", "does not hold"
UNMEASURED = "not measured"
TUNING = (0, 1)
"""Seeds on which step sizes are chosen; no verdict is on these."""


@dataclass(frozen=True)
class Arm:
    """A row of a claim's table: one method, for any seed.

    Attributes
    ----------
    name : str
    make : callable
        ``make(seed)`` returns the experiment; the seed may decide its constants, not only its
        draws.
    grid : tuple of float
        Step sizes, of which the best on the tuning seeds is taken. Empty: the experiment has its
        own.
    """

    name: str
    make: Callable[[int], Experiment]
    grid: tuple[float, ...] = ()

    def experiment(self, seed: int, lr: float | None = None) -> Experiment:
        """Return the experiment of a seed, with a step size of the grid."""
        made = replace(self.make(seed), seed=seed)
        if lr is None:
            return made
        return replace(made, strategy_options={**made.strategy_options, "lr": lr})


@dataclass(frozen=True)
class Column:
    """A column of a claim's table: one figure of a run.

    Attributes
    ----------
    name : str
    of : callable
        ``of(run)`` returns the figure; NaN where there is none.
    less : bool
        Whether less is better.
    form : str
        How it is written.
    worst : float
        What stands for a run without the figure, or one that has diverged where `less`.
    """

    name: str
    of: Callable[[Outcome], float]
    less: bool = True
    form: str = "{:.3g}"
    worst: float = math.inf

    def read(self, run: Outcome) -> float:
        """Return a run's figure."""
        if not run.history or (self.less and run.status != "done"):
            return self.worst
        value = self.of(run)
        return self.worst if math.isnan(value) else value

    def write(self, value: float) -> str:
        """Return a figure as text."""
        return self.form.format(value) if math.isfinite(value) else "none"


class Row(NamedTuple):
    """What was measured of one method.

    Attributes
    ----------
    lr : float, str or None
        The step size that was chosen, or that the method has: "theory" also where it is another
        for each seed.
    at_edge : bool
        Whether it is the smallest or the largest of its grid.
    values : mapping of str to tuple of float
        Figures by column, one for each seed.
    """

    lr: float | str | None
    at_edge: bool
    values: Mapping[str, tuple[float, ...]]


class Table(NamedTuple):
    """What was measured for a claim: rows by method."""

    rows: Mapping[str, Row]

    def values(self, arm: str, column: str) -> tuple[float, ...]:
        """Return a method's figures, one for each seed."""
        return self.rows[arm].values[column]

    def mean(self, arm: str, column: str) -> float:
        """Return their mean."""
        return mean(self.values(arm, column))


class Finding(NamedTuple):
    """Whether a rule holds, and the figures that say so."""

    held: bool
    said: str


class Rule(NamedTuple):
    """What must hold of a table.

    Attributes
    ----------
    text : str
        The rule as a sentence.
    check : callable
        ``check(table)`` returns a `Finding`.
    """

    text: str
    check: Callable[[Table], Finding]


@dataclass(frozen=True)
class Study:
    """How a claim is measured.

    Attributes
    ----------
    setup : str
        Problem, workers, rounds, in words.
    arms, columns, rules : tuple
        Rows and columns of the table, and what must hold of it. Step sizes are chosen by the first
        column.
    """

    setup: str
    arms: tuple[Arm, ...]
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Attributes
    ----------
    name : str
    says : str
        The claim in one sentence, in our words.
    differs : str
        What is otherwise than in the paper.
    study : callable
        ``study(quick)`` returns how it is measured, in minutes or whole.
    """

    name: str
    says: str
    differs: str
    study: Callable[[bool], Study]


@dataclass(frozen=True)
class Paper:
    """A paper and its claims."""

    name: str
    citation: str
    claims: tuple[Claim, ...]


def verdict(findings: list[Finding]) -> str:
    """Return what the findings on a claim's rules come to.

    Examples
    --------
    >>> verdict([Finding(True, ""), Finding(False, "")])
    'holds in part'
    """
    held = sum(finding.held for finding in findings)
    if not findings:
        return UNMEASURED
    return HOLDS if held == len(findings) else IN_PART if held else NOT
