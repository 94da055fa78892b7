"""What the Adam family shares: its options, and a step size that may decay."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np

from flowerpress.protocol import Hyper
from flowerpress.server.base import CompressedStrategy, FloatVector
from flowerpress.server.errors import RoundError
from flowerpress.server.options import (
    check_options,
    require,
    require_contraction,
    require_number,
)

log = logging.getLogger("flowerpress")


class Adaptive(CompressedStrategy):
    """A strategy that averages gradients over time.

    Parameters
    ----------
    lr : float (default: 0.001)
        Step size; may be set anew in every round.
    beta1 : float (default: 0.9)
        Weight in [0, 1) of the OLD average of the gradients.
    decay : {"none", "sqrt"} (default: "none")
        Step t goes lr far, or lr / sqrt(t); t counts the model's steps from 1, where ``schedule``
        has rounds. One of the two.
    **options
        As in `CompressedStrategy`.
    """

    def __init__(
        self, *, lr: float = 0.001, beta1: float = 0.9, decay: str = "none", **options: Any
    ) -> None:
        super().__init__(lr=lr, **options)
        require_beta("beta1", beta1)
        require(decay in ("none", "sqrt"), "decay", decay, "none or sqrt")
        both = decay == "sqrt" and bool(options.get("schedule"))
        require(not both, "decay", decay, "none where a schedule is given")
        self.beta1, self.decay = beta1, decay

    @property
    def taken(self) -> int:
        """The number of steps taken in this run."""
        return self.run.model.version if self.run.model else 0

    @property
    def rate(self) -> float:
        """The step size of the next step."""
        rate = super().rate
        return rate / math.sqrt(self.taken + 1) if self.decay == "sqrt" else rate

    def hyper(self) -> Hyper:
        return {**super().hyper(), "beta1": self.beta1}


def require_beta(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is a number in [0, 1)."""
    require_number(name, value, most=1.0)
    require(value != 1, name, value, "a number in [0, 1)")


def require_downlink(name: str, downlink: str) -> str:
    """Return the compressor of an algorithm that always compresses the downlink, normalised.

    Raises
    ------
    ValueError
        It is empty, or error feedback cannot use it.
    """
    check_options({"downlink": downlink})
    expected = f"a compressor: {name} sends steps, not models (identity: uncompressed)"
    require(downlink != "", "downlink", downlink, expected)
    return require_contraction(downlink)


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
