"""Options of the shipped tasks: each is read by a small function that says what it accepts.

Values may come as text from a command line or a run config, so every reader takes text as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from flowerpress.suggestions import did_you_mean, unknown

Reader: TypeAlias = Callable[[Any], Any]
"""Turns a given value into a checked one, or raises `ValueError` saying what is accepted."""


def whole(minimum: int) -> Reader:
    """Accept whole numbers from `minimum` on."""

    def read(value: Any) -> int:
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if not isinstance(number, int) or isinstance(number, bool) or number < minimum:
            raise ValueError(f"expected a whole number, at least {minimum}, not {value!r}")
        return number

    return read


def real(minimum: float) -> Reader:
    """Accept finite numbers from `minimum` on."""

    def read(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not (math.isfinite(number) and number >= minimum):
            raise ValueError(f"expected a number, at least {minimum:g}, not {value!r}")
        return number

    return read


def choice(*names: str) -> Reader:
    """Accept one of `names`."""

    def read(value: Any) -> str:
        if value not in names:
            guess = did_you_mean(str(value), names)
            raise ValueError(f"expected one of {', '.join(names)}, not {value!r}{guess}")
        return str(value)

    return read


def batch_size(value: Any) -> int | None:
    """Accept a number of examples; 0 or None is all the data."""
    if value is None:
        return None
    size: int = whole(0)(value)
    return size or None


def path(value: Any) -> str:
    """Accept a file's path."""
    text = str(value) if value is not None else ""
    if not text:
        raise ValueError("expected the path of a file, not an empty text")
    return text


def read_options(
    task: str, readers: Mapping[str, Reader], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Read the given options of `task`; kebab-case and snake_case names are the same.

    Raises
    ------
    ValueError
        For an unknown name (lists the valid ones) or a value its reader refuses.

    Examples
    --------
    >>> read_options("digits", {"batch_size": batch_size}, {"batch-size": "16"})
    {'batch_size': 16}
    """
    values = {}
    for name, value in given.items():
        key = name.replace("-", "_")
        if key not in readers:
            what = f"task {task!r} has no option {name!r}"
            where = f"`flowerpress list {task}` shows all"
            raise ValueError(unknown(what, key, sorted(readers), "it has", where))
        try:
            values[key] = readers[key](value)
        except ValueError as error:
            raise ValueError(f"task {task!r}, option {key!r}: {error}") from None
    return values
