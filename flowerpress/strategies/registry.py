"""Strategies by name."""

from __future__ import annotations

from typing import Any

from flowerpress.algorithms import algorithm, algorithm_names
from flowerpress.server.base import CompressedStrategy
from flowerpress.server.options import offered


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
    cls = algorithm(name).load("strategy")
    if not (isinstance(cls, type) and issubclass(cls, CompressedStrategy) and cls.name == name):
        raise ValueError(
            f"{cls!r} is registered as strategy {name!r}: expected a subclass of "
            f"flowerpress.strategies.CompressedStrategy whose name is {name!r}"
        )
    return cls


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
        able = [each for each in strategy_names() if "smoothness" in strategy_options(each)]
        raise ValueError(
            f"lr is 'theory': {name} has no formula for it; these have one: {', '.join(able)}"
        )
    return cls(**options)
