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
        """Do what `add_to` does to an array, to a tensor of the packet's dtype; |weight| <= 1."""


def add_packet(decoded: Decoded, dtype: np.dtype[Any], out: Any, weight: float) -> None:
    """Do ``out += weight * decoded`` on a tensor; the same numbers as on an array.

    Parameters
    ----------
    dtype : numpy.dtype
        The packet's.
    """
    if dtype == vectors.dtype_of(out) and abs(weight) <= 1:  # no product overflows
        add_to_tensor(decoded, out, weight)
        return
    values = vectors.placed(out, None).copy()
    decoded.add_to(values, weight)
    out.copy_(vectors.placed(values, out.device))


def add_to_tensor(decoded: Decoded, out: Any, weight: float) -> None:
    """Do that where no product overflows, with what is inside another packet too."""
    if isinstance(decoded, OnTensors):
        decoded.add_to_tensor(out, weight)
    elif isinstance(decoded, Divisible):
        for start in range(0, len(out), _PART):  # nothing overflows: nothing is refused half way
            stop = min(start + _PART, len(out))
            add_whole(decoded.part(start, stop), out[start:stop], weight)
    else:
        add_whole(decoded, out, weight)


def add_whole(decoded: Decoded, out: Any, weight: float) -> None:
    """Add terms that are made on the host, one for each coordinate.

    There they are added to negative zeros: the only number that leaves a term what it is, zeros of
    either sign too.
    """
    terms = np.full(len(out), -0.0, vectors.dtype_of(out))
    decoded.add_to(terms, weight)
    vectors.add_array(out, terms)
