"""When a node of SQuARM-SGD has changed enough to say so."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Trigger:
    """The thresholds c_t: a node sends if its public copy is off by more than c_t lr^2, squared.

    Theory (Singh et al. 2019, SPARQ-SGD, arXiv:1910.14280) has c_t grow slower than t; constants
    and steps are what the experiments there use.

    Parameters
    ----------
    threshold : float
        c_0; negative: nodes always send.
    threshold_power : float
        c_t grows as t to this power, in [0, 1].
    threshold_step, threshold_every : float, int
        c_t grows by the one after every so many rounds.

    Examples
    --------
    >>> [Trigger(2.0, threshold_power=0.5)(t) for t in (1, 4)]
    [2.0, 4.0]
    >>> [Trigger(2.0, threshold_step=1.0, threshold_every=10)(t) for t in (9, 10, 20)]
    [2.0, 3.0, 4.0]
    """

    threshold: float = 0.0
    threshold_power: float = 0.0
    threshold_step: float = 0.0
    threshold_every: int = 0

    def __call__(self, t: int) -> float:
        """Return c_t in round `t`, from 1."""
        steps = t // self.threshold_every if self.threshold_every else 0
        return self.threshold * math.pow(t, self.threshold_power) + self.threshold_step * steps
