"""A comparison: checked, tuned, run, and what it found."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import ArrayRecord

from flowerpress.protocol import MetricReader
from flowerpress.simulations.compare.index import Index
from flowerpress.simulations.compare.methods import Candidate, candidates
from flowerpress.simulations.compare.runs import run_all
from flowerpress.simulations.compare.settings import Settings
from flowerpress.simulations.compare.targets import (
    Metric,
    Target,
    parse_metric,
    parse_target,
    usual_metric,
)
from flowerpress.simulations.compare.tuning import Judge, Tuned, tune
from flowerpress.simulations.experiment import Experiment, PreparedRun
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.presets.settings import TUNED_ON
from flowerpress.simulations.simulate import initial_arrays

RUNS = "runs"  # the folder of a comparison that has its runs
_PROCESS, _COPIES = 700e6, 6  # bytes of a process; models that a client has at a time
OnRuns = Callable[[str, int, Outcome | None], None]
"""Called with what runs ("tuning", "seeds"), how many there are, and each that has ended."""


@dataclass(frozen=True)
class Result:
    """What one method did.

    Attributes
    ----------
    candidate : Candidate
    tuned : Tuned or None
        Its step size, where that was looked for.
    outcomes : tuple of Outcome
        By the seeds reported, in their order; empty where no step size was found.
    """

    candidate: Candidate
    tuned: Tuned | None
    outcomes: tuple[Outcome, ...]

    @property
    def label(self) -> str:
        """What the comparison calls the method."""
        return self.candidate.label

    @property
    def lr(self) -> float | str | None:
        """Its step size."""
        if self.tuned is not None:
            return self.tuned.lr
        found = self.candidate.experiment.strategy_options.get("lr")
        return found if isinstance(found, float | int | str) else None


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes
    ----------
    settings : Settings
    metric : Metric
        What methods are judged by.
    results : tuple of Result
    refused : mapping of str to str
        Why methods could not run, by their labels.
    left_out : tuple of str
        Of runs that there were already: why some are not in it, a sentence each.
    """

    settings: Settings
    metric: Metric
    results: tuple[Result, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def targets(self) -> list[Target]:
        """What was to be reached."""
        return [parse_target(text) for text in self.settings.targets]


class Plan:
    """A comparison whose methods, options and data are known to be good.

    Parameters
    ----------
    settings : Settings

    Attributes
    ----------
    able : list of Candidate
        The methods that can run.
    refused : dict of str to str
        Why others cannot, by their labels.

    Raises
    ------
    ValueError, OSError, ImportError
        No method can run; a name is unknown; the task, its data or the metric is not there.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        methods, common = settings.methods, settings.common
        self.able, self.refused = candidates(methods, common, settings.rounds)
        presets = [each.label for each in self.able if each.lr == "preset"]
        if presets and (both := sorted({*settings.seeds} & {*TUNED_ON})):
            raise ValueError(
                f"seed {both[0]} is to be reported, and {presets[0]!r} is a preset that was tuned "
                "on it: name other seeds, or a step size"
            )
        if not self.able:
            label, why = next(iter(self.refused.items()))
            raise ValueError(f"no method can run: {label}: {why}")
        first = self.able[0].experiment.prepare()
        model = initial_arrays(first.source.task_fn, first.experiment.clients)
        self.bytes = _bytes(model, settings.clients)
        self.metric = self._metric(first, model)

    @property
    def jobs(self) -> int:
        """Runs that this machine has cores and memory for."""
        return max(1, min(os.cpu_count() or 1, int(_free() / self.bytes)))

    def run(
        self, folder: Path | None = None, jobs: int | None = None, on_runs: OnRuns | None = None
    ) -> Comparison:
        """Choose step sizes, and run every method on every seed; see `run_all`.

        Parameters
        ----------
        folder : Path, optional
            Keeps the runs: what it has already is not run again.
        jobs : int, optional
            Runs at a time. Default: as many as this machine has cores and memory for.
        on_runs : callable, optional
            Is told of the runs that are to be, and of each that has ended.
        """
        settings = self.settings
        kept = folder / RUNS if folder else None
        told = on_runs or (lambda *_: None)
        index = Index(self.able)

        def all_of(kind: str, wanted: Sequence[Experiment]) -> list[Outcome]:
            told(kind, len(wanted), None)
            outcomes = run_all(
                wanted,
                jobs=jobs or self.jobs,
                folder=kept,
                on_done=lambda outcome: told(kind, len(wanted), outcome),
            )
            index.add(kind, wanted, outcomes)
            return outcomes

        todo = [each for each in self.able if each.lr == "tuned"]
        targets = [parse_target(text) for text in settings.targets]
        judge = Judge(self.metric, targets[0] if targets else None)
        seeds = settings.tuning_seeds
        found = tune(todo, settings.lrs, seeds, judge, lambda them: all_of("tuning", them))
        lrs = {label: tuned.lr for label, tuned in found.items()}
        ready = [each for each in self.able if each.lr != "tuned" or lrs[each.label] is not None]
        wanted = [each.run(seed, lrs.get(each.label)) for each in ready for seed in settings.seeds]
        outcomes = iter(all_of("seeds", wanted))
        if kept is not None:
            index.write(kept)
        ran = {each.label: tuple(next(outcomes) for _ in settings.seeds) for each in ready}
        results = (
            Result(each, found.get(each.label), ran.get(each.label, ())) for each in self.able
        )
        return Comparison(settings, self.metric, tuple(results), self.refused)

    def _metric(self, first: PreparedRun, model: ArrayRecord) -> Metric:
        """Return the metric, which the task measures as far as can be known before a run."""
        evaluate, wanted = first.source.evaluate_fn, self.settings.metric
        found = MetricReader("evaluate_fn").read(evaluate(0, model) if evaluate else None)
        measured = sorted(name for name, value in found.items() if isinstance(value, int | float))
        names = [parse_metric(wanted)] if wanted else []
        names += [parse_target(text).metric for text in self.settings.targets]
        for each in names:
            if isinstance(found.get(each.name), list):
                raise ValueError(f"{each.name!r} is a list: a metric to judge by is one number")
            if measured and each.name not in measured:
                raise ValueError(
                    f"the task measures no {each.name!r} on held-out data: it has "
                    f"{', '.join(measured)}"
                )
        return parse_metric(wanted) if wanted else usual_metric(measured)


def _bytes(model: ArrayRecord, clients: int) -> float:
    """Return what a run may take of memory, by a rule of thumb."""
    size = sum(array.numpy().nbytes for array in model.values())
    return _PROCESS + _COPIES * size * (clients + 2)


def _free() -> float:
    """Return the bytes of memory that processes can have, where the system says it: Linux does."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return math.inf
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    available = found.get("MemAvailable", "").split()
    return 1024.0 * int(available[0]) if available else math.inf
