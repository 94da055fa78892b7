"""The methods of a comparison: strategies with compressors and options, by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flowerpress.compressors import make_compressor
from flowerpress.server.ladder import is_auto
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.options import Option, merge_options
from flowerpress.simulations.presets import preset
from flowerpress.strategies import strategy_class, strategy_options

# A comma between specs, and not one between a compressor's options, as in `cq:5,c=5`.
_BETWEEN = re.compile(r",(?![\w-]+=)")
_OPTION = re.compile(r"([\w-]+)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Method:
    """One row of a comparison, but for its step size.

    Attributes
    ----------
    strategy : str
    compressor : str or None
        None: the preset's, or else the strategy's default.
    options : mapping
        Options of the strategy, over those that all methods have. With ``lr`` its step size is
        given, and not looked for.
    name : str
        What tables and plots call it; empty: strategy and compressor.
    """

    strategy: str
    compressor: str | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    name: str = ""

    def experiment(self, common: Experiment) -> Experiment:
        """Return the run of this method, of what all methods share."""
        return replace(
            common,
            strategy=self.strategy,
            compressor=self.compressor,
            strategy_options={**common.strategy_options, **self.options},
        )


def parse_method(text: str) -> Method:
    """Return the method ``STRATEGY [COMPRESSOR] [KEY=VALUE...]``; ``name=`` gives it a name.

    Raises
    ------
    ValueError
        It is none.

    Examples
    --------
    >>> parse_method("ef14 cq:5,c=5 lr=0.1 name=ours")
    Method(strategy='ef14', compressor='cq:5,c=5', options={'lr': 0.1}, name='ours')
    """
    strategy, *words = text.split() or [""]
    if not strategy or _OPTION.fullmatch(strategy):
        raise ValueError(f"method {text!r}: expected STRATEGY [COMPRESSOR] [KEY=VALUE...]")
    pairs = [word for word in words if _OPTION.fullmatch(word)]
    specs = [word for word in words if word not in pairs]
    if len(specs) > 1:
        raise ValueError(f"method {text!r} has two compressors, {specs[0]} and {specs[1]}")
    options = merge_options(f"method {text!r}:", pairs)
    given = options.pop("compressor", None)
    if given is not None and specs:
        raise ValueError(f"method {text!r} has two compressors, {specs[0]} and {given}")
    name = str(options.pop("name", ""))
    compressor = specs[0] if specs else (None if given is None else str(given))
    return Method(strategy, compressor, options, name)


def split_specs(texts: Iterable[str]) -> list[str]:
    """Return the names in lists with commas between them, each once.

    Examples
    --------
    >>> split_specs(["topk:0.01,hadamard+cq:3,c=16+rans", "sign, topk:0.01"])
    ['topk:0.01', 'hadamard+cq:3,c=16+rans', 'sign']
    """
    found = [part.strip() for text in texts for part in _BETWEEN.split(text)]
    return list(dict.fromkeys(filter(None, found)))


def cross(strategies: Sequence[str], compressors: Sequence[str]) -> list[Method]:
    """Return every strategy with every compressor; one that sends whole updates is there once.

    Raises
    ------
    ValueError
        A name is unknown: says which are known.

    Examples
    --------
    >>> [" ".join(filter(None, (m.strategy, m.compressor))) for m in cross(["fedavg", "ef14"],
    ...     ["topk:0.01", "sign"])]
    ['fedavg', 'ef14 topk:0.01', 'ef14 sign']
    """
    for spec in compressors:
        _require_compressor(spec)
    methods = []
    for name in strategies:
        takes = "compressor" in strategy_options(name)
        methods += [Method(name, spec) for spec in (compressors if takes else ()) or (None,)]
    return methods


@dataclass(frozen=True)
class Candidate:
    """A method that can run, as a run without its seed.

    Attributes
    ----------
    label : str
        What the comparison calls it; no other has it.
    experiment : Experiment
        With seed 0; with the step size, where that is known.
    lr : str
        Where its step size comes from: "given", "preset" or "tuned".
    """

    label: str
    experiment: Experiment
    lr: str

    def run(self, seed: int, lr: float | None = None) -> Experiment:
        """Return the run with a seed, and a step size where that is looked for."""
        experiment = replace(self.experiment, seed=seed)
        if lr is not None:
            options = {**experiment.strategy_options, "lr": lr}
            experiment = replace(experiment, strategy_options=options)
        return experiment

    @property
    def dense(self) -> bool:
        """Whether it sends whole updates."""
        return strategy_class(self.experiment.strategy).baseline == self.experiment.strategy


def candidates(
    methods: Sequence[Method], common: Experiment, rounds: int | None
) -> tuple[list[Candidate], dict[str, str]]:
    """Return the methods that can run, and of the others why they cannot, by their labels.

    A method without options of its own is its tuned preset, where there is one for the task.

    Parameters
    ----------
    methods : sequence of Method
    common : Experiment
        Task, clients, seed, and the options that all have.
    rounds : int or None
        Of every run. None: the preset's, or 50.

    Raises
    ------
    ValueError
        For a name that is unknown, or two methods that are the same.
    OSError
        The task's data cannot be read.
    """
    able: list[Candidate] = []
    unable: dict[str, str] = {}
    for method in methods:
        strategy_class(method.strategy)  # a name that is unknown is a mistake, not a refusal
        if method.compressor is not None:
            _require_compressor(method.compressor)
        plain = method.experiment(common)
        tuned = preset(plain)
        if rounds is not None:
            tuned = replace(tuned, rounds=rounds)
        lr = "given" if "lr" in plain.strategy_options else "tuned"
        if lr == "tuned" and "lr" in tuned.strategy_options:
            lr = "preset"
        label = method.name or _label(method, tuned)
        try:
            prepared = tuned.prepare()
        except ValueError as error:
            _new(label, [each.label for each in able], unable)
            unable[label] = " ".join(str(error).split())
            continue
        # A step size by theory is of the task of each seed, so the constants of this one stay here.
        tuned = replace(tuned, compressor=prepared.experiment.compressor)
        label = method.name or _label(method, tuned)
        _new(label, [each.label for each in able], unable)
        able.append(Candidate(label, tuned, lr))
    return able, unable


def _new(label: str, *known: Collection[str]) -> None:
    """Raise `ValueError` where another method has a label."""
    if any(label in each for each in known):
        raise ValueError(f"two methods are {label!r}: give one a name, as name=NAME")


def _label(method: Method, experiment: Experiment) -> str:
    """Return strategy, compressor and the method's own options."""
    own = [f"{key}={value}".replace("_", "-") for key, value in method.options.items()]
    return " ".join([experiment.title, *own])


def _require_compressor(spec: str) -> None:
    """Raise `ValueError` for what is no compressor here, saying why."""
    if is_auto(spec):
        raise ValueError(
            f"compressor is {spec!r}: it goes by how fast each client's link is, and the clients "
            "of a comparison have none; compare the steps of its ladder, or use flowerpress serve"
        )
    make_compressor(spec)
