"""Vectors that are kept only in case they are needed again, in a file and not in memory.

While a packet is in flight its worker keeps what its moments were before, for the server may refuse
the packet. That is hardly ever read, and with a thousand workers in one process it is as much as
the moments themselves. So beyond a number of bytes it is written to a temporary file, which has no
name and ends with the process. Where that cannot be written, it stays in memory.
"""

from __future__ import annotations

import logging
import os
import tempfile
import weakref
from collections.abc import Hashable
from dataclasses import dataclass
from threading import Lock
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from flowerpress.protocol.heap import give_back_freed_memory

KEPT = 32 * 2**20  # bytes that stay in memory
_LEAST = 2**16  # bytes of a vector that is worth a file
_MANY = 128 * 2**20  # bytes put aside after which what they leave is given back
log = logging.getLogger("flowerpress")


@dataclass(frozen=True)
class Aside:
    """A vector in a file, until its place is given to another."""

    attic: Attic
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self) -> npt.NDArray[Any]:
        """Return it, as a new array."""
        vector = np.empty(self.shape, self.dtype)
        self.attic.read(self.start, vector.reshape(-1).view(np.uint8))
        return vector


class Attic:
    """Places for vectors by key, in memory and in one file.

    Parameters
    ----------
    kept : int
        Bytes of vectors that stay in memory.

    Examples
    --------
    >>> attic = Attic(kept=0)
    >>> aside = attic.put("a", np.arange(20_000))
    >>> int(aside.read().sum())
    199990000
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._left, self._end, self._since = kept, 0, 0
        self._places: dict[Hashable, tuple[int, int]] = {}  # where, and how many bytes
        self._file: IO[bytes] | None = None
        self._lock = Lock()

    def room(self, nbytes: int) -> bool:
        """Whether so many bytes stay in memory; if so, there is room for fewer from now on."""
        with self._lock:
            stay = nbytes < _LEAST or nbytes <= self._left
            self._left -= nbytes if stay and nbytes >= _LEAST else 0
        return stay

    def put(self, key: Hashable, vector: npt.NDArray[Any]) -> Aside | None:
        """Write a vector in the place of `key`; None where it is to stay in memory."""
        if vector.nbytes < _LEAST or not hasattr(os, "preadv"):
            return None
        octets, done = np.ascontiguousarray(vector).reshape(-1).view(np.uint8), 0
        with self._lock:
            start = self._place(key, vector.nbytes)
            if start < 0:
                return None
            try:
                file = self._open()
                while done < octets.size:
                    done += os.pwrite(file.fileno(), octets[done:].data, start + done)
            except OSError as error:
                self._give_up(error)
                return None
            self._since += vector.nbytes
            many, self._since = self._since >= _MANY, self._since % _MANY
        if many:  # the next ones are made by other threads, which cannot have these ones' places
            give_back_freed_memory()
        return Aside(self, start, vector.shape, vector.dtype)

    def read(self, start: int, octets: npt.NDArray[np.uint8]) -> None:
        """Fill `octets` with what is in the file from `start` on."""
        done = 0
        while done < octets.size:
            got = os.preadv(self._open().fileno(), [octets[done:].data], start + done)
            if not got:
                raise OSError("a temporary file of flowerpress is shorter than what it holds")
            done += got

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="flowerpress-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        return self._file

    def _place(self, key: Hashable, nbytes: int) -> int:
        """Return where so many bytes of `key` go; -1: they stay in memory."""
        start, size = self._places.get(key, (-1, -1))
        if size == nbytes:
            return start
        start = -1
        if nbytes <= self._left:
            self._left -= nbytes
        else:
            start, self._end = self._end, self._end + nbytes
        self._places[key] = start, nbytes
        return start

    def _give_up(self, error: OSError) -> None:
        log.warning(
            "no room for a temporary file in %s (%s): what workers keep in case an answer is "
            "refused stays in memory; set TMPDIR to a folder with room",
            tempfile.gettempdir(),
            error.strerror or error,
        )
        self._left = 2**63  # all that comes stays in memory
        self._places.clear()
