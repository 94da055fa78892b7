"""The table of a comparison: one row a method."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flowerpress.simulations.compare.comparison import Comparison, Result
from flowerpress.simulations.compare.curves import metrics_of
from flowerpress.simulations.compare.targets import (
    Cost,
    Link,
    Target,
    costs,
    parse_metric,
)
from flowerpress.simulations.means import mean
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.verdict import DONE

REFUSED, UNTUNED = "refused", "no step size"


@dataclass(frozen=True)
class Reached:
    """What it took to reach a target.

    Attributes
    ----------
    target : str
    seeds, of : int
        How many runs reached it, of how many.
    cost : Cost or None
        Mean of those that did; None: none did.
    """

    target: str
    seeds: int
    of: int
    cost: Cost | None


@dataclass(frozen=True)
class Row:
    """What one method reached, mean over the seeds that ended well.

    Attributes
    ----------
    label, strategy : str
    compressor : str or None
    lr : float, str or None
    lr_from : str
        "given", "preset" or "tuned"; "tuned, at the end of the grid" where there may be better.
    rounds, seeds : int
        Of a run; runs that ended well.
    status, reason : str
        "done", or what became of those that did not end well, and one sentence about it.
    mean, low, high : float
        Of the metric's last figure, see `Metric.final`.
    up, down : float
        Bytes as sent, all clients, without nodes' models that were collected.
    seconds, wall : float
        Modelled, and of this machine.
    ratio : float or None
        Times fewer bytes up than the dense method of the comparison, `Table.reference`.
    reached : tuple of Reached
    """

    label: str
    strategy: str
    compressor: str | None
    lr: float | str | None
    lr_from: str
    rounds: int
    seeds: int
    status: str
    reason: str
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    up: float = math.nan
    down: float = math.nan
    seconds: float = math.nan
    wall: float = math.nan
    ratio: float | None = None
    reached: tuple[Reached, ...] = ()


@dataclass(frozen=True)
class Table:
    """All rows: those that can be judged first, the best on top; then those that can not.

    A method that did not end well on every seed is below all that did: its mean is of its easier
    seeds.

    Attributes
    ----------
    metric : str
    rows : tuple of Row
    reference : str
        The method that ratios are to: the first one that sends whole updates; empty: there is none.
    """

    metric: str
    rows: tuple[Row, ...]
    reference: str = ""


def table(comparison: Comparison) -> Table:
    """Return the table of a comparison."""
    dense = next((r for r in comparison.results if r.candidate.dense and _ended(r)), None)
    whole = mean([each.up_training for each in _ended(dense)]) if dense else None
    rows = [_row(result, comparison, whole) for result in comparison.results]
    sign = -1 if comparison.metric.rising else 1
    whole_ones = {r.label for r in comparison.results if len(_ended(r)) == len(r.outcomes)}

    def order(row: Row) -> tuple[bool, bool, float]:
        lacks = math.isnan(row.mean)
        return lacks, row.label not in whole_ones, 0 if lacks else sign * row.mean

    rows.sort(key=order)
    named = {each.name: each.strategy for each in comparison.settings.methods if each.name}
    rows += [
        Row(label, named.get(label) or label.split()[0], None, None, "", 0, 0, REFUSED, why)
        for label, why in comparison.refused.items()
    ]
    return Table(comparison.metric.name, tuple(rows), dense.label if dense else "")


def as_csv(table: Table) -> str:
    """Return the table as CSV, with a column for each cost of each target."""
    lines = []
    for row in table.rows:
        line = {name: value for name, value in asdict(row).items() if name != "reached"}
        for each in row.reached:
            line[f"{each.target}: seeds"] = f"{each.seeds}/{each.of}"
            for name in Cost._fields:
                line[f"{each.target}: {name}"] = getattr(each.cost, name) if each.cost else None
        lines.append(line)
    return _csv(lines)


def curves_csv(comparison: Comparison) -> str:
    """Return every round of every run as CSV; a metric named like a column is ``metric NAME``."""
    everything = [outcome for result in comparison.results for outcome in result.outcomes]
    metrics = [parse_metric(name) for name in metrics_of(everything)]
    lines = []
    for result in comparison.results:
        for outcome in result.outcomes:
            used = costs(outcome, comparison.settings.link)
            values = zip(*(metric.series(outcome) for metric in metrics), strict=True)
            for record, cost, found in zip(outcome.history, used, values, strict=True):
                line = {"method": result.label, "seed": outcome.experiment.seed}
                line |= {"round": record.round, "up": cost.up, "down": cost.down}
                line |= {"total": cost.total, "modelled_seconds": cost.seconds}
                for metric, value in zip(metrics, found, strict=True):
                    line[f"metric {metric.name}" if metric.name in line else metric.name] = value
                lines.append(line)
    return _csv(lines)


def _csv(lines: Sequence[dict[str, Any]]) -> str:
    heads = list(dict.fromkeys(head for line in lines for head in line))
    file = io.StringIO()
    writer = csv.DictWriter(file, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _row(result: Result, comparison: Comparison, whole: float | None) -> Row:
    experiment, ended = result.candidate.experiment, _ended(result)
    link, metric = comparison.settings.link, comparison.metric
    finals = [metric.final(each) for each in ended]
    status, reason = _status(result)
    used = [costs(each, link)[-1] for each in ended]
    up = mean([each.up_training for each in ended])
    return Row(
        label=result.label,
        strategy=experiment.strategy,
        compressor=experiment.compressor,
        lr=result.lr,
        lr_from=_lr_from(result),
        rounds=experiment.rounds,
        seeds=len(ended),
        status=status,
        reason=reason,
        mean=mean(finals),
        low=min(finals, default=math.nan),
        high=max(finals, default=math.nan),
        up=up,
        down=mean([each.down_bytes for each in ended]),
        seconds=mean([each.seconds for each in used]),
        wall=mean([each.seconds for each in ended]),
        ratio=whole / up if whole and ended else None,
        reached=tuple(_reached(target, result.outcomes, link) for target in comparison.targets),
    )


def _ended(result: Result) -> list[Outcome]:
    """Return the runs that ended well."""
    return [each for each in result.outcomes if each.status == DONE and each.history]


def _status(result: Result) -> tuple[str, str]:
    """Return what became of a method's runs, and a sentence about it."""
    if not result.outcomes:
        tried = ", ".join(f"{lr:g}" for lr in (result.tuned.scores if result.tuned else ()))
        return UNTUNED, f"no run on the tuning seeds ended well, with lr {tried}"
    bad = [each for each in result.outcomes if each.status != DONE]
    if not bad:
        alone = [line for each in result.outcomes for line in each.verdict.left_out]
        return DONE, alone[0] if alone else ""
    counts = Counter(each.status for each in bad)
    of = len(result.outcomes)
    told = ", ".join(f"{count} of {of} {status}" for status, count in counts.items())
    return told, f"seed {bad[0].experiment.seed}: {bad[0].reason or bad[0].status}"


def _lr_from(result: Result) -> str:
    if result.tuned is not None and result.tuned.at_end:
        return "tuned, at the end of the grid"
    return result.candidate.lr


def _reached(target: Target, outcomes: Sequence[Outcome], link: Link) -> Reached:
    found = [cost for each in outcomes if (cost := target.reached(each, link)) is not None]
    cost = Cost(*map(mean, zip(*found, strict=True))) if found else None
    return Reached(target.text, len(found), len(outcomes), cost)
