"""What `flowerpress run` does: runs its experiments, and keeps what they gave, whatever ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import typer

from flowerpress.cli.errors import INTERRUPTED, complain

if TYPE_CHECKING:
    from rich.console import Console

    from flowerpress.simulations.experiment import Experiment, PreparedRun
    from flowerpress.simulations.outcome import Outcome
    from flowerpress.simulations.result import SimulationResult


class Training:
    """Experiments that are checked, and the folder that gets their results.

    Parameters
    ----------
    console : Console
        Where progress and results are shown.
    experiments : sequence of Experiment
        The run, and its dense baseline if there is one.
    out : Path
        Gets a new folder.
    checkpoint : Path or None
        Gets a folder of checkpoints for each.
    resume : bool
        Whether to go on from these.
    track : sequence of str
        Names of trackers that are told of each run, see `make_tracker`.

    Raises
    ------
    ValueError, OSError, ImportError
        Something is wrong with an experiment, its data, or the folder: nothing has begun.
    """

    def __init__(
        self,
        console: Console,
        experiments: Sequence[Experiment],
        out: Path,
        checkpoint: Path | None,
        *,
        resume: bool,
        track: Sequence[str] = (),
    ) -> None:
        from flowerpress.simulations.results import make_folder
        from flowerpress.simulations.tracking import require_tracker

        if resume and checkpoint is None:
            raise ValueError("--resume needs --checkpoint")
        for tracker in track:
            require_tracker(tracker)
        self._console, self._track = console, track
        self._runs: list[PreparedRun] = [experiment.prepare() for experiment in experiments]
        self._checkpoints: list[Any] = [
            run.checkpoints(checkpoint / name, resume=resume) if checkpoint else None
            for run, name in zip(self._runs, ("run", "baseline"), strict=False)
        ]
        self._folder = make_folder(out, self._runs[0].experiment, checkpoint, resume=resume)

    def run(self) -> list[Outcome]:
        """Run the experiments, one after the other, and keep and show their results.

        A signal, an error or a full disk ends it with what there is until then.
        """
        from flowerpress.simulations.progress import LiveProgress
        from flowerpress.simulations.result import result_of
        from flowerpress.simulations.tracking import make_trackers

        results: list[SimulationResult] = []
        with Signals() as signals:
            try:
                for run, checkpoints in zip(self._runs, self._checkpoints, strict=True):
                    for line in filter(None, (run.network, run.constants)):
                        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
                    with (
                        LiveProgress(self._console, run.experiment, signals.check) as progress,
                        make_trackers(self._track, self._folder, self._named(run)) as trackers,
                    ):
                        trackers.then = progress
                        trackers.begin(run.experiment.as_dict())
                        results.append(run.simulate(trackers, checkpoints))
                        trackers.end(results[-1])
            except BaseException as error:
                partial = result_of(error)
                results += [partial] if partial is not None and partial.done else []
                self._end_early(results, error)
                raise
            return self._keep(results)

    def _named(self, run: PreparedRun) -> str:
        """Return what a tracker calls a run; where a dense run has a baseline, both are fedavg."""
        return run.experiment.title + (" baseline" if run is not self._runs[0] else "")

    def _end_early(self, results: list[SimulationResult], error: BaseException) -> None:
        """Keep the results so far, and say where; raises `typer.Exit` where it was a signal."""
        from flowerpress.simulations.results import discard

        interrupted = isinstance(error, KeyboardInterrupt)
        if results:
            outcomes = self._keep(results)
            done, asked = results[-1].done, self._runs[0].experiment.rounds
            where = f"round {done} of {asked}" + (" of the baseline" if len(results) > 1 else "")
            told = f"interrupted after {where}: results so far in {self._folder}"
        else:
            discard(self._folder)
            outcomes, told = [], "interrupted before a round had ended: there are no results"
        if interrupted:
            for line in (*closing_lines(outcomes), told):
                complain(line)
            raise typer.Exit(INTERRUPTED) from None

    def _keep(self, results: Sequence[SimulationResult]) -> list[Outcome]:
        """Write the results, and show them."""
        from flowerpress.simulations.outcome import Outcome
        from flowerpress.simulations.results import BASELINE, MODEL, write

        runs: Sequence[PreparedRun] = self._runs
        outcomes = [
            Outcome.of(run.experiment, result) for run, result in zip(runs, results, strict=False)
        ]
        comparable = len(outcomes) == 2 and results[1].stopped is None
        rows, dense = (outcomes[:1], outcomes[1]) if comparable else (outcomes, None)
        models = dict(zip((MODEL, BASELINE), (result.arrays for result in results), strict=False))
        try:
            hints = write(self._folder, rows, dense, models)
        except OSError:
            self._show(rows, dense, [])  # what cannot be written can still be read
            raise
        self._show(rows, dense, [f"results in {self._folder}", *hints])
        return outcomes

    def _show(self, rows: Sequence[Outcome], dense: Outcome | None, lines: Sequence[str]) -> None:
        """Print the closing table, as far as there is anybody to read it."""
        from flowerpress.simulations.report import show

        with suppress(OSError):  # the terminal may be what has ended
            show(self._console, rows, dense)
            for line in lines:
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def closing_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what must be said of runs at the very end; which run is said where there are two."""
    return [
        f"{outcome.experiment.title}: {line}" if len(outcomes) > 1 else line
        for outcome in outcomes
        for line in outcome.verdict.lines
    ]


class Signals:
    """Lets Ctrl-C, SIGTERM and a terminal that is closed end a `with` block as Ctrl-C does.

    Python raises where it happens to be: in a callback of a compiled library that is nowhere, and
    the signal is lost. So what was asked for is remembered, and `check` raises it again.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last is not everywhere
                number = getattr(signal, name, None)
                # What is ignored stays so: nohup has it like that.
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a signal has come."""
        if self._asked:
            raise KeyboardInterrupt

    def _stop(self, number: int, frame: object) -> None:
        # Only who sits at the keyboard may be impatient: a service manager, or a terminal that
        # ends, may send several signals while the results are written.
        again, self._asked = self._asked, True
        if not again or number == signal.SIGINT:
            raise KeyboardInterrupt
