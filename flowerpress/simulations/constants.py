"""Smoothness constants that a task knows, for ``lr="theory"``: the user need not give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowerpress.server.theoretical import TheoreticalStrategy
from flowerpress.server.theory import Smoothness
from flowerpress.simulations.own_task import TaskSource
from flowerpress.strategies import strategy_class, strategy_options


def with_constants(
    name: str, options: Mapping[str, Any], source: TaskSource, clients: int
) -> tuple[dict[str, Any], str]:
    """Return a strategy's options with the task's constants, and a line that tells them.

    Nothing is added unless ``lr`` is ``theory``, `smoothness` is not given, and the task knows its
    constants. An option that is given stays as it is. Where a theorem needs the largest L_i,
    `smoothness_plus` is that.

    Parameters
    ----------
    name : str
        The strategy.
    options : mapping
        What was given, by Python names.
    source : TaskSource
        The task; its `smoothness_of` is asked.
    clients : int
        Number of clients.

    Raises
    ------
    ValueError
        The task's own constants are no numbers above 0.
    """
    strategy, given = strategy_class(name), dict(options)
    theory = given.get("lr") == "theory" and issubclass(strategy, TheoreticalStrategy)
    if not theory or given.get("smoothness") or source.smoothness_of is None:
        return given, ""
    defaults = strategy_options(name)
    weights = given.get("weights", defaults["weights"])
    found = _asked(source, clients, str(weights))
    if found is None:
        return given, ""
    largest = issubclass(strategy, TheoreticalStrategy) and strategy.plus_is_largest
    plus = (found.L_max or found.plus) if largest else found.plus
    constants = {"smoothness": found.L, "smoothness_plus": plus, "smoothness_pm": found.pm}
    if found.L_batch:
        constants["smoothness_batch"] = found.L_batch
    added = {k: v for k, v in constants.items() if k in defaults and k not in given}
    told = " ".join(f"{key.replace('_', '-')}={value:.6g}" for key, value in added.items())
    return {**given, **added}, f"lr by theory, with the task's own constants: {told}"


def _asked(source: TaskSource, clients: int, weights: str) -> Smoothness | None:
    """Return the task's constants; raises `ValueError` where they are none."""
    from flowerpress.simulations.tasks import ShippedTaskFn

    if source.smoothness_of is None:
        return None
    if isinstance(source.task_fn, ShippedTaskFn):
        return source.task_fn.smoothness_of(clients, weights)
    found = source.smoothness_of(clients)
    if found is None or (isinstance(found, Smoothness) and found.L > 0):
        return found
    try:
        constant = float(found)
    except (TypeError, ValueError):
        constant = 0.0
    if not 0 < constant < float("inf"):
        raise ValueError(
            f"the task's smoothness_of({clients}) gave {found!r}: return L, a number above 0, or "
            "Smoothness(L, L_plus, L_pm) of flowerpress.server.theory"
        )
    return Smoothness(constant)
