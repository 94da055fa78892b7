"""What became of a run: whether it was worth anything, and who was left out of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flowerpress.server.attendance import Attendance
from flowerpress.simulations.formats import format_metric
from flowerpress.simulations.recorder import RoundRecord

DONE, DIVERGED, UNTRAINED = "done", "diverged", "nothing trained"
INTERRUPTED, FAILED, RUNNING = "interrupted", "failed", "running"

TIMES, ABOVE = 10.0, 1.0
"""A loss has diverged that is above this many times its start, and by more than this."""

_LOSSES = (("metrics", "held-out loss"), ("evaluate", "clients' loss"), ("train", "train loss"))


@dataclass(frozen=True)
class Verdict:
    """What became of a run.

    Attributes
    ----------
    status : str
        "done"; "nothing trained": no round took a step; "diverged": the last loss is not finite, or
        more than 10 times the first and more than 1 above it; "interrupted": by a signal;
        "failed": by an error.
    reason : str
        One sentence about it; empty where the run is done.
    left_out : tuple of str
        One sentence about each client that took no part, or hardly any, or failed at the end.
    """

    status: str
    reason: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def useless(self) -> bool:
        """Whether all rounds were run, and nothing came of them."""
        return self.status in (DIVERGED, UNTRAINED)

    @property
    def lines(self) -> list[str]:
        """The sentences, the most important one first."""
        return [*filter(None, [self.reason]), *self.left_out]


def judge(
    history: Sequence[RoundRecord], attendance: Attendance, stopped: BaseException | None = None
) -> Verdict:
    """Return what became of a run.

    Parameters
    ----------
    history : sequence of RoundRecord
        Its rounds.
    attendance : Attendance
        Who took part in it.
    stopped : BaseException, optional
        What ended it before its time.
    """
    left_out = tuple(attendance.lines())
    if stopped is not None:
        interrupted = isinstance(stopped, KeyboardInterrupt)
        reason = "" if interrupted else f"{type(stopped).__name__}: {stopped}"
        return Verdict(INTERRUPTED if interrupted else FAILED, reason, left_out)
    rounds = history[-1].round if history else 0
    if rounds and not attendance.steps:
        why = "every update was lost or refused" if not attendance.taken else "all rounds were void"
        reason = f"nothing was trained in {rounds} rounds: {why}"
        return Verdict(UNTRAINED, reason, left_out)
    if reason := divergence(history):
        return Verdict(DIVERGED, reason, left_out)
    return Verdict(DONE, "", left_out)


def divergence(history: Sequence[RoundRecord]) -> str:
    """Return a sentence about a loss that has diverged, and nothing for one that has not.

    Looked at is the loss on held-out data, else the mean of the clients' evaluations, else the
    training loss: its first value and its last.

    Examples
    --------
    >>> rounds = [RoundRecord(r, {"loss": loss}, {}, 0, 0, 0.0) for r, loss in enumerate([2.3, 40])]
    >>> divergence(rounds)
    'diverged: the held-out loss went from 2.3 to 40; lower lr, or check the data'
    """
    for source, name in _LOSSES:
        found = [(each.round, getattr(each, source).get("loss")) for each in history]
        losses = [(r, loss) for r, loss in found if isinstance(loss, int | float)]
        if not losses:
            continue
        first, last = losses[0][1], losses[-1][1]
        if not math.isfinite(last):
            since = next(r for r, loss in losses if not math.isfinite(loss))
            return f"diverged: the {name} is not finite from round {since} on; {_REMEDY}"
        if last > TIMES * abs(first) and last > first + ABOVE:
            went = f"from {format_metric('loss', first)} to {format_metric('loss', last)}"
            return f"diverged: the {name} went {went}; {_REMEDY}"
        return ""
    return ""


_REMEDY = "lower lr, or check the data"
