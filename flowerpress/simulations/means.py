"""Means of figures, whatever they are: those of runs that diverge are as large as numbers get."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN for no values, and for infinities of both signs.

    Examples
    --------
    >>> mean([1.0, 2.0]), mean([1.7e308, 1.5e308]), mean([])
    (1.5, 1.6e+308, nan)
    """
    if not values:
        return math.nan
    try:
        return math.fsum(values) / len(values)
    except OverflowError:  # the sum is no number any more, while the mean is
        return math.fsum(value / len(values) for value in values)
    except ValueError:  # inf - inf
        return math.nan
