"""Checks of the options that strategies share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowerpress.compressors import make_compressor
from flowerpress.compressors.contraction import contraction

# Whether a compressor has a class depends on the dimension where stages are chained: these are of a
# small model and of one of ordinary size. The model's own is looked at when it is there.
_SOME_DIMS = (2**10, 2**20)


def check_options(options: Mapping[str, object]) -> None:
    """Raise `ValueError` naming the first of the options shared by all strategies that is wrong."""
    for name, value in options.items():
        if name in _CHECKS:
            right, expected = _CHECKS[name]
            require(right(value), name, value, expected)


def dense_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a strategy that takes no compressor, with the identity for all workers.

    Raises
    ------
    ValueError
        There is a compressor among them.
    """
    given = options.get("compressor", "identity")
    require(given == "identity", "compressor", given, f"none: {name} is dense; see dsgd or ef21")
    return {**options, "compressor": "identity", "client_compressors": False}


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
    for dim in _SOME_DIMS:
        check_contraction(spec, ((dim,),))
    return make_compressor(spec).spec


def refuse_signs(spec: str) -> None:
    """Raise `ValueError` for a compressor of numbers in [-1, 1], which gradients are not."""
    require("randsign" not in spec, "compressor", spec, "another: randsign is for birder alone")


def check_contraction(spec: str, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise `ValueError` if error feedback cannot use the compressor for such tensors."""
    try:
        contraction(spec, shapes)
    except ValueError as error:
        dim = sum(math.prod(shape) for shape in shapes)
        raise ValueError(f"compressor {spec!r} for a model of {dim} numbers: {error}") from None


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


def require_positive(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is a number above 0."""
    require(_is_number(value, above=0.0), name, value, "a number > 0")


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


_NOT_NEGATIVE = (_is_number, "a number >= 0")
_COUNT = (lambda value: _is_whole(value, 0), "a whole number >= 0")
_TEXT = (lambda value: isinstance(value, str), "a string")
_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "lr": (lambda value: _is_number(value, above=0.0), "a number > 0"),
    "local_lr": _NOT_NEGATIVE,
    "max_scale": _NOT_NEGATIVE,
    "available_timeout": _NOT_NEGATIVE,
    "hello_timeout": _NOT_NEGATIVE,
    "max_weight": (
        lambda value: _is_number(value) and not 0 < float(str(value)) < 1,
        "a number >= 1, or 0 for no limit",
    ),
    "fraction_train": (
        lambda value: _is_number(value, above=0.0, most=1.0),
        "a number in (0, 1] (with 0 nobody would train)",
    ),
    "fraction_evaluate": (lambda value: _is_number(value, most=1.0), "a number in [0, 1]"),
    "seed": (lambda value: _is_whole(value, 0), "a whole number in 0 ... 2**63 - 1"),
    "local_steps": (lambda value: _is_whole(value, 1), "a whole number >= 1"),
    "min_train_nodes": _COUNT,
    "min_evaluate_nodes": _COUNT,
    "min_available_nodes": _COUNT,
    "weights": (lambda v: v in ("num-examples", "uniform"), "num-examples or uniform"),
    "compressor": _TEXT,
    "downlink": _TEXT,
    "init": _TEXT,
}
