"""What a comparison is of: everything that its figures depend on, as it is written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flowerpress.simulations.compare.methods import Method
from flowerpress.simulations.compare.runs import source_hash
from flowerpress.simulations.compare.targets import Link, parse_metric, parse_target
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.options import Option
from flowerpress.simulations.results import write_json
from flowerpress.user_code import is_file, split_name

SETTINGS = "settings.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a comparison.

    Attributes
    ----------
    task : str
        A shipped task, another package's, or one's own (``./my_task.py``).
    methods : tuple of Method
    seeds : tuple of int
        What is reported is of these.
    tuning_seeds : tuple of int
        Step sizes are looked for on these: none of them may be reported.
    lrs : tuple of float
        The step sizes to look among. Empty: a third, one and three times the strategy's default,
        and on while the best is the last.
    clients : int
    rounds : int or None
        None: the presets', or 50.
    options, task_options : mapping
        Of every strategy, and of the task.
    metric : str
        What methods are judged by, see `parse_metric`; empty: accuracy, or else the squared norm of
        the gradient, or else the loss.
    targets : tuple of str
        See `parse_target`.
    link : Link
        What modelled seconds are of.
    """

    task: str
    methods: tuple[Method, ...]
    seeds: tuple[int, ...] = (2, 3, 4)
    tuning_seeds: tuple[int, ...] = (0, 1)
    lrs: tuple[float, ...] = ()
    clients: int = 10
    rounds: int | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    task_options: Mapping[str, Option] = field(default_factory=dict)
    metric: str = ""
    targets: tuple[str, ...] = ()
    link: Link = field(default_factory=Link)

    def __post_init__(self) -> None:
        if not self.methods:
            raise ValueError("there is no method to compare: name some strategies")
        if not self.seeds:
            raise ValueError("there is no seed to report")
        if both := sorted(set(self.seeds) & set(self.tuning_seeds)):
            raise ValueError(
                f"seed {both[0]} is to be tuned on and to be reported: what is reported must be of "
                "seeds that no step size was chosen on"
            )
        if not self.tuning_seeds:
            raise ValueError("there is no seed to tune on")
        if bad := [lr for lr in self.lrs if not 0 < lr < float("inf")]:
            raise ValueError(f"a step size is {bad[0]}: expected numbers > 0")
        for text in self.targets:
            parse_target(text)
        if self.metric:
            parse_metric(self.metric)

    @property
    def common(self) -> Experiment:
        """What all runs share."""
        return Experiment(
            task=self.task,
            strategy=self.methods[0].strategy,
            clients=self.clients,
            rounds=50 if self.rounds is None else self.rounds,
            strategy_options=self.options,
            task_options=self.task_options,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values, with what stands in the user's own task file."""
        written: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        source, _ = split_name(self.task)
        if is_file(source):
            written["task_source"] = source_hash(source)
        return written

    def keep(self, folder: Path, *, resume: bool) -> None:
        """Write the settings into a folder, or compare them with those that it has.

        Raises
        ------
        ValueError
            The folder holds a comparison that is not to be resumed, or one of other settings: says
            which.
        OSError
            The folder cannot be written.
        """
        path, mine = folder / SETTINGS, self.as_dict()
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, mine)
            return
        if not resume:
            raise ValueError(
                f"{folder} holds a comparison already: go on with it by --resume, or name another "
                "folder"
            )
        theirs = read_settings(folder)
        for name in sorted({*mine, *theirs}):
            if mine.get(name) != theirs.get(name):
                raise ValueError(
                    f"{folder} holds another comparison: its {name.replace('_', '-')} is "
                    f"{_short(theirs.get(name))}, and not {_short(mine.get(name))}; name another "
                    "folder, or compare as there"
                )


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings that a folder holds, as JSON values.

    Raises
    ------
    ValueError
        They cannot be read.
    OSError
        There are none.
    """
    path = folder / SETTINGS
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}; name another folder") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} cannot be read: it has no settings; name another folder")
    return found


def read_seeds(what: str, text: str, first: int) -> tuple[int, ...]:
    """Return the seeds that a text names: so many from `first` on, or those in a list.

    Examples
    --------
    >>> read_seeds("seeds", "3", 2), read_seeds("seeds", "5,9", 2), read_seeds("seeds", "7,", 2)
    ((2, 3, 4), (5, 9), (7,))
    """
    try:
        if "," not in text:
            return tuple(range(first, first + int(text)))
        found = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise ValueError(f"{what} is {text!r}: expected how many, as 3, or which, as 2,3,4")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
