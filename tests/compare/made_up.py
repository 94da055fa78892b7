"""Outcomes with figures that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence

from flowerpress.protocol.ledger import RoundBytes
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.recorder import RoundRecord
from flowerpress.simulations.verdict import Verdict


def outcome(
    values: Sequence[float],
    *,
    up: int = 100,
    down: int = 50,
    clients: int = 2,
    metric: str = "accuracy",
    experiment: Experiment | None = None,
    status: str = "done",
    reason: str = "",
) -> Outcome:
    """A run whose metric was `values`, the first before any round, at so many bytes a round."""
    history = tuple(
        RoundRecord(r, {metric: value}, {}, up if r else 0, down if r else 0, 0.1)
        for r, value in enumerate(values)
    )
    rounds = tuple(RoundBytes(r, up, 0, down, 0, clients) for r in range(1, len(values)))
    n = len(rounds)
    return Outcome(
        experiment or Experiment(task="digits", strategy="fedavg"),
        history,
        rounds,
        up * n,
        down * n,
        up * n,
        1.0,
        verdict=Verdict(status, reason),
    )
