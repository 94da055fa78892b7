"""Strategies by name."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from flowerpress.algorithms import algorithm, algorithm_names
from flowerpress.server.base import CompressedStrategy
from flowerpress.server.options import offered

log = logging.getLogger("flowerpress")


def strategy_names() -> list[str]:
    """Names of the strategies, sorted: flowerpress's own, and those of other packages."""
    return algorithm_names()


def strategy_class(name: str) -> type[CompressedStrategy]:
    """Return the class registered as `name`.

    Raises
    ------
    ValueError
        There is none: lists the names. Or another package's is no strategy: says what it is.
    """
    try:
        cls = algorithm(name).load("strategy")
    except ValueError as error:
        raise ValueError(_naming(name, str(error))) from error
    if not (isinstance(cls, type) and issubclass(cls, CompressedStrategy)):
        raise ValueError(
            f"{cls!r} is registered as strategy {name!r}: expected a subclass of "
            f"flowerpress.strategies.CompressedStrategy whose name is {name!r}"
        )
    if getattr(cls, "name", None) != name:
        raise ValueError(
            f"{cls.__name__} is registered as strategy {name!r}: give it name = {name!r}, as its "
            "entry point has it"
        )
    return cls


def _naming(name: str, said: str) -> str:
    return said if repr(name) in said else f"strategy {name!r} cannot be used: {said}"


def strategy_classes() -> dict[str, type[CompressedStrategy]]:
    """Return the classes of all strategies that can be used, by name; the log names the others."""
    found = {}
    for name in strategy_names():
        try:
            found[name] = strategy_class(name)
        except ValueError as error:
            _warn_once(str(error))
    return found


@cache
def _warn_once(said: str) -> None:
    log.warning("%s", said)


def strategy_options(name: str) -> dict[str, Any]:
    """Return the options of strategy `name` with their defaults, most specific first."""
    return {option: each.default for option, each in offered(strategy_class(name)).items()}


def make_strategy(name: str, **options: Any) -> CompressedStrategy:
    """Return the strategy `name`.

    Parameters
    ----------
    name : str
        One of `strategy_names()`.
    **options
        Its options; see `strategy_options` and the class. numpy's numbers are taken as Python's.

    Raises
    ------
    ValueError
        Unknown name or option (lists the valid ones), or an option out of range.

    Examples
    --------
    >>> make_strategy("ef21", compressor="topk:k=2", lr=0.1).compressor
    'topk:k=2'
    """
    cls = strategy_class(name)
    cls.require_known(options)
    if options.get("lr") == "theory" and "smoothness" not in cls.options:
        able = [each for each, cls in strategy_classes().items() if "smoothness" in offered(cls)]
        raise ValueError(
            f"lr is 'theory': {name} has no formula for it; these have one: {', '.join(able)}"
        )
    return cls(**options)
