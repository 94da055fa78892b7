"""What the Adam family shares: its options, and a step size that may decay."""

from __future__ import annotations

import logging
import math

import numpy as np

from flowerpress.server.base import CompressedStrategy, FloatVector
from flowerpress.server.errors import RoundError
from flowerpress.server.options import number, one_of, option, require

log = logging.getLogger("flowerpress")
BETA = number("[0, 1)")


class Adaptive(CompressedStrategy):
    """A strategy that averages gradients over time."""

    lr: float = option(0.001, says="Step size.")
    beta1: float = option(
        0.9, BETA, "Weight of the OLD average of the gradients.", letter="beta_1", sent=True
    )
    decay: str = option(
        "none",
        one_of("none", "sqrt"),
        "Step t goes lr far, or lr / sqrt(t). t counts the model's steps from 1, where "
        "`schedule` has rounds; one of the two.",
    )

    def check(self) -> None:
        super().check()
        both = self.decay == "sqrt" and bool(self.given.get("schedule"))
        require(not both, "decay", self.decay, "none where a schedule is given")

    @property
    def taken(self) -> int:
        """The number of steps taken in this run."""
        return self.run.model.version if self.run.model else 0

    @property
    def rate(self) -> float:
        """The step size of the next step."""
        rate = super().rate
        return rate / math.sqrt(self.taken + 1) if self.decay == "sqrt" else rate


def require_finite_moment(moment: FloatVector, server_round: int) -> None:
    """Raise `RoundError` where a moment overflowed: the model would stand still there for ever."""
    if not np.isfinite(moment).all():
        raise RoundError(
            f"round {server_round}: the square of the mean update is no longer finite: lower lr, "
            "or leave out the clients that send huge updates"
        )


def warn_where_workers_differ(name: str) -> None:
    """Warn that the fixed point is not the solution on non-IID shards."""
    log.warning(
        "%s averages steps that each worker has normalised by itself: where workers' data differ "
        "it does not stop at the solution, however small lr is; comp-ams, fedcams and cdadam do",
        name,
    )
