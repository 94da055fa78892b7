"""The rules that claims are made of: one method beside another.

A rule holds if it does of the means over seeds, and by itself in more than half of the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from flowerpress.simulations.reproduce.claims import Column, Finding, Rule, Table


def less(column: Column, arm: str, than: str, times: float = 1.0) -> Rule:
    """Return the rule that `arm` has at least `times` less of a column than another.

    Examples
    --------
    >>> from flowerpress.simulations.reproduce.claims import Row
    >>> loss = Column("loss", lambda run: 0.0)
    >>> found = {"a": (1.0, 3.0), "b": (5.0, 5.0)}
    >>> rows = {name: Row(None, False, {"loss": values}) for name, values in found.items()}
    >>> rule = less(loss, "a", "b", 2)
    >>> rule.text
    'loss: a has at least 2 times less than b'
    >>> rule.check(Table(rows))
    Finding(held=False, said='2 against 5: 2.5 times; in 1 of 2 seeds')
    """
    often = f"at least {times:g} times less" if times != 1 else "less"

    def holds(a: float, b: float) -> bool:
        return a < b if times == 1 else times * a <= b and a < b

    return _beside(f"{column.name}: {arm} has {often} than {than}", column, arm, than, holds)


def at_most(column: Column, arm: str, than: str, times: float) -> Rule:
    """Return the rule that `arm` has at most `times` as much of a column as another."""
    text = f"{column.name}: {arm} has at most {times:g} times as much as {than}"
    return _beside(text, column, arm, than, lambda a, b: a <= times * b and a < column.worst)


def near(column: Column, arm: str, than: str, points: float) -> Rule:
    """Return the rule that `arm` loses at most some points of a column, more of which is better.

    It fails where the other has no figure: then there is nothing to lose.
    """
    text = f"{column.name}: {arm} is at most {points:g} below {than}"

    def holds(a: float, b: float) -> bool:
        return b - a <= points and min(a, b) > column.worst

    return _beside(text, column, arm, than, holds)


def more(column: Column, arm: str, than: str, points: float = 0.0) -> Rule:
    """Return the rule that `arm` has more of a column than another, by some points."""
    by = f"at least {points:g} " if points else ""
    text = f"{column.name}: {arm} is {by}above {than}"
    return _beside(text, column, arm, than, lambda a, b: a - b >= points and a > b)


def below(column: Column, arm: str, most: float) -> Rule:
    """Return the rule that a figure is at most a number."""

    def check(table: Table) -> Finding:
        value = table.mean(arm, column.name)
        return Finding(value <= most, column.write(value))

    return Rule(f"{column.name}: {arm} has at most {most:g}", check)


def above(column: Column, arm: str, least: float) -> Rule:
    """Return the rule that a figure is at least a number; it fails where a run has none."""

    def check(table: Table) -> Finding:
        value = table.mean(arm, column.name)
        return Finding(value >= least and math.isfinite(value), column.write(value))

    return Rule(f"{column.name}: {arm} has at least {least:g}", check)


def _beside(
    text: str, column: Column, arm: str, than: str, holds: Callable[[float, float], bool]
) -> Rule:
    def check(table: Table) -> Finding:
        a, b = table.mean(arm, column.name), table.mean(than, column.name)
        pairs = list(
            zip(table.values(arm, column.name), table.values(than, column.name), strict=True)
        )
        seeds = sum(holds(x, y) for x, y in pairs)
        said = f"{column.write(a)} against {column.write(b)}"
        if column.less and 0 < a < column.worst and b < column.worst:
            said += f": {b / a:.3g} times"
        held = holds(a, b) and 2 * seeds > len(pairs)
        return Finding(held, f"{said}; in {seeds} of {len(pairs)} seeds")

    return Rule(text, check)
