"""What a worker half of somebody's own may have wrong, said by its class and with what to do."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowerpress.compressors.feedback import Sender
from flowerpress.protocol import Layout
from flowerpress.worker.outgoing import Outgoing


def check_worker(cls: type[Any]) -> None:
    """Raise `ValueError` where the class lacks `round`, or its `sender` is none."""
    if inspect.isabstract(cls):
        lacking = ", ".join(sorted(cls.__abstractmethods__))
        raise ValueError(
            f"{cls.__name__} has no {lacking}(job): define it, to return Outgoing(loss, vector)"
        )
    sender = getattr(cls, "sender", None)
    if not (isinstance(sender, type) and issubclass(sender, Sender)):
        raise ValueError(
            f"{cls.__name__}.sender is {sender!r}: it must be a class of flowerpress.clients, "
            "PlainSender, EF14Sender or EF21Sender"
        )


def check_outgoing(cls: type[Any], out: Any, layout: Layout, stage: int) -> Outgoing:
    """Return what a worker's `round` returned; `ValueError` where it cannot be sent."""
    where = f"{cls.__name__}.round"
    if not isinstance(out, Outgoing):
        kind = "None" if out is None else f"a {type(out).__name__}"
        raise ValueError(f"{where} returned {kind}: it must return Outgoing(loss, vector)")
    if not _is_number(out.loss):
        raise ValueError(
            f"{where}: the loss of Outgoing(loss, vector) is {out.loss!r:.60}: give a "
            "number, as job.gradient(x) returns it first"
        )
    if not out.silent and (wrong := _wrong_vector(out.vector, layout, stage)):
        raise ValueError(
            f"{where}: the vector of Outgoing(loss, vector) is {wrong}: give a vector of "
            f"{layout.dim} x {layout.dtype}, as the model is"
        )
    for name in ("moments", "kept", "staged"):
        given = getattr(out, name)
        if not _holds_vectors(given):
            raise ValueError(f"{where}: {name} of Outgoing must be vectors by name: {{'m': m}}")
    return out


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return True
    try:
        float(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return not isinstance(value, str | bytes)


def _wrong_vector(vector: Any, layout: Layout, stage: int) -> str:
    """Return what a vector is that is not one of the model's, with stage 1; else nothing."""
    if not hasattr(vector, "shape") or not hasattr(vector, "nbytes"):
        return f"a {type(vector).__name__}"
    other = isinstance(vector, np.ndarray) and vector.dtype != layout.dtype
    if other or (stage == 1 and vector.shape != (layout.dim,)):
        return f"of shape {tuple(vector.shape)} and {vector.dtype}"
    return ""


def _holds_vectors(given: Any) -> bool:
    return isinstance(given, Mapping) and all(hasattr(each, "nbytes") for each in given.values())
