"""What checkpoints would lose of a strategy: attributes that `kept` does not name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowerpress.server.algorithm import Algorithm
from flowerpress.server.errors import RoundError

log = logging.getLogger("flowerpress")
_PLAIN = bool | int | float | str | np.generic | None
_CHANGING = (np.ndarray, list, dict, set)


def check_kept(strategy: Algorithm) -> None:
    """Raise `RoundError` where a class's `kept` names an attribute that is not there."""
    for cls in type(strategy).__mro__:
        kept, owner = vars(cls).get("kept", ()), cls.__name__
        if isinstance(kept, str):
            raise RoundError(f"{owner}.kept is {kept!r}: write kept = ({kept!r},)")
        for name in kept:
            if not hasattr(strategy, name):
                raise RoundError(
                    f"{owner}.kept names {name!r}, but there is no self.{name} after begin(): set "
                    "it there, or take the name out"
                )


class Unkept:
    """What `begin` has set, and which of it was named already."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._told: set[str] = set()

    def hear(self, before: Mapping[str, Any], strategy: Algorithm) -> None:
        """Hear which attributes there were before `begin`, now that it has ended."""
        for name, value in vars(strategy).items():
            if name not in before or before[name] is not value:
                # A vector is not held here: the first one would stay for the whole run.
                self._made[name] = value if isinstance(value, _PLAIN) else type(value)

    def warn(self, strategy: Algorithm, saved: Mapping[str, Any], dim: int) -> None:
        """Name, once, what a run that is resumed would not have, of a model of `dim` numbers."""
        for name, value in vars(strategy).items():
            if name not in saved and name not in self._told and self._is_memory(name, value, dim):
                self._told.add(name)
                log.warning(
                    "%s.%s is not in kept, so that a resumed run begins with it anew and ends "
                    "otherwise: add %r to kept, or make it within round() if no round needs it of "
                    "the one before",
                    type(strategy).__name__,
                    name,
                    name,
                )

    def _is_memory(self, name: str, value: Any, dim: int) -> bool:
        """Whether an attribute may be what the algorithm remembers, and not made of its options."""
        if isinstance(value, np.ndarray) and value.shape == (dim,):
            return True
        if name not in self._made:
            return False
        made = self._made[name]
        changed = isinstance(value, _PLAIN) and isinstance(made, _PLAIN) and value != made
        return changed or isinstance(value, _CHANGING)
