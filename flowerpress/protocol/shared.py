"""What many clients of one process are sent, and decode once.

An engine whose clients live in the server's process says which arrays go to several of them
(`share`). What a client makes of such an array, the packets in it and the vectors in these, is
made by the first that asks, and kept for the others as long as the array is there. Nobody may
write to it: whoever needs a vector of its own copies it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

from flwr.app import Array

T = TypeVar("T")


class Shared:
    """What was made of one array."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._making = Lock()

    def once(self, what: str, make: Callable[[], T]) -> T:
        """Return what `make` returns: it is called by the first who asks for `what`.

        Examples
        --------
        >>> shared = Shared()
        >>> shared.once("sum", lambda: 1), shared.once("sum", lambda: 2)
        (1, 1)
        """
        with self._making:
            if what not in self._made:
                self._made[what] = make()
            made: T = self._made[what]
        return made


_shared: dict[int, tuple[weakref.ref[Array], Shared]] = {}  # by the array's identity


def share(array: Array) -> None:
    """Say that this very array goes to several clients of this process."""
    key = id(array)
    if key not in _shared:
        _shared[key] = weakref.ref(array, lambda _: _shared.pop(key, None)), Shared()


def shared_of(array: Array | None) -> Shared | None:
    """Return what was made of an array; None where it is not shared."""
    found = _shared.get(id(array))
    return found[1] if found is not None and found[0]() is array else None
