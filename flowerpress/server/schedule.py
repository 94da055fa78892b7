"""Step sizes that change from round to round, the same for every algorithm.

A schedule is a factor for each round r = 1, 2, ...; the step size of the round is lr times it. It
depends on the round alone, so that a run that is resumed goes on as if it had never stopped. With W
rounds of ``warmup``, t = r - W, and T = ``rounds`` - W:

=========== ======================================================= ==========================
law         factor, once warm                                       options
=========== ======================================================= ==========================
constant    1
1/sqrt      1 / sqrt(t)
inverse     1 / (1 + (t - 1) / ``after``)                           ``after`` (1)
step        ``factor`` to the power floor((t - 1) / ``every``)      ``every``, ``factor`` (0.1)
linear      1 - (1 - ``least``) (t - 1) / T                         ``rounds``, ``least`` (0)
cosine      least + (1 - least) (1 + cos(pi (t - 1) / T)) / 2       ``rounds``, ``least`` (0)
=========== ======================================================= ==========================

All have ``warmup`` (0): its rounds go r / (W + 1) of lr. After ``rounds`` rounds, warm-up and all,
linear and cosine stay where they are in the last of these: no step size is zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from flowerpress.server.options import number, require, whole

Factor = Callable[[int], float]
"""A schedule: the factor of round r, from 1."""
_OPTIONS: dict[str, tuple[str, ...]] = {
    "constant": (),
    "1/sqrt": (),
    "inverse": ("after",),
    "step": ("every", "factor"),
    "linear": ("rounds", "least"),
    "cosine": ("rounds", "least"),
}


@dataclass(frozen=True)
class Schedule:
    """One of the laws above.

    Examples
    --------
    >>> halved = make_schedule("step:every=2,factor=0.5,warmup=1")
    >>> [halved(r) for r in (1, 2, 3, 4, 5)]
    [0.5, 1.0, 1.0, 0.5, 0.5]
    >>> [round(make_schedule("cosine:rounds=4")(r), 3) for r in (1, 2, 3, 4, 5)]
    [1.0, 0.854, 0.5, 0.146, 0.146]
    """

    law: str = "constant"
    warmup: int = 0
    rounds: int = 0
    least: float = 0.0
    every: int = 0
    factor: float = 0.1
    after: float = 1.0

    def __post_init__(self) -> None:
        whole(0).check("schedule: warmup", self.warmup)
        if self.law in ("linear", "cosine"):
            held = type(self.rounds) is int and self.rounds > self.warmup
            wanted = f"a whole number >= {self.warmup + 1}, as in {self.law}:rounds=100"
            require(held, "schedule: rounds", self.rounds, wanted)
            number("[0, 1]").check("schedule: least", self.least)
        if self.law == "step":
            held = type(self.every) is int and self.every >= 1
            wanted = "a whole number >= 1, as in step:every=30,factor=0.1"
            require(held, "schedule: every", self.every, wanted)
            number("(0, inf)").check("schedule: factor", self.factor)
        if self.law == "inverse":
            number("(0, inf)").check("schedule: after", self.after)

    def __call__(self, server_round: int) -> float:
        """Return the factor of a round, from 1."""
        if server_round <= self.warmup:
            return server_round / (self.warmup + 1)
        gone = server_round - self.warmup - 1
        if self.law == "1/sqrt":
            return 1 / math.sqrt(gone + 1)
        if self.law == "inverse":
            return 1 / (1 + gone / self.after)
        if self.law == "step":
            return float(self.factor ** (gone // self.every))
        whole = self.rounds - self.warmup
        share = min(gone, whole - 1) / whole if whole > 0 else 0.0
        if self.law == "linear":
            return 1 - (1 - self.least) * share
        if self.law == "cosine":
            return self.least + (1 - self.least) * (1 + math.cos(math.pi * share)) / 2
        return 1.0


def make_schedule(spec: str | Factor) -> Factor:
    """Return the schedule that `spec` describes: ``law[:option=number,...]``, or a function.

    Parameters
    ----------
    spec : str or callable
        "" is "constant". A function is given the round, from 1, and returns the factor.

    Raises
    ------
    ValueError
        An unknown law or option (lists the known ones), or a number out of range.
    """
    if callable(spec):
        return _Checked(spec)
    require(isinstance(spec, str), "schedule", spec, "a text such as cosine:rounds=100, a function")
    law, _, rest = spec.partition(":")
    law = {"": "constant", "sqrt": "1/sqrt"}.get(law, law)
    require(law in _OPTIONS, "schedule", spec, f"one of {', '.join(_OPTIONS)}")
    known, found = (*_OPTIONS[law], "warmup"), {}
    for pair in rest.split(",") if rest else ():
        name, _, text = pair.partition("=")
        require(
            name in known,
            "schedule",
            spec,
            f"{law} with {', '.join(known)} alone, each as name=number",
        )
        require(name not in found, "schedule", spec, f"{name} once")
        found[name] = _number(spec, name, text)
    return Schedule(law, **found)  # type: ignore[arg-type]  # numbers are checked there


@dataclass(frozen=True)
class _Checked:
    """A function of the user's, whose factors are checked."""

    function: Factor

    def __call__(self, server_round: int) -> float:
        factor = self.function(server_round)
        number("(0, inf)").check(f"the schedule's factor of round {server_round}", factor)
        return float(factor)


def _number(spec: str, name: str, text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"schedule is {spec!r}: expected a number for {name}, not {text!r}")
