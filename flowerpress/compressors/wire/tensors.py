"""What was decoded, added to a tensor where it is: only the packet's numbers go there."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from flowerpress.compressors import vectors
from flowerpress.compressors.wire.reading import Decoded, Divisible

_PART = 1 << 22  # numbers that are decoded at once, a multiple of 1024


@runtime_checkable
class OnTensors(Protocol):
    """A payload that is not one term for each coordinate, or is shorter than the vector."""

    def add_to_tensor(self, out: Any, weight: float) -> None:
        """Do what `add_to` does to an array, to a tensor on any device."""


def add_to_tensor(decoded: Decoded, out: Any, weight: float) -> None:
    """Do ``out += weight * decoded`` on a tensor; the same numbers as on an array.

    The terms are made on the host, as they are added to an array of negative zeros: the only number
    that changes no other, a zero of either sign neither, when it is added to it.
    """
    if isinstance(decoded, OnTensors):
        decoded.add_to_tensor(out, weight)
        return
    dtype, size = vectors.dtype_of(out), len(out)
    if size <= _PART or abs(weight) > 1 or not isinstance(decoded, Divisible):
        terms = np.full(size, -0.0, dtype)
        decoded.add_to(terms, weight)
        vectors.add_array(out, terms)
        return
    for start in range(0, size, _PART):  # nothing overflows, so nothing is refused half way
        stop = min(start + _PART, size)
        add_to_tensor(decoded.part(start, stop), out[start:stop], weight)
