"""Memory that is used again, for codes that are copied into a packet and then done with.

Fresh memory of this size comes from the system page by page, each cleared at its first touch: that
was up to half of the time of encoding. What is lent here comes back by itself when the array and
all its views are gone.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

# Smaller ones stay with the allocator anyway; larger ones would be missed by whoever counts bytes.
_SMALLEST, _LARGEST = 1 << 17, 1 << 25
_KEPT = 1 << 26  # bytes that wait to be used, at most


class Scratch:
    """Buffers that are lent as arrays.

    Lists are changed by single calls of ``append`` and ``pop``: an array may end in any thread and
    at any line, where a lock could be held already.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[npt.NDArray[np.uint8]]] = {}
        self._lent: dict[int, weakref.ref[Any]] = {}

    @property
    def kept(self) -> int:
        """Bytes that wait to be used."""
        return sum(size * len(free) for size, free in list(self._free.items()))

    def empty(self, wanted: int) -> npt.NDArray[np.uint8]:
        """Return an array of so many bytes, whatever they are, like ``np.empty``."""
        if not _SMALLEST <= wanted <= _LARGEST:
            return np.empty(wanted, np.uint8)
        size = 1 << (wanted - 1).bit_length()
        try:
            store = self._free[size].pop()
        except (KeyError, IndexError):
            store = np.empty(size, np.uint8)
        # By way of a memoryview: views of an array's view would refer to the array itself, and not
        # to that which is lent.
        lent = np.frombuffer(store.data[:wanted], np.uint8)

        def give_back(reference: weakref.ref[Any]) -> None:
            self._lent.pop(id(reference), None)
            if self.kept + size <= _KEPT:
                self._free.setdefault(size, []).append(store)

        reference = weakref.ref(lent, give_back)
        self._lent[id(reference)] = reference
        return lent


scratch = Scratch()
