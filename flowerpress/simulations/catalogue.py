"""The catalogue: what can be named, each with one line and its source."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import cleandoc
from typing import Any, NamedTuple

from flowerpress.compressors import compressor_names
from flowerpress.compressors.spec.registry import compressor_class
from flowerpress.simulations.own_task import installed
from flowerpress.simulations.tasks import describe, task_names
from flowerpress.strategies import strategy_class, strategy_names


class Entry(NamedTuple):
    """One thing that can be named."""

    name: str
    line: str
    citation: str


def _strategies() -> list[Entry]:
    classes = [(name, strategy_class(name)) for name in strategy_names()]
    return [
        Entry(name, each.summary_line or _summary(each)[0], each.citation) for name, each in classes
    ]


def _compressors() -> list[Entry]:
    return [Entry(name, *_summary(compressor_class(name))) for name in compressor_names()]


def _summary(cls: Any) -> tuple[str, str]:
    """Return a docstring's first paragraph, and the papers it cites: `(Author, ..., YEAR, ...)`.

    Examples
    --------
    >>> _summary(compressor_class("topk"))[1]
    'Stich et al., "Sparsified SGD with memory", NeurIPS 2018'
    """
    text = cleandoc(cls.__doc__ or "")
    papers = re.findall(r"\(([A-Z][^()]*\b(?:19|20)\d\d\b[^()]*)\)", text)
    first, *rest = (" ".join(part.split()) for part in (text.partition("\n\n")[0], *papers))
    return first.replace("``", ""), "; ".join(rest)


def _tasks() -> list[Entry]:
    others = [Entry(name, *_summary(task_fn)) for name, task_fn in installed().found.items()]
    return [*(Entry(name, *describe(name)) for name in task_names()), *others]


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
