"""Metrics: what may be one, whatever library it comes from, and what a peer's may be.

A metric is a number or a list of numbers, as in Flower's `MetricRecord`. Users' functions return
numbers of numpy and torch just as well, and these are no Python numbers: they are taken for what
they stand for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, TypeAlias

log = logging.getLogger("flowerpress")

Metric: TypeAlias = int | float | list[int] | list[float]
"""A number or a list of numbers; NaN and infinity are numbers."""

Metrics: TypeAlias = dict[str, Metric]

_MAX_NAMES = 100  # of one message
_MAX_NUMBERS = 65_536  # of one message, over all its metrics
_MAX_NAME = 80  # letters


class MetricReader:
    """Reads what a user's function returned; says once of each name what cannot be a metric.

    Parameters
    ----------
    source : str
        The function, for the log and the error.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._named: set[str] = set()

    def read(self, values: object) -> Metrics:
        """Return the metrics among `values`, a mapping or None.

        Raises
        ------
        ValueError
            It is something else: says what.

        Examples
        --------
        >>> import numpy as np
        >>> MetricReader("evaluate").read({"accuracy": np.float32(0.5), "recall": np.ones(2)})
        {'accuracy': 0.5, 'recall': [1.0, 1.0]}
        """
        if values is None:
            return {}
        if not isinstance(values, Mapping):
            raise ValueError(
                f"{self._source} returned a {type(values).__name__}: expected metrics by name "
                "(a dictionary or a MetricRecord) or None"
            )
        found: Metrics = {}
        for name, value in values.items():
            metric = as_metric(value)
            if metric is not None:
                found[str(name)] = metric
            elif str(name) not in self._named:
                self._named.add(str(name))
                log.warning(
                    "%s: %r is a %s and left out: a metric is a number or a list of numbers",
                    self._source,
                    name,
                    type(value).__name__,
                )
        return found


def as_metric(value: Any) -> Metric | None:
    """Return the number or list of numbers that `value` stands for; None where it is none.

    Booleans are 0 and 1. Scalars and one-dimensional arrays of numpy, torch and others that have
    `item` and `tolist` are as good as Python's.

    Examples
    --------
    >>> import numpy as np
    >>> [as_metric(value) for value in (True, np.int64(3), np.array(0.5), [1, 2.5], "0.5")]
    [1, 3, 0.5, [1.0, 2.5], None]
    """
    number = _as_number(value)
    if number is not None:
        return number
    values = _as_list(value)
    if values is None:
        return None
    numbers = [_as_number(each) for each in values]
    whole = [number for number in numbers if isinstance(number, int)]
    if len(whole) == len(numbers):
        return whole
    floats = [float(number) for number in numbers if number is not None]
    return floats if len(floats) == len(numbers) else None


def _as_number(value: Any) -> int | float | None:
    """Return the Python number that a scalar stands for."""
    if type(value) is float:
        return value
    try:
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
            value = value.item()
        if isinstance(value, Integral) and abs(int(value)) < 2**63:  # as a message can hold it
            return int(value)
        return float(value) if isinstance(value, Real) else None
    except (OverflowError, RuntimeError, TypeError, ValueError):  # a tensor without values, say
        return None


def _as_list(value: Any) -> list[Any] | None:
    """Return the elements of a list, a tuple, or an array with one axis."""
    if isinstance(value, list | tuple):
        return list(value)
    if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist"):
        try:
            return list(value.tolist())
        except (RuntimeError, TypeError, ValueError):
            return None
    return None


def peer_metrics(items: Iterable[tuple[object, Any]]) -> Metrics:
    """Return the metrics in a peer's message, as far as they are any, in bounded number.

    Names are cut to 80 letters that are safe to print. What is behind the first 100 names or
    65,536 numbers is left out.
    """
    found: Metrics = {}
    room = _MAX_NUMBERS
    for count, (name, value) in enumerate(items):
        size = len(value) if isinstance(value, list) else 1
        if count == _MAX_NAMES or size > room:
            break
        plain = type(value) is float or (type(value) is int and abs(value) < 2**63)
        metric = value if plain else as_metric(value)
        if metric is not None:
            room -= size
            text = str(name)[:_MAX_NAME]
            if not text.isprintable():
                text = "".join(c if c.isprintable() else " " for c in text)
            found[text] = metric
    return found


def finite_numbers(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Return those of the metrics that are single finite numbers: what an algorithm may go by.

    Examples
    --------
    >>> finite_numbers({"loss": 0.5, "recall": [0.5, 1.0], "moved": float("nan")})
    {'loss': 0.5}
    """
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def as_json(value: Any) -> Any:
    """Return plain values as JSON has them: it has no NaN and no infinity, they are null.

    Examples
    --------
    >>> as_json({"loss": float("nan"), "recall": [0.5, float("inf")]})
    {'loss': None, 'recall': [0.5, None]}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: as_json(each) for key, each in value.items()}
    return [as_json(each) for each in value] if isinstance(value, list | tuple) else value
