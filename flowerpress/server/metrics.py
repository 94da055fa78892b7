"""The workers' metrics of a round, averaged."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import mul
from typing import Any, NamedTuple

from flwr.app import MetricRecord, RecordDict

from flowerpress.protocol import Metric, MetricReader, Metrics

MetricsFn = Callable[[list[RecordDict], str], MetricRecord]
log = logging.getLogger("flowerpress")
_LARGEST = 2**53  # a weight: above, whole numbers are no longer exact


class Report(NamedTuple):
    """What one worker told: its id, the weight that the server knows of, and its metrics."""

    client: int
    mass: float
    metrics: Mapping[str, Metric]


class MetricsMean:
    """Averages the metrics of a round's replies, as Flower's strategies do.

    A reply counts as much as it says itself, under `weight_key`: "num-examples" is the number of
    training examples in a reply to training, and of examples evaluated in one to evaluation. A
    reply whose weight is missing, negative, not finite or 2**53 and more is left out, and named in
    the log. Where no reply has the key, or with ``known=True``, a reply counts what its worker
    counts for in training.

    Parameters
    ----------
    kind : str
        "training" or "evaluation", for the log.
    weight_key : str
        Flower's ``weighted_by_key``.
    own : callable, optional
        Flower's aggregation function of a user, called instead of averaging, with the metrics that
        all replies have and the weight.
    known : bool
        Whether to count by what the server knows, whatever replies say.
    """

    def __init__(self, kind: str, weight_key: str, own: MetricsFn | None, *, known: bool) -> None:
        self._kind, self._key, self._own, self._known = kind, weight_key, own, known
        self._reader = MetricReader(f"the function that aggregates metrics of {kind}")
        self._said: set[str] = set()

    def __call__(self, reports: Sequence[Report]) -> MetricRecord:
        """Return the mean of each metric; `reports` are in order of the workers' ids."""
        weighed = self._weighed(reports)
        if not weighed:
            return MetricRecord({})
        if self._own is not None:
            contents = self._contents(weighed)
            return MetricRecord(dict(self._reader.read(self._own(contents, self._key))))
        names = sorted({name for _, report in weighed for name in report.metrics} - {self._key})
        means: Metrics = {}
        for name in names:
            given = [(w, report.metrics[name]) for w, report in weighed if name in report.metrics]
            means[name] = self._mean(name, given)
        return MetricRecord(dict(means))

    def _weighed(self, reports: Sequence[Report]) -> list[tuple[float, Report]]:
        """Return the reports that count, each with its weight."""
        key = self._key
        claimed = bool([report for report in reports if key in report.metrics])
        if not claimed and not self._known:
            self._say(f"no reply has {key!r}: metrics are weighted as updates are")
        if self._known or not claimed:
            return [(report.mass, report) for report in reports]
        found = []
        for report in reports:
            weight = report.metrics.get(key)
            if isinstance(weight, int | float) and 0 <= weight < _LARGEST:
                found.append((float(weight), report))
            else:
                told = "is missing" if weight is None else f"is {weight!s:.40}"
                what = f"client {report.client}'s {key!r} {told}: its metrics are left out"
                self._say(what, once_for=f"weight of {report.client}")
        return found

    def _contents(self, weighed: Sequence[tuple[float, Report]]) -> list[RecordDict]:
        """Return the replies' metrics as the user's function takes them."""
        names = {name for _, report in weighed for name in report.metrics} - {self._key}
        common = {n for n in names if all(n in report.metrics for _, report in weighed)}
        if missing := sorted(names - common):
            self._say(f"not in every reply, and left out: {', '.join(missing)}", "common")
        contents = []
        for weight, report in weighed:
            values: dict[str, Any] = {name: report.metrics[name] for name in sorted(common)}
            told = None if self._known else report.metrics.get(self._key)
            values[self._key] = weight if told is None else told
            contents.append(RecordDict({"metrics": MetricRecord(values)}))
        return contents

    def _mean(self, name: str, given: Sequence[tuple[float, Metric]]) -> Metric:
        """Return the weighted mean of one metric; plain where all weights are zero.

        Of lists, element by element. Values of another length than most have are left out.
        """
        weights, values = zip(*given, strict=True)
        if {*map(type, values)} <= {int, float}:
            return _weighted(weights, values)
        lengths = [len(value) if isinstance(value, list) else -1 for value in values]
        common = Counter(lengths).most_common(1)[0][0]
        if set(lengths) != {common}:
            what = f"{name!r} is not of one length: what differs from most is left out"
            self._say(what, once_for="lengths")
        rows = [pair for pair, length in zip(given, lengths, strict=True) if length == common]
        weights, values = zip(*rows, strict=True)
        if common < 0:
            return _weighted(weights, values)
        return [_weighted(weights, column) for column in zip(*values, strict=True)]

    def _say(self, what: str, once_for: str = "") -> None:
        """Log a warning, once for what it is about."""
        if (once_for or what) not in self._said:
            self._said.add(once_for or what)
            log.warning("metrics of %s: %s", self._kind, what)


def _weighted(weights: Sequence[float], numbers: Sequence[Any]) -> float:
    """Return the weighted mean of numbers; plain where all weights are zero."""
    total = sum(weights)
    if not total:
        weights, total = [1.0] * len(numbers), len(numbers)
    # Divided once: the mean of equal numbers is that number, to the last bit.
    return float(sum(map(mul, weights, numbers)) / total)
