"""Other strategies around one of ours, which would do nothing and say nothing.

Flower's wrappers change what a strategy is given: a norm to clip to in the config, noise in the
arrays between rounds, clipped arrays in the replies. Ours keep the model themselves, and their
replies are packets. Whoever wraps one, or changes the arrays in a subclass of one, believes in
something that is not there: so it is an error, before anything is sent.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from flowerpress.server.run import Run

_CLIPPING = "clipping_norm"  # in the config, and an attribute of Flower's wrappers
_BETWEEN = ("configure_train", "aggregate_train")
_REMEDY = (
    "flowerpress's strategies keep the model themselves and send packets, so that no clipping, no "
    "noise and no other change would reach anybody; use Flower's own FedAvg for differential "
    "privacy, and its strategies for rules of your own (flowerpress.dropin presses what they send)"
)


def refuse_privacy(name: str, config: Mapping[str, Any] | None) -> None:
    """Raise `ValueError` where strategy `name` is inside a wrapper that clips or adds noise.

    A wrapper tells the strategy inside nothing of itself, and those that work on the server show
    in no argument of the first round: they are found among the callers.
    """
    if config and _CLIPPING in config:
        raise ValueError(f"{name} was given a {_CLIPPING}: {_REMEDY}")
    own = inspect.currentframe()
    # From the caller on: this frame's own variables name it, a cycle that would keep the arrays.
    frame = own.f_back if own is not None else None
    del own
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Strategy) and hasattr(caller, _CLIPPING):
            raise ValueError(f"{type(caller).__name__} around {name}: {_REMEDY}")
        frame = frame.f_back


def sits_between(cls: type, own: type) -> bool:
    """Whether a subclass of one of ours may change the arrays between two rounds."""
    return any(getattr(cls, name) is not getattr(own, name) for name in _BETWEEN)


def refuse_other_arrays(name: str, run: Run, server_round: int, arrays: ArrayRecord) -> None:
    """Raise `ValueError` where the model was changed between two rounds.

    The arrays of the run's beginning are let through: loops that are no strategies give them in
    every round.
    """
    if run.model is None or arrays is run.initial:
        return
    if not any(same and _equal(arrays, same) for same in (run.model.arrays(), run.initial)):
        raise ValueError(
            f"round {server_round}: these arrays are not those that {name} returned last: {_REMEDY}"
        )


def _equal(one: ArrayRecord, other: ArrayRecord) -> bool:
    return list(one) == list(other) and all(one[name].data == other[name].data for name in one)
