"""The mean of the workers' metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import MetricRecord, RecordDict

MetricsFn = Callable[[list[RecordDict], str], MetricRecord]


def average_metrics(
    reports: Sequence[tuple[float, Mapping[str, float]]], weight_key: str, own: MetricsFn | None
) -> MetricRecord:
    """Average each metric over the workers that gave it, by their mass.

    Parameters
    ----------
    reports : sequence of (mass, metrics)
        In order of the workers' ids.
    weight_key : str
        The metric that says what a worker counts for: not averaged, and the mass for `own`.
    own : callable, optional
        Flower's aggregation function of a user, called instead, with the metrics all workers gave.
    """
    if own is not None:
        common = set.intersection(*(set(metrics) for _, metrics in reports))
        contents = []
        for mass, metrics in reports:
            values: dict[str, Any] = {name: metrics[name] for name in sorted(common)}
            contents.append(RecordDict({"metrics": MetricRecord({**values, weight_key: mass})}))
        return own(contents, weight_key)
    means = {}
    for name in sorted({name for _, metrics in reports for name in metrics} - {weight_key}):
        given = [(mass, metrics[name]) for mass, metrics in reports if name in metrics]
        total = sum(mass for mass, _ in given)
        means[name] = sum(mass / total * value for mass, value in given)
    return MetricRecord(dict(means))
