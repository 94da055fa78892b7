"""Live progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from math import ceil
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from flowerpress.server.rounds import closing
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.formats import format_bytes, format_metrics
from flowerpress.simulations.recorder import RoundRecord

PLAIN_LINES = 20


class _WarningsOnce(logging.Handler):
    """Prints the first warning of each kind: what one client meets, all may meet in every round."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._seen: set[tuple[str, int]] = set()
        self._unshown = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == closing.name:  # said at the very end
            return
        text, kind = record.getMessage(), (record.pathname, record.lineno)
        if record.name == "py.warnings":  # "file:line: category: text", and below it the source
            text = text.partition("\n")[0].partition(": ")[2]
            kind = (text, 0)
        if kind in self._seen:
            self._unshown += 1
            return
        self._seen.add(kind)
        self._print(" ".join(text.split()))
        if record.exc_info and os.environ.get("FLOWERPRESS_TRACEBACK"):
            self._console.print(logging.Formatter().formatException(record.exc_info), markup=False)

    def close(self) -> None:
        """Say how many more there were."""
        if self._unshown:
            self._print(f"{self._unshown} more like these")
            self._unshown = 0
        super().close()

    def _print(self, text: str) -> None:
        self._console.print(f"  warning: {text}", markup=False, highlight=False, soft_wrap=True)


class TerminalBar:
    """A bar that a terminal shows while a `with` block lasts, and nobody else.

    Parameters
    ----------
    console : Console
        Where to show it; where that is no terminal, `bar` is None.
    *columns
        Of rich's `Progress`, before the time that is left.
    """

    def __init__(self, console: Console, *columns: ProgressColumn) -> None:
        self.bar: Progress | None = None
        if console.is_terminal:
            left = TextColumn("eta"), TimeRemainingColumn()
            self.bar = Progress(*columns, *left, console=console)

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()


class LiveProgress(TerminalBar):
    """Shows one run's rounds as they end; call it with each `RoundRecord`, inside a `with` block.

    Warnings of flowerpress and of Python show there too, while the block lasts, the first of each
    kind only.

    Parameters
    ----------
    console : Console
        Where to show it. Not a terminal: about twenty plain lines over the whole run, so that a
        log stays readable.
    experiment : Experiment
        What runs.
    after : callable, optional
        Called after each round was shown; what it raises ends the run.
    """

    def __init__(
        self,
        console: Console,
        experiment: Experiment,
        after: Callable[[], None] | None = None,
    ) -> None:
        self._after = after
        self._console = console
        self._title = f"{experiment.label}: {experiment.title}"
        self._rounds = experiment.rounds
        self._up_bytes = 0
        self._warnings = _WarningsOnce(console)
        self._loggers = [logging.getLogger(name) for name in ("flowerpress", "py.warnings")]
        done = "{task.completed:.0f}/{task.total:.0f} {task.description}"
        super().__init__(console, BarColumn(bar_width=12), TextColumn(done, markup=False))
        if self.bar is not None:
            self._task = self.bar.add_task("starting", total=self._rounds)

    def __enter__(self) -> Self:
        logging.captureWarnings(True)
        for logger in self._loggers:
            logger.addHandler(self._warnings)
        self._print_line(f"{self._title}, {self._rounds} rounds")
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        for logger in self._loggers:
            logger.removeHandler(self._warnings)
        self._warnings.close()
        logging.captureWarnings(False)

    def __call__(self, record: RoundRecord) -> None:
        """Show the round that has just ended."""
        self._up_bytes += record.up_bytes
        status = self._status(record)
        if self.bar is not None:
            self.bar.update(self._task, completed=record.round, description=status)
        elif record.round % ceil(self._rounds / PLAIN_LINES) == 0 or record.round == self._rounds:
            self._print_line(f"  round {record.round}/{self._rounds}  {status}")
        if self._after is not None:
            self._after()

    def resumed(self, records: Sequence[RoundRecord]) -> None:
        """Count what the rounds sent that had ended before the run was resumed."""
        self._up_bytes += sum(record.up_bytes for record in records)

    def _print_line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _status(self, record: RoundRecord) -> str:
        texts = format_metrics("", record.metrics)
        if self.bar is None:  # a bar has to fit in 80 columns
            texts |= format_metrics("clients' ", record.evaluate)
            train = {name: value for name, value in record.train.items() if name == "loss"}
            texts |= format_metrics("train ", train)
        parts = [f"{name} {text}" for name, text in texts.items()]
        return "  ".join([*parts, f"up {format_bytes(self._up_bytes)}"])
