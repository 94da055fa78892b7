"""Tuned settings: what `flowerpress run TASK --strategy NAME` is without any other option.

Each task has a module with its presets. Those of `mnist` are for every strategy; other tasks have
some for the methods that they are made to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from flowerpress.simulations.presets import (
    breast_cancer,
    divergence,
    mnist,
    quadratic,
    resnet,
    text,
)
from flowerpress.simulations.presets.settings import Preset, Work

if TYPE_CHECKING:
    from flowerpress.simulations.experiment import Experiment

__all__ = ["PRESETS", "Preset", "Work", "describe", "find_preset", "preset"]

PRESETS: Mapping[str, Mapping[str, Preset]] = {
    "breast-cancer": breast_cancer.PRESETS,
    "divergence": divergence.PRESETS,
    "mnist": mnist.PRESETS,
    "quadratic": quadratic.PRESETS,
    "resnet": resnet.PRESETS,
    "text": text.PRESETS,
}
"""By task, then by strategy."""


def find_preset(task: str, strategy: str) -> Preset | None:
    """Return the preset of a strategy on a task, if there is one."""
    return PRESETS.get(task, {}).get(strategy)


def preset(experiment: Experiment) -> Experiment:
    """Return the experiment with its preset's settings, if it has one and gives no own.

    An experiment without any option of the strategy or the task, and without a compressor, gets the
    preset of its strategy on its task; others are returned as they are. The graph of gossip is no
    such option: like the number of clients, it is the experiment's own.
    """
    given = dict(experiment.strategy_options)
    topology = {"topology": given.pop("topology")} if "topology" in given else {}
    own = given or experiment.task_options or experiment.compressor
    found = find_preset(experiment.task, experiment.strategy)
    if own or found is None:
        return experiment
    work = found.work
    return replace(
        experiment,
        compressor=found.compressor,
        rounds=work.rounds,
        strategy_options={**work.strategy, **found.strategy, **topology},
        task_options={**work.task, **found.task},
    )


def describe(experiment: Experiment) -> str:
    """Return an experiment's settings in one line, as options of the command line.

    Examples
    --------
    >>> from flowerpress.simulations.experiment import Experiment
    >>> describe(preset(Experiment(task="mnist", strategy="ef21")))
    'preset: --rounds 200 --compressor topk:0.01 -S lr=0.2 -T partition=dirichlet:0.5 -T model=mlp \
-T batch-size=0'
    """
    words = [f"preset: --rounds {experiment.rounds}"]
    if experiment.compressor:
        words.append(f"--compressor {experiment.compressor}")
    for flag, given in (("-S", experiment.strategy_options), ("-T", experiment.task_options)):
        words += [f"{flag} {key.replace('_', '-')}={value}" for key, value in given.items()]
    return " ".join(words)
