"""The mean of what workers send beside their vectors: batch norm's statistics, masks, tables.

Real and complex buffers: the mean by the workers' masses, in float64, number by number. It is
taken from the first worker's value and the others' distances to it, so that what all have alike
stays as it is to the last bit. Where the model is infinite or NaN (a mask, an extreme before its
first batch) the mean is over the workers that have become finite there; if none has, it stays.

Integers and booleans (counters, ids, tables of a hash) have no mean: the model gets the whole array
that most workers sent, of several such the lowest id's. So a table is always one that somebody
has, and one worker alone does not change what the others agree upon.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.protocol.buffers import Buffers

Array = npt.NDArray[Any]


def average_buffers(
    model: Buffers, received: Sequence[Buffers], masses: Sequence[float]
) -> Buffers:
    """Return the model's buffers after a round; as they were if none were received.

    Parameters
    ----------
    model : buffers
        What the workers were sent.
    received : sequence of buffers
        What they sent, by their ids; checked (`flowerpress.protocol.buffers.check_finite`).
    masses : sequence of float
        What each of these workers counts for.

    Examples
    --------
    >>> model = {"mean": np.float32([0, 0]), "seen": np.array(7)}
    >>> sent = [{"mean": np.float32([1, 2]), "seen": np.array(i)} for i in (9, 8, 8)]
    >>> sent[2]["mean"] = np.float32([4, 2])
    >>> average_buffers(model, sent, [1.0, 1.0, 2.0])
    {'mean': array([2.5, 2. ], dtype=float32), 'seen': array(8)}
    """
    if not received:
        return model
    means = {}
    for name, before in model.items():
        sent = [buffers[name] for buffers in received]
        if before.dtype.kind in "fc":
            means[name] = _mean(before, sent, masses)
        else:
            means[name] = _most_common(sent)
    return means


def _mean(before: Array, sent: Sequence[Array], masses: Sequence[float]) -> Array:
    wide = np.complex128 if before.dtype.kind == "c" else np.float64
    first = np.array(before, wide)
    mass = np.zeros(before.shape)  # of the workers that are finite there
    distance = np.zeros(before.shape, wide)
    for value, weight in zip(sent, masses, strict=True):
        finite = np.isfinite(value)
        np.copyto(first, value, where=finite & (mass == 0))
        np.add(mass, weight, out=mass, where=finite)
        with np.errstate(invalid="ignore"):  # infinity less infinity: not added
            apart = weight * (value - first)
        np.add(distance, apart, out=distance, where=finite)
    np.divide(distance, mass, out=distance, where=mass > 0)
    np.add(first, distance, out=first, where=distance != 0)  # 0 more would make 0.0 of -0.0
    return np.asarray(first.astype(before.dtype))


def _most_common(sent: Sequence[Array]) -> Array:
    votes = Counter(value.tobytes() for value in sent)
    # Of equal counts, max takes the first.
    return max(sent, key=lambda value: votes[value.tobytes()])
