"""A comparison in the terminal: its runs as they end, and its table."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from flowerpress.simulations.compare.cells import cells, columns
from flowerpress.simulations.compare.comparison import Comparison
from flowerpress.simulations.compare.report import caption
from flowerpress.simulations.compare.summary import table
from flowerpress.simulations.compare.targets import Metric
from flowerpress.simulations.formats import format_bytes, format_metric
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.verdict import DONE

_HEADS = {"tuning": "step sizes", "seeds": "seeds reported"}


class RunsProgress:
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
        self._bar: Progress | None = None
        if console.is_terminal:
            parts = TextColumn("{task.description}", markup=False), BarColumn(bar_width=12)
            left = TextColumn("eta"), TimeRemainingColumn()
            self._bar = Progress(*parts, MofNCompleteColumn(), *left, console=console)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, kind: str, count: int, outcome: Outcome | None) -> None:
        """Show that `count` runs are to be, or that one of them has ended."""
        if outcome is None:
            self._done = 0
            if count and self._bar is not None:
                self._task = self._bar.add_task(_HEADS[kind], total=count)
            return
        self._done += 1
        if self._bar is not None:
            self._bar.advance(self._task)
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
    """Print the table; where no terminal has a width, as wide as it needs to be."""
    found = table(comparison)
    built = Table(caption=caption(found), box=None, pad_edge=False)
    shown = columns(found)
    for column in shown:
        text = column.get("text", False) or column["key"] == "label"
        built.add_column(Text(column["head"]), justify="left" if text else "right", overflow="fold")
    for row in found.rows:
        texts = cells(row, found)
        built.add_row(*(Text(texts[column["key"]]["text"]) for column in shown))
    if not console.is_terminal:
        options = console.options.update(max_width=1000)
        console.width = max(console.width, built.__rich_measure__(console, options).maximum)
    console.print(built)
