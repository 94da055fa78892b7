"""How far the vectors of a cohort are apart: what tells whether correlated quantizers pay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median_low
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import Opened

FloatVector = npt.NDArray[np.floating[Any]]
_LEAST = 0.5  # of the decoded mean's square, that must be the mean's own


class Told(NamedTuple):
    """What a packet says of its vector.

    Attributes
    ----------
    mass : float
        What its worker counts for.
    norm : float
        Of the vector.
    decoded : float
        Of what was decoded: larger, as rounding adds to it.
    """

    mass: float
    norm: float
    decoded: float


def dispersion(told: Sequence[Told], total: FloatVector) -> float | None:
    """Return the root of the mean of ``|x_i - mean|^2``, over ``|mean|``.

    It is 0 for equal vectors, and sqrt(n - 1) for n of one norm that are orthogonal. The mean that
    was decoded has the rounding errors too. Each is known, ``|decoded|^2 - |x_i|^2`` on average,
    and taken off as if they were independent: correlated ones are smaller in the mean, so that the
    result is rather too large than too small.

    Parameters
    ----------
    told : sequence of Told
        Of all workers.
    total : vector
        The sum of the decoded vectors, each times what its worker counts for.

    Returns
    -------
    float or None
        None where the errors are more than half of the mean, or anything is not finite.

    Examples
    --------
    >>> exact = [Told(1.0, 5.0, 5.0), Told(1.0, 5.0, 5.0)]
    >>> dispersion(exact, np.array([8.0, 0.0]))  # (4, 3) and (4, -3)
    0.75
    """
    masses, norms, decoded = np.array(told).T
    mass = masses.sum()
    with np.errstate(over="ignore", invalid="ignore"):
        squares = float((masses * norms**2).sum() / mass)
        errors = float((masses**2 * (decoded**2 - norms**2)).sum() / mass**2)
        heard = float(np.square(total.astype(np.float64) / mass).sum())
    mean = heard - max(0.0, errors)
    if not (math.isfinite(squares) and math.isfinite(mean) and mean > _LEAST * heard):
        return None
    return math.sqrt(max(0.0, squares - mean) / mean)


class Norms:
    """The norms of a cohort's vectors, as their packets tell them.

    Parameters
    ----------
    into : object
        What the vectors are added to; their dispersion is known where that is a vector.
    """

    def __init__(self, into: object) -> None:
        self._into = into if isinstance(into, np.ndarray) else None
        self._before = None if self._into is None else self._into.copy()
        self._told: list[Told] = []
        self._all = True  # whether all packets that went in told their norm

    def hear(self, mass: float, scale: float, packets: Sequence[Opened], decoded: float) -> None:
        """Note an update that went in; `decoded` is the norm it was decoded to, 0 if unknown."""
        norm = packets[0].norm if packets else None
        if norm is None:
            self._all = False
        else:
            self._told.append(Told(mass, scale * norm, decoded))

    @property
    def median(self) -> float:
        """The median, of two in the middle the smaller, which no minority can set; 0 if unknown."""
        return median_low([each.norm for each in self._told]) if self._told else 0.0

    def told(self) -> dict[str, float]:
        """Return the cohort's dispersion as a metric of the round, where it is known."""
        if self._into is None or self._before is None or not self._told or not self._all:
            return {}
        if not all(each.decoded for each in self._told):
            return {}
        found = dispersion(self._told, self._into - self._before)
        return {} if found is None else {"dispersion": found}
