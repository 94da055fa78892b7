"""The catalogue: what can be named, each with one line and its source."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import cleandoc
from typing import Any, NamedTuple

from flowerpress.algorithms import algorithm_faults
from flowerpress.compressors import compressor_names
from flowerpress.compressors.spec.registry import compressor_class, compressor_faults
from flowerpress.dropin.settings import PREFIX, Settings
from flowerpress.simulations.own_task import installed
from flowerpress.simulations.tasks import describe, task_names, task_options
from flowerpress.strategies import (
    CompressedStrategy,
    Option,
    offered,
    strategy_class,
    strategy_names,
)
from flowerpress.strategies.registry import strategy_classes
from flowerpress.suggestions import unknown


class Entry(NamedTuple):
    """One thing that can be named."""

    name: str
    line: str
    citation: str


def _strategies() -> list[Entry]:
    return [
        Entry(name, each.summary_line or _summary(each)[0], each.citation)
        for name, each in strategy_classes().items()
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


def _apps() -> list[Entry]:
    return [Entry("dropin", _summary(Settings)[0].replace("`", ""), "")]


_LISTS: dict[str, Callable[[], list[Entry]]] = {
    "strategies": _strategies,
    "compressors": _compressors,
    "tasks": _tasks,
    "apps": _apps,
}

KINDS = tuple(_LISTS)
"""What :func:`entries` can list."""


def entries(kind: str) -> list[Entry]:
    """Return the entries of one of `KINDS`, sorted by name."""
    return sorted(_LISTS[kind]())


class Row(NamedTuple):
    """One option, as it is shown."""

    name: str  # as on a command line
    default: str
    values: str
    letter: str
    meaning: str


class Page(NamedTuple):
    """What there is to know of one thing that can be named."""

    entry: Entry
    parts: dict[str, list[Row]]  # by their titles
    text: str = ""


def page(name: str) -> Page:
    """Return what there is to know of a strategy, a compressor, a task or the drop-in.

    Raises
    ------
    ValueError
        There is nothing of this name: suggests one. Or a package has one that cannot be used: says
        why.

    Examples
    --------
    >>> page("ef21-sgdm").parts["its own options"][0]
    Row(name='momentum', default='0.1', values='a number in (0, 1]', letter='eta', \
meaning='Weight of the NEW gradient; 1 is EF21 without momentum.')
    """
    for kind in KINDS:
        for entry in entries(kind):
            if entry.name == name:
                return _PAGES[kind](entry)
    faults = {**installed().faults, **compressor_faults(), **algorithm_faults()}
    if name in faults:
        raise ValueError(faults[name])
    if name in strategy_names():  # with a half that cannot be imported, or is none
        strategy_class(name)
    every = [entry.name for kind in KINDS for entry in entries(kind)]
    names, where = (*KINDS, "all", *every), "`flowerpress list` shows all"
    raise ValueError(unknown(f"there is nothing named {name!r}", name, names, where=where))


def option_rows(cls: type[CompressedStrategy]) -> tuple[list[Row], list[Row]]:
    """Return a strategy's own options, and those that it has as all strategies have them."""
    common = CompressedStrategy.options
    every = {name: each for name, each in offered(cls).items() if each.default is not None}
    own = {name: each for name, each in every.items() if common.get(name) != each}
    rest = {name: each for name, each in every.items() if name not in own}
    return [_row(*pair) for pair in own.items()], [_row(*pair) for pair in rest.items()]


def _row(name: str, each: Option) -> Row:
    default = str(each.default).lower() if isinstance(each.default, bool) else str(each.default)
    if isinstance(each.default, tuple):
        default = ",".join(each.default)  # as a run config takes it
    values = each.values.text if each.values else ""
    return Row(name.replace("_", "-"), default, values, each.letter, each.says)


def _strategy_page(entry: Entry) -> Page:
    own, common = option_rows(strategy_class(entry.name))
    return Page(entry, {"its own options": own, "options of all strategies": common})


def _compressor_page(entry: Entry) -> Page:
    return Page(entry, {}, cleandoc(compressor_class(entry.name).__doc__ or ""))


def _task_page(entry: Entry) -> Page:
    shipped = entry.name in task_names()
    options = ", ".join(("partition", *task_options(entry.name))) if shipped else "none"
    return Page(entry, {}, f"options: {options.replace('_', '-')}")


def _app_page(entry: Entry) -> Page:
    rows = [_row(PREFIX + name, each) for name, each in offered(Settings).items()]
    return Page(
        entry,
        {"keys of the run config; after the dot, with _ for -, options of @pressed": rows},
        f'{PREFIX}compressor = "" presses nothing; other keys that are empty are as in the code.\n'
        "`flwr run --run-config` takes keys that the app's pyproject.toml has, and no others.",
    )


_PAGES = {
    "strategies": _strategy_page,
    "compressors": _compressor_page,
    "tasks": _task_page,
    "apps": _app_page,
}
