"""Options, declared once: in the body of the class that has them.

    momentum: float = option(0.1, number("(0, 1]"), "Weight of the NEW gradient.", letter="eta")

The constructor, its checks, the class's documentation, what goes to the workers (``sent``), what
``flowerpress list NAME`` shows and the pages in ``docs/algorithms`` all derive from these records.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from flowerpress.suggestions import unknown

_WIDTH = 92
_INTERVAL = re.compile(r"[(\[]\s*-?(inf|[\d.e+-]+)\s*,\s*-?(inf|[\d.e+-]+)\s*[)\]]")
_LARGEST = sys.float_info.max

Told = bool | Literal["changed"] | None


@dataclass(frozen=True)
class Values:
    """The values that an option may have.

    Parameters
    ----------
    held : callable
        Whether a value is one of them.
    text : str
        Which they are: goes on after "expected".
    read : callable
        Returns what the strategy works with; may raise `ValueError` too.
    """

    held: Callable[[Any], bool]
    text: str
    read: Callable[[Any], Any] = lambda value: value

    def check(self, name: str, value: Any) -> Any:
        """Return what is worked with, of a value named `name`; `ValueError` if it is none of these.

        Examples
        --------
        >>> number("(0, 1]").check("momentum", 2)
        Traceback (most recent call last):
        ...
        ValueError: momentum is 2: expected a number in (0, 1]
        """
        if isinstance(value, np.generic):  # as a sweep over an array gives them
            # 0.1 and not 0.10000000149011612 of a float32
            value = float(str(value)) if isinstance(value, np.floating) else value.item()
        require(self.held(value), name, value, self.text)
        return self.read(value)


def number(interval: str, note: str = "") -> Values:
    """Return the numbers in an interval, written as in a paper.

    Examples
    --------
    >>> [number(interval).text for interval in ("(0, 1]", "[0, inf)")]
    ['a number in (0, 1]', 'a number >= 0']
    """
    if not _INTERVAL.fullmatch(interval):
        raise ValueError(f"{interval!r} is no interval: write it as '[0, 1)' or '(0, inf)'")
    least, most = (float(end) for end in interval[1:-1].split(","))
    above, below = interval[0] == "(", interval[-1] == ")"

    def held(value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        if not -_LARGEST <= value <= _LARGEST:  # nor NaN
            return False
        low = value > least if above else value >= least
        return low and (value < most if below else value <= most)

    kind = f"a number in {interval}"
    if math.isinf(most):
        bound = f"{'>' if above else '>='} {least:g}"
        kind = "a finite number" if math.isinf(least) else f"a number {bound}"
    return Values(held, kind + note)


def whole(least: int, note: str = "") -> Values:
    """Return the whole numbers of at least `least`."""

    def held(value: Any) -> bool:
        return type(value) is int and least <= value < 2**63

    return Values(held, f"a whole number >= {least}{note}")


def one_of(*names: str) -> Values:
    """Return what one of these words is."""
    return Values(lambda value: value in names, " or ".join(names))


def text(read: Callable[[str], Any] = str, what: str = "a string") -> Values:
    """Return the texts that `read` understands."""
    return Values(lambda value: isinstance(value, str), what, read)


SWITCH = Values(lambda value: type(value) is bool, "true or false")
ANYTHING = Values(lambda _: True, "anything")


@dataclass(frozen=True)
class Option:
    """One option of an algorithm.

    Parameters
    ----------
    default : object
        Its value where none is given.
    values : Values or None
        Those that it may have; None: as in the base class.
    says : str
        What it means, its first sentence by itself; empty: as in the base class.
    letter : str
        What the paper calls it, if anything.
    sent : bool, "changed" or None
        Whether the workers are told: then they find it under its name. "changed": where it is not
        the default, so that an option which came later leaves all other messages as they were.
        None: as in the base class.
    fixed : bool
        Whether the algorithm has no other value, so that nobody needs to be told of the option.
    kind : str
        Its type, as annotated.
    """

    default: Any
    values: Values | None = None
    says: str = ""
    letter: str = ""
    sent: Told = None
    fixed: bool = False
    kind: str = ""

    def over(self, base: Option | None, kind: str) -> Option:
        """Return this option with what it leaves to the same option of a base class."""
        base = base or Option(None, ANYTHING, sent=False)
        return replace(
            self,
            values=self.values or base.values,
            says=self.says or base.says,
            letter=self.letter or (base.letter if not self.says else ""),
            sent=base.sent if self.sent is None else self.sent,
            kind=kind or base.kind,
        )

    @property
    def line(self) -> str:
        """The first sentence of its meaning."""
        return self.says.partition(". ")[0].rstrip(".")

    @property
    def meaning(self) -> str:
        """What it means, and what the paper calls it."""
        return f"{self.says} The paper's {self.letter}." if self.letter else self.says


def option(
    default: Any,
    values: Values | None = None,
    says: str = "",
    *,
    letter: str = "",
    sent: Told = None,
) -> Any:
    """Declare an option in a class body; what is left out is as in the base class, see `Option`."""
    if not isinstance(values, Values | None):
        raise TypeError(
            f"option({default!r}, {values!r}): which values it may have is said by number(...), "
            "whole(...), one_of(...), SWITCH or text(), of flowerpress.strategies"
        )
    return Option(default, values, says, letter, sent)


def fixed(value: Any, expected: str) -> Any:
    """Declare that an option of the base class has one value only; `expected` says why."""
    return Option(value, Values(lambda given: bool(given == value), expected), fixed=True)


class UnknownOptionError(TypeError, ValueError):
    """An option that an algorithm does not have; its text names those that it has."""


class Declared:
    """A class whose options are declared in its body.

    Attributes
    ----------
    options : dict
        The `Option` of each name: the class's own before its bases'.
    """

    name: ClassVar[str]
    kind: ClassVar[str] = "strategy"  # what it is, for a sentence
    options: ClassVar[Mapping[str, Option]] = {}

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        base: Mapping[str, Option] = super(cls, cls).options  # type: ignore[misc]
        kinds = vars(cls).get("__annotations__", {})
        own = {
            name: value.over(base.get(name), str(kinds.get(name, "")))
            for name, value in vars(cls).items()
            if isinstance(value, Option)
        }
        for name, value in own.items():
            setattr(cls, name, value)
        cls.options = {**own, **{k: v for k, v in base.items() if k not in own}}
        cls.__doc__ = _documented(cls, own)
        cls.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY, default=v.default)
                for k, v in cls.options.items()
            ]
        )

    @classmethod
    def require_known(cls, given: Iterable[str]) -> None:
        """Raise `UnknownOptionError` where there is no such option: names those that there are."""
        for name in given:
            if name not in cls.options:
                what = f"{cls.kind} {_name_of(cls)} has no option {name!r}"
                if (owner := _undeclared(cls, name)) is not None:
                    raise UnknownOptionError(
                        f"{what}: {owner.__name__}.{name} is an attribute alone; write {name} = "
                        "option(default, values, meaning) to make it one"
                    )
                names, where = sorted(offered(cls)), cls.where_shown()
                raise UnknownOptionError(unknown(what, name, names, "it has", where))

    @classmethod
    def where_shown(cls) -> str:
        """Say what shows the options; empty where nothing does."""
        return ""

    def accept(self, given: Mapping[str, Any]) -> None:
        """Check the options given, and set one attribute for each option.

        Raises
        ------
        ValueError
            One is not valid: the first is named.
        UnknownOptionError
            There is no such option: names those that there are.
        """
        self.require_known(given)
        for name, each in self.options.items():
            values = each.values or ANYTHING
            setattr(self, name, values.check(name, given.get(name, each.default)))

    def sent(self) -> dict[str, Any]:
        """Return the options that the workers are told, with their values."""
        told = {}
        for name, each in self.options.items():
            if each.sent:
                value = getattr(self, name)
                if each.sent is True or value != each.default:
                    told[name] = value
        return told


def offered(cls: type[Declared]) -> dict[str, Option]:
    """Return the options of a class that may have more than one value."""
    return {name: each for name, each in cls.options.items() if not each.fixed}


def _name_of(cls: type[Declared]) -> str:
    return getattr(cls, "name", cls.__name__)


def _undeclared(cls: type[Declared], name: str) -> type | None:
    """Return the class of a user's whose body has `name` as a plain value, not as an option."""
    users = [each for each in cls.__mro__ if not each.__module__.startswith("flowerpress.")]
    ours = [each for each in cls.__mro__ if each not in users]
    if any(name in vars(each) or name in vars(each).get("__annotations__", ()) for each in ours):
        return None
    return next((each for each in users if name in vars(each)), None)


def require(held: bool, name: str, value: object, expected: str) -> None:
    """Raise `ValueError` "`name` is `value`: expected ..." unless `held`."""
    if not held:
        raise ValueError(f"{name} is {value!r}: expected {expected}")


def _documented(cls: type[Declared], own: Mapping[str, Option]) -> str:
    """Return the docstring of a class with its own options as its parameters."""
    lines = [inspect.cleandoc(cls.__doc__ or ""), "", "Parameters", "----------"]
    for name, each in own.items():
        if not each.fixed:
            lines.append(f"{name} : {each.kind or 'object'} (default: {each.default!r})")
            lines += [textwrap.indent(line, "    ") for line in textwrap.wrap(each.meaning, _WIDTH)]
    base = next(base for base in cls.__mro__[1:] if issubclass(base, Declared))
    if base.options:
        without = ", ".join(f"`{name}`" for name, each in own.items() if each.fixed)
        lines += ["**options", f"    As in `{base.__name__}`"]
        lines[-1] += f", without {without}." if without else "."
    return "\n".join(lines)
