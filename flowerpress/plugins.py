"""Names that other packages add, through entry points."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger("flowerpress")


class Plugins(Generic[T]):
    """What other packages have under one group of entry points, by name.

    They are loaded when the first of them is asked for. One that cannot be used is named in the
    log, once, with its package and the reason, and is passed over: all else works. So is one with a
    name of flowerpress's own, also when that name is asked for, which loads nothing.

    Parameters
    ----------
    kind : str
        What they are, for messages: "strategy".
    group : str
        Of entry points: "flowerpress.algorithms".
    taken : collection of str
        Names that are flowerpress's own.
    read : callable
        ``read(name, loaded, good)`` returns what `loaded` stands for, or raises `ValueError`;
        `good` are those before it, by name.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        taken: Collection[str],
        read: Callable[[str, Any, dict[str, T]], T],
    ) -> None:
        self._kind, self._group, self._taken, self._read = kind, group, taken, read

    @property
    def found(self) -> dict[str, T]:
        """All that can be used, by name, sorted."""
        return self._loaded[0]

    @property
    def faults(self) -> dict[str, str]:
        """Why others cannot be used, by name."""
        return self._loaded[1]

    def warn_if_taken(self, name: str) -> None:
        """Say, once, which packages claim `name`, one of flowerpress's own: it stays that."""
        for point in self.claimed.pop(name, ()):
            log.warning(
                "%s %r of %s is not used: the shipped one of this name runs; choose another name",
                self._kind,
                name,
                package_of(point),
            )

    @cached_property
    def _points(self) -> list[EntryPoint]:
        return sorted(entry_points(group=self._group), key=_place)

    @cached_property
    def claimed(self) -> dict[str, list[EntryPoint]]:
        """Entry points with names of flowerpress's own that nothing was said of yet."""
        found: dict[str, list[EntryPoint]] = {}
        for point in self._points:
            if point.name in self._taken:
                found.setdefault(point.name, []).append(point)
        return found

    @cached_property
    def _loaded(self) -> tuple[dict[str, T], dict[str, str]]:
        good: dict[str, T] = {}
        faults: dict[str, str] = {}
        whose_name: dict[str, str] = {}
        for point in self._points:
            name = point.name
            if name in self._taken:
                self.warn_if_taken(name)
                continue
            try:
                if name in good:
                    raise ValueError(f"{whose_name[name]} has this name: choose another name")
                good[name] = self._read(name, point.load(), good)
                whose_name[name] = package_of(point)
            except (Exception, SystemExit) as error:
                whose = f"{self._kind} {name!r} of {package_of(point)}"
                fault = f"{whose} cannot be used: {_told(error)}"
                log.warning("%s", fault)
                if name not in good:
                    faults[name] = fault
        return good, faults


def package_of(point: EntryPoint) -> str:
    """Return the name and version of the package that an entry point is of."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "a package"


def _place(point: EntryPoint) -> tuple[str, str]:
    return point.name, package_of(point)


def _told(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return said if type(error) is ValueError else f"{type(error).__name__}: {said}".rstrip(": ")
