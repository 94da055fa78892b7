"""What a preset is: settings of one strategy on one task, and the work they are tuned for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowerpress.simulations.options import Option

TUNED_ON = (0, 1)
"""Seeds on which presets were chosen: nothing of them is reported on these in a comparison."""
Options = Mapping[str, Option]


@dataclass(frozen=True)
class Work:
    """What a client computes, whatever the method.

    Attributes
    ----------
    name : str
    rounds : int
    task, strategy : mapping
        Options of the task, and of every strategy.
    dense_lr : float or None
        Step size of the dense run with this work, tuned for it; None: the pressed run's own.
    """

    name: str
    rounds: int
    dense_lr: float | None
    task: Options
    strategy: Options


@dataclass(frozen=True)
class Preset:
    """Settings of one strategy.

    Attributes
    ----------
    work : Work
    ratio : float
        Times fewer uplink bytes, as sent, than the dense run with the same work, at least.
    compressor : str or None
    strategy : mapping
        Options of the strategy.
    task : mapping
        Options of the task that differ from the work's.
    """

    work: Work
    ratio: float
    compressor: str | None = None
    strategy: Options = field(default_factory=dict)
    task: Options = field(default_factory=dict)
