"""How far the runs of the claims are: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from math import ceil

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.progress import TerminalBar

_LINES = 10  # of a stage, where there is no terminal


class StageProgress(TerminalBar):
    """Shows how many runs of a stage have ended; used inside a `with` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage, self._runs, self._ended = "", 0, 0
        said = TextColumn("{task.description}", markup=False)
        super().__init__(console, BarColumn(bar_width=20), MofNCompleteColumn(), said)
        if self.bar is not None:
            self._task = self.bar.add_task("", total=None)

    def stage(self, name: str, runs: int) -> None:
        """Begin a stage of so many runs."""
        self._stage, self._runs, self._ended = name, runs, 0
        if self.bar is not None:
            self.bar.reset(self._task, total=runs, description=name)
        elif runs:
            self._console.print(f"{name}: {runs} runs", markup=False)

    def run(self, outcome: Outcome) -> None:
        """Show that a run has ended."""
        self._ended += 1
        if self.bar is not None:
            said = f"{self._stage}: {outcome.experiment.label} {outcome.experiment.title}"
            self.bar.update(self._task, completed=self._ended, description=said[:50])
        elif self._ended % ceil(self._runs / _LINES) == 0 or self._ended == self._runs:
            self._console.print(f"  {self._ended}/{self._runs}", markup=False)
