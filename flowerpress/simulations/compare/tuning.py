"""Step sizes, chosen on seeds that are not reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flowerpress.simulations.compare.methods import Candidate
from flowerpress.simulations.compare.targets import Link, Metric, Target
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.means import mean
from flowerpress.simulations.outcome import Outcome
from flowerpress.strategies import strategy_options

_FACTORS = (1 / 3, 1.0, 3.0)
_LONGER = 3  # times a grid grows beyond an end at which the best was found

RunAll = Callable[[Sequence[Experiment]], Sequence[Outcome]]


@dataclass(frozen=True)
class Tuned:
    """The step size that was chosen for a method.

    Attributes
    ----------
    lr : float or None
        None: no run on the tuning seeds ended well.
    scores : mapping of float to float
        The mean figure on the tuning seeds at each step size; NaN where a run did not end well.
    at_end : bool
        Whether the best is the smallest or the largest that was tried, so that there may be better.
    """

    lr: float | None
    scores: Mapping[float, float] = field(default_factory=dict)
    at_end: bool = False


@dataclass(frozen=True)
class Judge:
    """What step sizes are judged by: the first target's bytes up, and the metric's last figure."""

    metric: Metric
    target: Target | None = None

    def score(self, runs: Sequence[Outcome]) -> tuple[float, float]:
        """Return the bytes up to the target (infinite if a run missed it), and the mean figure."""
        finals = [self.metric.final(run) for run in runs]
        final = mean(finals)  # NaN where one is
        if self.target is None or math.isnan(final):
            return math.inf, final
        costs = [self.target.reached(run, Link()) for run in runs]
        up = [math.inf if cost is None else cost.up for cost in costs]
        return mean(up), final

    def best(self, scores: Mapping[float, tuple[float, float]]) -> float | None:
        """Return the best step size; None where none ended well."""
        ended = {lr: score for lr, score in scores.items() if not math.isnan(score[1])}
        if not ended:
            return None
        sign = -1 if self.metric.rising else 1
        return min(ended, key=lambda lr: (ended[lr][0], sign * ended[lr][1], lr))


def tune(
    todo: Sequence[Candidate],
    lrs: Sequence[float],
    seeds: Sequence[int],
    judge: Judge,
    run_all: RunAll,
) -> dict[str, Tuned]:
    """Choose a step size for each method.

    Parameters
    ----------
    todo : sequence of Candidate
    lrs : sequence of float
        The step sizes to look among, for all methods. Empty: a third, one and three times the
        method's own default, and on by factors of three while the best is the last one, at most
        three times.
    seeds : sequence of int
        Those to choose on.
    judge : Judge
    run_all : callable
        Runs experiments, and returns what they gave in the same order.
    """
    grids = {each.label: sorted(lrs) or _grid(each) for each in todo}
    scores: dict[str, dict[float, tuple[float, float]]] = {each.label: {} for each in todo}
    for _ in range(1 if lrs else 1 + _LONGER):
        new = {
            each.label: [lr for lr in grids[each.label] if lr not in scores[each.label]]
            for each in todo
        }
        wanted = [each.run(s, lr) for each in todo for lr in new[each.label] for s in seeds]
        found = iter(run_all(wanted))
        for each in todo:
            for lr in new[each.label]:
                scores[each.label][lr] = judge.score([next(found) for _ in seeds])
        for each in todo:
            grids[each.label] = _longer(grids[each.label], judge.best(scores[each.label]))
    return {each.label: _tuned(scores[each.label], judge) for each in todo}


def _grid(candidate: Candidate) -> list[float]:
    """Return the step sizes to begin with."""
    default = strategy_options(candidate.experiment.strategy).get("lr")
    start = float(default) if isinstance(default, int | float) else 0.1
    return [_rounded(start * factor) for factor in _FACTORS]


def _longer(grid: list[float], best: float | None) -> list[float]:
    """Return a grid with one more step size, where the best is its last or there is none."""
    if best is None or best == grid[0]:
        return [_rounded(grid[0] / 3), *grid]
    return [*grid, _rounded(grid[-1] * 3)] if best == grid[-1] else grid


def _rounded(lr: float) -> float:
    """Return 0.1, 0.3, 1, 3 and their like: two steps of about three make ten."""
    exponent = math.floor(math.log10(lr) + 1e-9)
    first = lr / 10**exponent
    return float(f"{1 if first < 2 else 3 if first < 7 else 10}e{exponent}")


def _tuned(scores: Mapping[float, tuple[float, float]], judge: Judge) -> Tuned:
    best, tried = judge.best(scores), sorted(scores)
    means = {lr: scores[lr][1] for lr in tried}
    return Tuned(best, means, best in (tried[0], tried[-1]) and len(tried) > 1)
