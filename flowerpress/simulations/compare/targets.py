"""What a comparison asks of runs: a metric to reach, and what it took to reach it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from flowerpress.simulations.means import mean
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.verdict import DONE

_TARGET = re.compile(r"\s*([^\s<>=][^<>=]*?)\s*(>=|<=)\s*([^\s%]+)\s*(%?)\s*")
_SOURCES = ("metrics", "evaluate", "train")
_USUAL = ("accuracy", "gradient_norm_sq", "loss")
_RISING = ("accuracy", "precision", "recall", "f1", "auc", "score", "r2")
_LAST = 20  # a run's final figure is the mean of the last of this many parts of its records


@dataclass(frozen=True)
class Link:
    """A network that is modelled, the same for every client.

    A round takes the time of two latencies, of a client's packets up and down, and of the client's
    computing. Packets are as long as they were; a client's are the mean of the round's.

    Attributes
    ----------
    up, down : float
        Bandwidth of each client's uplink and downlink, in Mbit/s (10^6 bits).
    latency : float
        One way, in milliseconds.
    compute : float
        Of a client in a round, in seconds.

    Examples
    --------
    >>> Link(up=8, down=80, latency=0).seconds(1_000_000, 0)
    1.0
    """

    up: float = 10.0
    down: float = 50.0
    latency: float = 50.0
    compute: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("up", 1e-9), ("down", 1e-9), ("latency", 0.0), ("compute", 0.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise ValueError(f"the link's {name} is {value}: expected a number >= {least:g}")

    def seconds(self, up_bytes: float, down_bytes: float) -> float:
        """Return how long a round takes in which a client sends and gets so many bytes."""
        sent = up_bytes / self.up + down_bytes / self.down
        return self.compute + 2 * self.latency / 1e3 + 8 * sent / 1e6


class Cost(NamedTuple):
    """What a run had used up by the end of a round: bytes are of all clients together."""

    rounds: float
    up: float
    down: float
    total: float
    seconds: float


def costs(outcome: Outcome, link: Link) -> list[Cost]:
    """Return what a run had used up at each of its records."""
    clients = {row.round: max(row.clients, 1) for row in outcome.ledger_rounds}
    history = outcome.history
    up = list(accumulate(record.up_bytes for record in history))
    down = list(accumulate(record.down_bytes for record in history))
    taken = []
    for record in history:
        n = clients.get(record.round, 1)
        idle = record.round == 0
        taken.append(0.0 if idle else link.seconds(record.up_bytes / n, record.down_bytes / n))
    seconds = accumulate(taken)
    return [
        Cost(record.round, u, d, u + d, s)
        for record, u, d, s in zip(history, up, down, seconds, strict=True)
    ]


@dataclass(frozen=True)
class Metric:
    """A metric, and which way is better.

    Attributes
    ----------
    name : str
    rising : bool
        Whether more is better.
    """

    name: str
    rising: bool

    def series(self, outcome: Outcome) -> list[float | None]:
        """Return its value at each of a run's records; None where it was not measured.

        All are from one source, the first that has it in any record: held-out data, else the
        clients' evaluations, else training. So a loss that is evaluated in some rounds alone has no
        training losses between.
        """
        for source in _SOURCES:
            values = [_number(getattr(record, source).get(self.name)) for record in outcome.history]
            if any(value is not None for value in values):
                return values
        return [None] * len(outcome.history)

    def final(self, outcome: Outcome) -> float:
        """Return a run's last figure: the mean over the last twentieth of its records.

        NaN where the run did not end as it should, or did not measure it.
        """
        values = [value for value in self.series(outcome) if value is not None]
        last = values[-max(1, len(values) // _LAST) :]
        if outcome.status != DONE or not last:
            return math.nan
        return mean(last)

    def best(self, values: Sequence[float]) -> int:
        """Return the place of the best of some values; NaN is the worst there is."""
        worst = -math.inf if self.rising else math.inf
        known = [worst if math.isnan(value) else value for value in values]
        return known.index(max(known) if self.rising else min(known))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def parse_metric(text: str) -> Metric:
    """Return the metric ``NAME``, ``NAME:max`` or ``NAME:min``.

    Without either, accuracy and its like are to be high, and all else is to be low.

    Examples
    --------
    >>> parse_metric("accuracy"), parse_metric("loss"), parse_metric("profit:max")
    (Metric(name='accuracy', rising=True), Metric(name='loss', rising=False), \
Metric(name='profit', rising=True))
    """
    name, _, way = text.partition(":")
    if way not in ("", "min", "max") or not name:
        raise ValueError(f"metric {text!r}: expected NAME, NAME:max or NAME:min")
    return Metric(name, way == "max" or (not way and name in _RISING))


def usual_metric(measured: Sequence[str]) -> Metric:
    """Return what a task is judged by that measures these."""
    found = [name for name in _USUAL if name in measured] or [*measured, "loss"]
    return parse_metric(found[0])


@dataclass(frozen=True)
class Target:
    """A metric that is to be reached.

    Attributes
    ----------
    text : str
        As it was written.
    metric : Metric
    value : float
    """

    text: str
    metric: Metric
    value: float

    def reached(self, outcome: Outcome, link: Link) -> Cost | None:
        """Return what a run had used up when it first was there; None if it never was."""
        there: Callable[[float], bool] = (
            (lambda x: x >= self.value) if self.metric.rising else (lambda x: x <= self.value)
        )
        for cost, value in zip(costs(outcome, link), self.metric.series(outcome), strict=True):
            if value is not None and there(value):
                return cost
        return None


def parse_target(text: str) -> Target:
    """Return the target ``METRIC>=VALUE`` or ``METRIC<=VALUE``; the value may be in percent.

    Examples
    --------
    >>> target = parse_target("accuracy >= 90%")
    >>> target.metric.name, target.metric.rising, target.value
    ('accuracy', True, 0.9)
    """
    found = _TARGET.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        value = float(found[3]) / (100 if found[4] else 1)
        if not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"target {text!r}: expected METRIC>=VALUE or METRIC<=VALUE, such as accuracy>=0.9 or "
            "gradient_norm_sq<=1e-6"
        ) from None
    short = "".join(text.split())
    return Target(short, Metric(found[1], found[2] == ">="), value)
