"""A compressor whose packets have at most some norm, measured on what they decode to."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from flowerpress.compressors import Compressor, Draw, Packet, Traits, norm

_TRIES = 8
_ROOM = 1 - 1e-6  # so that roundings do not need another try


def bounded(compressor: Compressor, most: float) -> Compressor:
    """Return a compressor that makes vectors smaller until a packet's norm is at most `most`.

    Examples
    --------
    >>> from flowerpress.compressors import make_compressor
    >>> packet = bounded(make_compressor("sign"), 2.0).compress(np.array([3.0, -4.0, 5.0]))
    >>> norm(packet) <= 2
    True
    """
    return cast(Compressor, _Bounded(compressor, most))


class _Bounded:
    def __init__(self, compressor: Compressor, most: float) -> None:
        self._compressor, self._most = compressor, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compressor, name)

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return those of the compressor."""
        return self._compressor.traits(dim, cohort)

    def compress(self, x: Any, draw: Draw | None = None) -> Packet:
        """Return a packet of `x`, or of as much of it as the bound allows."""
        size = float(np.linalg.norm(x.astype(np.float64)))
        factor = min(1.0, self._most / size) if size else 1.0
        for _ in range(_TRIES):
            scaled = x if factor == 1.0 else x * x.dtype.type(factor)
            packet = self._compressor.compress(scaled, draw or Draw())
            found = norm(packet)
            if found <= self._most:
                return packet
            factor *= self._most / found * _ROOM
        raise ValueError(f"{self._compressor.spec} makes no packet of a norm of {self._most:g}")
