"""The catalogue: what can be named, each with one line and its source."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from flowerpress.compressors import compressor_names
from flowerpress.simulations.tasks import describe, task_names
from flowerpress.strategies import strategy_names


class Entry(NamedTuple):
    """One thing that can be named."""

    name: str
    line: str
    citation: str


def _strategies() -> list[Entry]:
    from flowerpress.strategies import strategy_class

    classes = [(name, strategy_class(name)) for name in strategy_names()]
    return [Entry(name, each.summary_line, each.citation) for name, each in classes]


def _compressors() -> list[Entry]:
    return [Entry(name, "", "") for name in compressor_names()]


def _tasks() -> list[Entry]:
    return [Entry(name, *describe(name)) for name in task_names()]


_LISTS: dict[str, Callable[[], list[Entry]]] = {
    "strategies": _strategies,
    "compressors": _compressors,
    "tasks": _tasks,
}

KINDS = tuple(_LISTS)
"""What :func:`entries` can list."""


def entries(kind: str) -> list[Entry]:
    """Return the entries of one of `KINDS`, sorted by name."""
    return sorted(_LISTS[kind]())
