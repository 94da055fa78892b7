"""A comparison of runs that were made one by one, read from their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flowerpress.simulations.compare.comparison import Comparison, Result
from flowerpress.simulations.compare.curves import metrics_of
from flowerpress.simulations.compare.found import find_runs, one_each
from flowerpress.simulations.compare.methods import Candidate, Method
from flowerpress.simulations.compare.one_task import require_one_task
from flowerpress.simulations.compare.settings import Settings
from flowerpress.simulations.compare.targets import (
    Link,
    Metric,
    parse_metric,
    parse_target,
    usual_metric,
)
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome


def plotted(
    paths: Sequence[Path], metric: str = "", targets: tuple[str, ...] = (), link: Link | None = None
) -> Comparison:
    """Return runs as a comparison: those that differ in their seed alone are one method.

    What could not be drawn, or is there twice, is told in its `left_out`.

    Parameters
    ----------
    paths : sequence of Path
        See `find_runs`. Of runs of one method and one seed the longest, or else the newest, counts.
    metric : str
        See `parse_metric`. Default: as for a comparison.
    targets : tuple of str
        See `parse_target`.
    link : Link, optional
        What modelled seconds are of.

    Raises
    ------
    ValueError, OSError
        A path has no runs that have ended, they are of different tasks, or none has measured the
        metric or that of a target.
    """
    found, left_out = find_runs(paths)
    require_one_task([each.outcome for each in found])
    outcomes, others = one_each(found, _method)
    first = outcomes[0].experiment
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(_method(outcome), []).append(outcome)
    experiments = [_unseeded(runs[0]) for runs in groups.values()]
    labels = _labels(experiments)
    results = tuple(
        Result(Candidate(label, experiment, "given"), None, tuple(runs))
        for label, experiment, runs in zip(labels, experiments, groups.values(), strict=True)
    )
    seeds = tuple(sorted({outcome.experiment.seed for outcome in outcomes}))
    settings = Settings(
        task=first.task,
        methods=tuple(
            Method(e.strategy, e.compressor, e.strategy_options, label)
            for label, e in zip(labels, experiments, strict=True)
        ),
        seeds=seeds,
        tuning_seeds=(max(seeds) + 1,),  # none was tuned on: these are no one's
        clients=first.clients,
        rounds=first.rounds,
        task_options=first.task_options,
        metric=metric,
        targets=targets,
        link=link or Link(),
    )
    judged = parse_metric(metric) if metric else usual_metric(metrics_of(outcomes))
    for each in [judged, *(parse_target(text).metric for text in targets)]:
        if metric or each != judged:
            _check(each, outcomes)
    return Comparison(settings, judged, results, left_out=(*left_out, *others))


def _check(metric: Metric, outcomes: Sequence[Outcome]) -> None:
    """Raise `ValueError` where no run has measured a metric."""
    if not any(value is not None for run in outcomes for value in metric.series(run)):
        names = ", ".join(metrics_of(outcomes))
        raise ValueError(f"no run has measured {metric.name!r} as one number: there is {names}")


def _method(outcome: Outcome) -> str:
    """Return what runs have alike that differ in their seed alone; how a task was named is none."""
    experiment = replace(_unseeded(outcome), task="")
    return json.dumps(experiment.as_dict(), sort_keys=True)


def _unseeded(outcome: Outcome) -> Experiment:
    """Return a run without what its seed alone decides: by theory, its task's constants too."""
    experiment = replace(outcome.experiment, seed=0, threads=None)
    options = dict(experiment.strategy_options)
    if options.get("lr") == "theory":
        options = {k: v for k, v in options.items() if not k.startswith("smoothness")}
    return replace(experiment, strategy_options=options)


def _labels(experiments: Sequence[Experiment]) -> list[str]:
    """Return names that tell runs apart: strategy and compressor, and where they differ the rest.

    Examples
    --------
    >>> runs = [Experiment(task="digits", strategy="fedavg", strategy_options={"lr": lr})
    ...     for lr in (0.1, 0.3)]
    >>> _labels(runs)
    ['fedavg lr=0.1', 'fedavg lr=0.3']
    """
    parts = [_parts(each) for each in experiments]
    labels = []
    for experiment, mine in zip(experiments, parts, strict=True):
        like = [p for e, p in zip(experiments, parts, strict=True) if e.title == experiment.title]
        told = [
            f"{key}={value}".replace("_", "-")
            for key, value in mine.items()
            if any(other.get(key) != value for other in like)
        ]
        labels.append(" ".join([experiment.title, *told]))
    return labels


def _parts(experiment: Experiment) -> dict[str, object]:
    counts = {"rounds": experiment.rounds, "clients": experiment.clients}
    return {**experiment.strategy_options, **experiment.task_options, **counts}
