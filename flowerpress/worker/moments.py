"""The averages over time that workers of the Adam family keep."""

from __future__ import annotations

import numpy as np

from flowerpress.worker.stores import WorkerState
from flowerpress.worker.worker import FloatVector


def average(state: WorkerState, name: str, new: FloatVector, beta: float) -> FloatVector:
    """Return beta * old + (1 - beta) * new, `old` the state's vector `name`, zero at first.

    Examples
    --------
    >>> average(WorkerState(), "m", np.array([1.0, -2.0]), 0.75)
    array([ 0.25, -0.5 ])
    """
    real = new.dtype.type
    old = state.vectors.get(name)
    moved = real(1 - beta) * new
    return moved if old is None else real(beta) * old + moved


def squared(gradient: FloatVector) -> FloatVector:
    """Return the squares; `ValueError` where one overflows: it would never leave the average."""
    with np.errstate(over="ignore"):
        square = gradient * gradient
    if not np.isfinite(square).all():
        position = int(np.flatnonzero(~np.isfinite(square))[0])
        raise ValueError(
            f"the square of gradient[{position}] = {gradient[position]} overflows: lower lr, or "
            "check this client's data"
        )
    return square
