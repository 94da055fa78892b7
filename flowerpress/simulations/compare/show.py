"""A comparison in the terminal: its runs as they end, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table
from rich.text import Text

from flowerpress.simulations.compare.cells import Cell, cells, columns
from flowerpress.simulations.compare.comparison import Comparison
from flowerpress.simulations.compare.report import caption
from flowerpress.simulations.compare.summary import Table as Found
from flowerpress.simulations.compare.summary import table
from flowerpress.simulations.compare.targets import Metric
from flowerpress.simulations.formats import format_bytes, format_metric
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.progress import TerminalBar
from flowerpress.simulations.verdict import DONE

_SPARED = ("wall", "range", "seconds*", "down", "total*", "ratio", "rounds", "lr")
"""Columns that a narrow terminal does without, in this order; with a star those of targets too."""
_FOLDED = 22  # letters of a sentence or a name that is folded, in a line
_Column = dict[str, Any]
_HEADS = {"tuning": "step sizes", "seeds": "seeds reported"}


class RunsProgress(TerminalBar):
    """Shows runs as they end: a bar on a terminal, a line each elsewhere; in a `with` block.

    Parameters
    ----------
    console : Console
    metric : Metric
        Which figure of a run to show.
    """

    def __init__(self, console: Console, metric: Metric) -> None:
        self._console, self._metric = console, metric
        self._done = 0
        said = TextColumn("{task.description}", markup=False)
        super().__init__(console, said, BarColumn(bar_width=12), MofNCompleteColumn())

    def __call__(self, kind: str, count: int, outcome: Outcome | None) -> None:
        """Show that `count` runs are to be, or that one of them has ended."""
        if outcome is None:
            self._done = 0
            if count and self.bar is not None:
                self._task = self.bar.add_task(_HEADS[kind], total=count)
            return
        self._done += 1
        if self.bar is not None:
            self.bar.advance(self._task)
        self._print(f"{_HEADS[kind]} {self._done}/{count}  {self._line(outcome)}")

    def _line(self, outcome: Outcome) -> str:
        experiment = outcome.experiment
        lr = experiment.strategy_options.get("lr")
        head = f"{experiment.title}{'' if lr is None else f' lr={lr}'} seed {experiment.seed}:"
        if outcome.status != DONE:
            return f"{head} {outcome.reason or outcome.status}"
        reached = format_metric(self._metric.name, self._metric.final(outcome))
        sent = format_bytes(outcome.up_training)
        return f"{head} {self._metric.name} {reached}, up {sent}, {outcome.seconds:.0f} s"

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def show(console: Console, comparison: Comparison) -> None:
    """Print the table; where no terminal has a width, as wide as it needs to be.

    In a terminal columns are left out until figures are whole; the files have all of them.
    """
    found = table(comparison)
    rows = [cells(row, found) for row in found.rows]
    shown, left_out = columns(found), []
    built = _built(found, shown, rows)
    options = console.options.update(max_width=1000)
    wanted = built.__rich_measure__(console, options).maximum
    if not console.is_terminal:
        console.width = max(console.width, wanted)
    elif wanted > console.width:
        for kind in _SPARED:
            if _needs(shown, rows) <= console.width:
                break
            lost = [column for column in shown if fnmatchcase(column["key"], kind)]
            left_out += [column["head"] for column in lost]
            shown = [column for column in shown if column not in lost]
        console.width = max(console.width, _needs(shown, rows))  # else the terminal folds lines
        built = _built(found, shown, rows, spare=console.width - _needs(shown, rows))
    console.print(built)
    if left_out:
        names = ", ".join(dict.fromkeys(left_out))
        console.print(f"not shown for want of width: {names}", markup=False)


def _built(
    found: Found,
    shown: Sequence[_Column],
    rows: Sequence[dict[str, Cell]],
    spare: int | None = None,
) -> Table:
    """Return some columns as a table for the terminal.

    Parameters
    ----------
    found : Found
    shown : sequence of dict
        The columns.
    rows : sequence of dict
        Their cells.
    spare : int, optional
        With it columns are as narrow as they can be, but for the last, which has so many letters
        more: what is folded is sentences, names and heads.
    """
    built = Table(caption=caption(found), box=None, pad_edge=False)
    for column in shown:
        width = None if spare is None else _least(column, rows)
        if width is not None and spare and column is shown[-1]:
            width += spare
        justify: Literal["left", "right"] = "left" if _folds(column) else "right"
        built.add_column(Text(column["head"]), justify=justify, overflow="fold", width=width)
    for row in rows:
        built.add_row(*(Text(row[column["key"]]["text"]) for column in shown))
    return built


def _needs(shown: Sequence[_Column], rows: Sequence[dict[str, Cell]]) -> int:
    """Return the width that a table needs at least."""
    return sum(_least(column, rows) + 2 for column in shown)


def _folds(column: _Column) -> bool:
    return "text" in column or column["key"] == "label"


def _least(column: _Column, rows: Sequence[dict[str, Cell]]) -> int:
    """Return the width that a column needs: that of its figures, and of the words of its head."""
    longest = max((len(row[column["key"]]["text"]) for row in rows), default=0)
    if _folds(column):
        longest = min(longest, _FOLDED)
    return max([longest, *map(len, column["head"].split())])
