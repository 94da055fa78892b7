"""How far the vectors of a cohort are apart: what tells whether correlated quantizers pay."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import Opened

FloatVector = npt.NDArray[np.floating[Any]]


def dispersion(heard: Sequence[tuple[float, float]], total: FloatVector) -> float:
    """Return the root of the mean of ``|x_i - mean|^2``, over ``|mean|``.

    It is 0 for equal vectors, and sqrt(n - 1) for n of one norm that are orthogonal. The mean is
    that of what was decoded, so its norm is a little too large, and the result a little too small.

    Parameters
    ----------
    heard : sequence of (float, float)
        What each worker counts for, and the norm of its vector.
    total : vector
        The sum of the decoded vectors, each times what its worker counts for.

    Returns
    -------
    float
        Infinity where the mean is zero.

    Examples
    --------
    >>> dispersion([(1.0, 5.0), (1.0, 5.0)], np.array([8.0, 0.0]))  # (4, 3) and (4, -3)
    0.75
    """
    mass = math.fsum(each for each, _ in heard)
    squares = math.fsum(each * norm**2 for each, norm in heard) / mass
    mean = float(np.linalg.norm(total.astype(np.float64) / mass)) ** 2
    return math.sqrt(max(0.0, squares - mean) / mean) if mean else math.inf


class Norms:
    """The norms of a cohort's vectors, as far as their packets tell them.

    Parameters
    ----------
    into : object
        What the vectors are added to; their dispersion is known where that is a vector.
    """

    def __init__(self, into: object) -> None:
        self._into = into if isinstance(into, np.ndarray) else None
        self._before = None if self._into is None else self._into.copy()
        self._heard: list[tuple[float, float]] = []

    def hear(self, mass: float, scale: float, packets: Iterable[Opened]) -> None:
        """Note an update that went in."""
        told = (packet.norm for packet in packets)
        self._heard += [(mass, scale * norm) for norm in told if norm is not None]

    @property
    def median(self) -> float:
        """The median, which no minority of workers can set; 0 if none was told."""
        return statistics.median(norm for _, norm in self._heard) if self._heard else 0.0

    def told(self) -> dict[str, float]:
        """Return the cohort's dispersion, as a metric of the round."""
        if self._into is None or self._before is None or not self._heard:
            return {}
        return {"dispersion": dispersion(self._heard, self._into - self._before)}
