"""What a comparison's runs did over time: the mean and the range over seeds, as lines to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flowerpress.simulations.compare.targets import Cost, Link, Metric, costs
from flowerpress.simulations.means import mean
from flowerpress.simulations.outcome import Outcome

AXES = {
    "rounds": "rounds",
    "up": "bytes up, all clients",
    "total": "bytes up and down, all clients",
    "seconds": "modelled seconds",
}
"""What a metric is drawn against: fields of `Cost`, and what to write at the axis."""


@dataclass(frozen=True)
class Curve:
    """A metric over the course of a method's runs.

    Attributes
    ----------
    x : list of Cost
        What had been used up at each point, mean over seeds.
    mean, low, high : list of float
        Of the metric over seeds; NaN where it is not finite in one of them.
    """

    x: list[Cost]
    mean: list[float]
    low: list[float]
    high: list[float]


def metrics_of(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the names of the metrics that are single numbers, as runs measured them.

    Of training it is the loss alone, and that only where the task has no evaluation.
    """
    found: dict[str, None] = {}
    for record in (record for outcome in outcomes for record in outcome.history):
        for source in (record.metrics, record.evaluate):
            found |= {k: None for k, v in source.items() if isinstance(v, int | float)}
    return list(found) or ["loss"]


def curve(outcomes: Sequence[Outcome], metric: Metric, link: Link) -> Curve:
    """Return the curve of a method's runs: at the rounds that all of them measured the metric in.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of one method, one a seed. Those without any round are left out.
    metric : Metric
    link : Link
        What modelled seconds are of.
    """
    lines = []
    for outcome in outcomes:
        points = zip(costs(outcome, link), metric.series(outcome), strict=True)
        line = {cost.rounds: (cost, value) for cost, value in points if value is not None}
        lines += [line] if line else []
    shared = sorted(set.intersection(*map(set, lines))) if lines else []
    x = [_mean_cost([line[r][0] for line in lines]) for r in shared]
    values = [[line[r][1] for line in lines] for r in shared]
    return Curve(
        x,
        [mean(each) if _finite(each) else math.nan for each in values],
        [min(each) if _finite(each) else math.nan for each in values],
        [max(each) if _finite(each) else math.nan for each in values],
    )


def _mean_cost(each: Sequence[Cost]) -> Cost:
    return Cost(*(mean(column) for column in zip(*each, strict=True)))


def _finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))
