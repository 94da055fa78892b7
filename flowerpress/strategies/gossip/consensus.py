"""The step towards the neighbours, gamma: a safe value, and one that backs off.

Theory's bounds on gamma are far too small to use: for a ring of 8 and top-10 % they are 1e-3 and
less, where 0.1 works. What limits gamma is how much of a vector the compressor keeps: a is measured
here, 1 - |x - C(x)|^2 / |x|^2 on a vector of normal numbers, and ``gamma = a / (4 - 3 a)``: 1 for
the identity, 0.3 for sign, 0.15 for topk:0.1, 0.02 for topk:0.01. Vectors of training have more
structure, of which top-k keeps more, and bear a gamma some times larger.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flowerpress.compressors import Draw, add_to
from flowerpress.compressors.contraction import contraction
from flowerpress.compressors.norms import square_sum
from flowerpress.protocol import Layout
from flowerpress.server.options import Values, number
from flowerpress.server.tree import Tree

log = logging.getLogger("flowerpress")
_WINDOW = 8  # synchronisations over which growth is looked for
_BOLD = 4.0  # "auto" begins with this many times the safe value
_GROWTH = 1.5  # of what pulls the nodes together, from one window to the next
_AGREED = 1e-12  # of the largest pull: nothing to watch below
_SHRINKS = 0.8  # what it must come down to in the time a graph takes to agree, left to itself


GAMMA = Values(
    lambda gamma: gamma == "auto" or number("[0, 1]").held(gamma),
    "auto, or a number in [0, 1]",
    lambda gamma: gamma if gamma == "auto" else float(gamma),
)
"""What the option `gamma` may be."""


def safe_gamma(spec: str, layout: Layout, seed: int = 0) -> float:
    """Return a step at which the graphs here agree, whatever the vectors.

    Parameters
    ----------
    spec : str
        A compressor's spec.
    layout : Layout
        The model's.
    seed : int
        Of the vector that it is tried on.

    Examples
    --------
    >>> from flowerpress.protocol.layout import Entry
    >>> layout = Layout((Entry("x", (1000,), "float32"),))
    >>> [round(safe_gamma(spec, layout), 2) for spec in ("identity", "topk:0.1", "topk:0.01")]
    [1.0, 0.17, 0.03]
    """
    x = np.random.default_rng(seed).standard_normal(layout.dim).astype(layout.dtype)
    compressor, scale = contraction(spec, layout.shapes)
    lost = x.copy()
    add_to(compressor.compress(x, Draw(seed)), lost, -scale)
    kept = 1 - square_sum(lost) / square_sum(x)
    return kept / (4 - 3 * kept) if kept > 0 else 1e-3


class Consensus:
    """Gamma, and the watch over it.

    At rest, the pull towards the neighbours undoes what the local steps tear apart: it moves a
    model no further than they do. Where it moves it further, and still grows, it feeds on itself:
    gamma is too large for the compressor. The same holds where it does not shrink in the time that
    a graph left to itself takes to agree. Gamma is then halved.

    Parameters
    ----------
    gamma : float or "auto"
        0: the safe value; "auto": from four times that, halved where the nodes come apart.
    safe : float
        The safe value, see `safe_gamma`.

    Attributes
    ----------
    gap : float
        The graph's spectral gap; 1 / (gamma gap) synchronisations are what it takes to agree.
    """

    def __init__(self, gamma: float | str, safe: float, gap: float = 1.0) -> None:
        self.auto = gamma == "auto"
        self.gamma = min(1.0, _BOLD * safe) if isinstance(gamma, str) else gamma or safe
        self.gap = gap
        self.halvings, self._peak = 0, 0.0
        self._fast, self._slow = _Windows(_GROWTH), _Windows(_SHRINKS)

    def watch(self, told: Sequence[Mapping[str, float]]) -> None:
        """Hear what the nodes told of a synchronisation; halve gamma where they come apart.

        Of each figure the median counts: one node alone cannot make all of them slow.
        """
        full = [each for each in told if each.keys() >= {"disagreement", "moved", "unsent"}]
        if not self.auto or not full:
            return
        pull, moved, unsent = (
            float(np.median([each[name] for each in full]))
            for name in ("disagreement", "moved", "unsent")
        )
        sums = _Sums(self.gamma**2 * pull, moved, unsent)
        self._peak = max(self._peak, sums.pull)
        agree = min(1 / (self.gamma * max(self.gap, 1e-3)), 1e4)
        grows = (
            self._fast.grow(sums, _WINDOW),
            self._slow.grow(sums, max(2 * _WINDOW, round(agree))),
        )
        if any(grows) and sums.pull >= _AGREED * self._peak:
            self.gamma /= 2
            self.halvings += 1
            self._fast, self._slow = _Windows(_GROWTH), _Windows(_SHRINKS)
            log.warning("the nodes come apart: gamma is now %.3g", self.gamma)

    def state(self) -> Tree:
        """Return what a checkpoint needs of it."""
        windows = [[each.count, list(each.now), list(each.before)] for each in self._both]
        return [self.gamma, self.gap, self.halvings, self._peak, windows]

    def restore(self, state: Tree) -> None:
        """Take what `state` returned."""
        self.gamma, self.gap, self.halvings, self._peak, windows = state
        for each, (count, now, before) in zip(self._both, windows, strict=True):
            each.count, each.now, each.before = count, _Sums(*now), _Sums(*before)

    @property
    def _both(self) -> tuple[_Windows, _Windows]:
        return self._fast, self._slow


class _Sums(NamedTuple):
    """Squared lengths, over the nodes and a window of time."""

    pull: float = 0.0  # of the steps towards the neighbours
    moved: float = 0.0  # of the local steps
    unsent: float = 0.0  # of what the public copies lack


class _Windows:
    """Sums over windows of some synchronisations, each compared with the one before."""

    def __init__(self, factor: float) -> None:
        self._factor, self.count = factor, 0
        self.now, self.before = _Sums(), _Sums()

    def grow(self, new: _Sums, length: int) -> bool:
        """Add a synchronisation; whether it ends a window in which the pull fed on itself.

        While public copies catch up with models that began elsewhere, the pull grows with them, and
        what is unsent falls: that is no growth.
        """
        self.now = _Sums(*map(sum, zip(self.now, new, strict=True)))
        self.count += 1
        if self.count < length:
            return False
        now, before = self.now, self.before
        self.now, self.before, self.count = _Sums(), now, 0
        catching_up = now.unsent < 0.9 * before.unsent
        grown = 0 < self._factor * before.pull < now.pull
        return grown and not catching_up and now.pull > 4 * now.moved
