"""A Flower run config, read as an experiment.

Every key of ``[tool.flwr.app.config]`` is one of three: the run's own (`RUN_KEYS`), the task's
(`TASK_KEYS`), or else the strategy's. Flower takes no key that the app's pyproject.toml does not
have, so options of other packages' strategies come in one text, ``strategy-options``. An empty text
means "not given": the strategy or the task then takes its own default, so a key that an algorithm
does not have does harm only when given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from flowerpress.simulations.options import Option, merge_options
from flowerpress.suggestions import unknown

DEFAULTS: dict[str, bool | int | float | str] = {
    "strategy": "ef21-sgdm",
    "task": "digits",
    "num-server-rounds": 20,
    "round-timeout": 3600,
    "seed": 0,
    "strategy-options": "",
    "out": "",
    "checkpoint": "",
    "checkpoint-every": 1,
    "resume": False,
}
"""The run's own keys, as in pyproject.toml: all others are "not given" there."""

RUN_KEYS = tuple(DEFAULTS)
TASK_KEYS = (
    "partition",
    "backend",
    "batch-size",
    "classes",
    "convexity",
    "dim",
    "equal-shards",
    "example",
    "gradient-noise",
    "hidden",
    "lam",
    "model",
    "noise",
    "path",
    "source",
    "test-path",
    "x0",
)
HOST_KEYS = ("backend", "batch-size", "path", "test-path")
"""What a node may say of its own in its node config: how it computes, and where its data lie."""

Config = Mapping[str, bool | int | float | str]


class TaskChoice(NamedTuple):
    """A shipped task by name, with the options that were given."""

    name: str
    seed: int
    options: tuple[tuple[str, Option], ...]


def task_choice(run_config: Config, node_config: Config | None = None) -> TaskChoice:
    """Return the task of a run, as one node is to compute it.

    Parameters
    ----------
    run_config : mapping
        The run's config.
    node_config : mapping, optional
        The node's config; its `HOST_KEYS` go before the run's. None: the server.

    Raises
    ------
    ValueError
        The run config lacks a key, or a value has the wrong type.

    Examples
    --------
    >>> config = {"task": "digits", "seed": 7, "backend": "torch", "batch-size": "", "lr": 0.1}
    >>> task_choice(config, {"backend": "numpy", "partition-id": 0})
    TaskChoice(name='digits', seed=7, options=(('backend', 'numpy'),))
    """
    own = {key: value for key, value in (node_config or {}).items() if key in HOST_KEYS}
    given = _given({**run_config, **own}, TASK_KEYS)
    name, seed = _text(run_config, "task"), _whole(run_config, "seed")
    return TaskChoice(name, seed, tuple(sorted(given.items())))


def strategy_choice(run_config: Config) -> tuple[str, dict[str, Option]]:
    """Return the strategy's name, and the options that were given, by their Python names.

    Raises
    ------
    ValueError
        The run config lacks a key, has one that nothing knows, or a value has the wrong type; or an
        option is given twice.

    Examples
    --------
    >>> config = {"strategy": "ef21", "task": "digits", "seed": 7, "local-steps": 2, "momentum": ""}
    >>> strategy_choice(config)
    ('ef21', {'local_steps': 2, 'seed': 7})
    >>> strategy_choice({**config, "strategy-options": "weights=uniform init-batches=3"})[1]
    {'local_steps': 2, 'weights': 'uniform', 'init_batches': 3, 'seed': 7}
    """
    from flowerpress.strategies import offered  # no client needs them
    from flowerpress.strategies.registry import strategy_classes

    keys = sorted(set(run_config) - {*RUN_KEYS, *TASK_KEYS})
    options = _given(run_config, keys)
    known = {option for cls in strategy_classes().values() for option in offered(cls)}
    for option in sorted(set(options) - known):
        key = next(each for each in keys if each.replace("-", "_") == option)
        names = {each.replace("_", "-") for each in known}
        every = sorted({*RUN_KEYS, *TASK_KEYS, *names})
        where = "`flowerpress list NAME` shows the options of a strategy or a task"
        raise ValueError(unknown(f"no run has a key {key!r}", key, every, "keys are", where))
    more = _text({"strategy-options": "", **run_config}, "strategy-options").split()
    options = merge_options("strategy-options", more, **options)
    return _text(run_config, "strategy"), {**options, "seed": _whole(run_config, "seed")}


class Schedule(NamedTuple):
    """How long a run is, how long it waits, where its result goes, and where it is saved."""

    rounds: int
    timeout: float
    out: str
    checkpoint: str = ""
    every: int = 1
    resume: bool = False


def schedule(run_config: Config) -> Schedule:
    """Return the run's rounds, its deadline for replies in seconds, and where files go.

    The keys ``checkpoint``, ``checkpoint-every`` and ``resume`` may be missing.

    Raises
    ------
    ValueError
        A key is missing, or its value has the wrong type or is out of range.

    Examples
    --------
    >>> schedule({"num-server-rounds": 3, "round-timeout": 60, "out": ""})
    Schedule(rounds=3, timeout=60.0, out='', checkpoint='', every=1, resume=False)
    """
    rounds, timeout = _whole(run_config, "num-server-rounds"), _value(run_config, "round-timeout")
    if rounds < 1:
        raise ValueError(f"num-server-rounds is {rounds}: expected at least 1")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise ValueError(f"round-timeout is {timeout!r}: expected a number of seconds above 0")
    default: dict[str, Option] = {"checkpoint": "", "checkpoint-every": 1, "resume": False}
    saved = {**default, **run_config}
    folder, every = _text(saved, "checkpoint"), _whole(saved, "checkpoint-every")
    resume = saved["resume"]
    if not isinstance(resume, bool) or (resume and not folder):
        raise ValueError(f"resume is {resume!r}: expected false, or true where checkpoint is given")
    return Schedule(rounds, float(timeout), _text(run_config, "out"), folder, every, resume)


def _given(config: Config, keys: tuple[str, ...] | list[str]) -> dict[str, Option]:
    """Return what `config` says under `keys`, by Python names; empty texts say nothing."""
    return {key.replace("-", "_"): config[key] for key in keys if config.get(key, "") != ""}


def _value(config: Config, key: str) -> Option:
    if key not in config:
        raise ValueError(
            f"the run config has no {key!r}: run flowerpress's own Flower App, or give your app's "
            "[tool.flwr.app.config] the same keys"
        )
    return config[key]


def _text(config: Config, key: str) -> str:
    value = _value(config, key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is {value!r}: expected a text in quotes")
    return value


def _whole(config: Config, key: str) -> int:
    value = _value(config, key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}: expected a whole number")
    return value
