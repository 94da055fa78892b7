"""The figures that claims are about, each of one run."""

from __future__ import annotations

import math

from flowerpress.simulations.means import mean
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.recorder import RoundRecord
from flowerpress.simulations.reproduce.claims import Column


def _metric(record: RoundRecord, name: str) -> float:
    value = record.metrics.get(name, math.nan)
    return float(value) if isinstance(value, int | float) else math.nan


def tail(name: str, heading: str, share: float = 0.5) -> Column:
    """Return the column of a metric's mean over the last rounds of a run.

    Parameters
    ----------
    name, heading : str
        Of the metric, and of the column.
    share : float, default 0.5
        Of the rounds.
    """

    def of(run: Outcome) -> float:
        count = max(1, round(share * len(run.history)))
        return mean([_metric(record, name) for record in run.history[-count:]])

    return Column(heading, of)


def last(name: str, heading: str) -> Column:
    """Return the column of a metric after the last round."""
    return Column(heading, lambda run: _metric(run.history[-1], name))


def growth(name: str, heading: str) -> Column:
    """Return the column of a metric after the last round, over what it was at the start.

    A run that has diverged has the figure too: that it grows is what is to be seen.
    """

    def of(run: Outcome) -> float:
        return _metric(run.history[-1], name) / _metric(run.history[0], name)

    return Column(heading, of, less=False)


ACCURACY = Column(
    "accuracy, %",
    lambda run: 100 * mean([_metric(record, "accuracy") for record in run.history[-10:]]),
    less=False,
    form="{:.1f}",
    worst=0.0,
)
"""On held-out data, the mean over the last ten rounds."""


def _packets(run: Outcome, rounds: float = math.inf) -> float:
    """Return kB of packets that one worker sent until the end of a round."""
    sent = sum(row.up_payload for row in run.ledger_rounds if row.round <= rounds)
    return sent / 1e3 / run.experiment.clients


UP = Column("kB up", _packets, form="{:,.3g}")
DOWN = Column(
    "kB down",
    lambda run: sum(r.down_payload for r in run.ledger_rounds) / 1e3 / run.experiment.clients,
    form="{:,.3g}",
)
"""Packets with their headers, of one worker in the whole run."""

SENT = Column("kB sent", lambda run: run.up_training / 1e3 / run.experiment.clients, form="{:,.3g}")
"""Of one node of a graph, framing too, but for the nodes' own models that were asked for."""


def rounds_until(name: str, target: float) -> Column:
    """Return the column of rounds until a metric is at most a target; none: not within the run."""

    def of(run: Outcome) -> float:
        reached = first_at_most(run, name, target)
        return math.inf if reached is None else reached.round

    return Column("rounds", of, form="{:,.0f}")


def bytes_until(name: str, target: float) -> Column:
    """Return the column of kB of packets that one worker sent until then."""

    def of(run: Outcome) -> float:
        reached = first_at_most(run, name, target)
        return math.inf if reached is None else _packets(run, reached.round)

    return Column("kB up", of, form="{:,.3g}")


def first_at_most(run: Outcome, name: str, target: float) -> RoundRecord | None:
    """Return the first round in which a metric is at most a target; None: not within the run."""
    return next((record for record in run.history if _metric(record, name) <= target), None)
