"""Checks of the options that strategies share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from flowerpress.compressors import make_compressor
from flowerpress.compressors.feedback import contraction

_SOME_DIM = 1024  # whether a compressor has a class at all does not depend on the dimension


_FRACTIONS = ("fraction_train", "fraction_evaluate")
_COUNTS = ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes")
_NOT_NEGATIVE = ("local_lr", "max_scale", "available_timeout", "hello_timeout")


def check_options(options: Mapping[str, object]) -> None:
    """Raise `ValueError` naming the first of the options shared by all strategies that is wrong."""
    for name, value in options.items():
        if name == "lr":
            require(_is_number(value, above=0.0), name, value, "a number > 0")
        elif name in _NOT_NEGATIVE:
            require(_is_number(value), name, value, "a number >= 0")
        elif name in _FRACTIONS:
            require(_is_number(value, most=1.0), name, value, "a number in [0, 1]")
        elif name == "seed":
            require(_is_whole(value, 0), name, value, "a whole number in 0 ... 2**63 - 1")
        elif name == "local_steps":
            require(_is_whole(value, 1), name, value, "a whole number >= 1")
        elif name in _COUNTS:
            require(_is_whole(value, 0), name, value, "a whole number >= 0")
        elif name == "weights":
            known = value in ("num-examples", "uniform")
            require(known, name, value, "num-examples or uniform")
        elif name in ("compressor", "downlink", "init"):
            require(isinstance(value, str), name, value, "a string")


def declared_options(cls: type, root: type) -> dict[str, Any]:
    """Return the keyword options of a class with their defaults, its own before its bases'.

    `root` is the last base whose options count.
    """
    options: dict[str, Any] = {}
    for each in cls.__mro__:
        if not issubclass(each, root):
            break
        for option in inspect.signature(each.__init__).parameters.values():
            if option.kind is option.KEYWORD_ONLY:
                options.setdefault(option.name, option.default)
    return options


def require(held: bool, name: str, value: object, expected: str) -> None:
    """Raise `ValueError` "`name` is `value`: expected ..." unless `held`."""
    if not held:
        raise ValueError(f"{name} is {value!r}: expected {expected}")


def require_contraction(spec: str) -> str:
    """Return `spec`, normalised; raise `ValueError` if error feedback cannot use the compressor."""
    try:
        contraction(spec, ((_SOME_DIM,),))
    except ValueError as error:
        raise ValueError(f"compressor {spec!r}: {error}") from None
    return make_compressor(spec).spec


def require_fraction(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is a number in (0, 1]."""
    held = _is_number(value, most=1.0) and value != 0
    require(held, name, value, "a number in (0, 1]")


def require_number(name: str, value: object, *, least: float = 0.0, most: float = math.inf) -> None:
    """Raise `ValueError` unless `value` is a finite number in [least, most]."""
    number = isinstance(value, float | int) and not isinstance(value, bool)
    held = _is_number(abs(value) if number else None, most=math.inf)  # type: ignore[arg-type]
    bounds = f"a number in [{least:g}, {most:g}]" if most < math.inf else f"a number >= {least:g}"
    require(held and least <= value <= most, name, value, bounds)  # type: ignore[operator]


def require_whole(name: str, value: object, least: int) -> None:
    """Raise `ValueError` unless `value` is a whole number of at least `least`."""
    require(_is_whole(value, least), name, value, f"a whole number >= {least}")


def _is_number(value: object, *, above: float | None = None, most: float = math.inf) -> bool:
    """Whether `value` is a finite number >= 0, above `above` and not above `most`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return (value >= 0 if above is None else value > above) and value <= most


def _is_whole(value: object, least: int) -> bool:
    return type(value) is int and least <= value < 2**63
