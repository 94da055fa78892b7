"""Numbers that lie in a file, read a part at a time: their pages do not stay in memory.

A dense packet that came over a network is as long as the model, and is passed over some times: for
its checksum, its finiteness, its norm, and once to be added. Where it lies in a file, each pass
gives the pages of a part back to the system before it goes on to the next. So a reader needs memory
for a part, whatever the length.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

LARGE = 2**26  # bytes from which memory is a file's
HAS_PAGES = hasattr(mmap, "MADV_DONTNEED")  # where pages can be given back
_AROUND = 2**21  # bytes of the largest page
PART = 2**20  # bytes of a part: a multiple of what kernels work on at once


class Paged(mmap.mmap):
    """A file in memory, to be read: pages that are given back are read from it again."""

    def __new__(cls, file: int) -> Paged:
        """Map all of an open file."""
        return super().__new__(cls, file, 0, access=mmap.ACCESS_READ)

    def give_back(self, start: int, stop: int) -> None:
        """Have the pages of the bytes from `start` to `stop` leave the memory, and those around.

        A system that keeps a file in large pages takes such a page in whole for one of its bytes.
        """
        start = max(0, (start - _AROUND) // mmap.PAGESIZE * mmap.PAGESIZE)
        self.madvise(mmap.MADV_DONTNEED, start, min(stop + _AROUND, len(self)) - start)


def shift(file: int, start: int, end: int, count: int) -> None:
    """Move what an open file holds from `start` to `end` by `count` bytes, over what follows.

    Raises
    ------
    OSError
        The disk fails: what the file holds from `start` on is of no more use.
    """
    for stop in range(end, start, -PART):
        first = max(start, stop - PART)
        data = os.pread(file, stop - first, first)
        if os.pwrite(file, data, first + count) < stop - first:
            raise OSError(errno.EIO, "a part of an answer's file could not be moved")


def sweep(values: npt.NDArray[Any]) -> Iterable[tuple[int, int]]:
    """Return the ranges in which an array is best passed over once.

    One range, unless it is long and lies in a file (`Paged`): then parts, and the pages of each
    are given back as the next one is asked for.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Contiguous.

    Examples
    --------
    >>> list(sweep(np.zeros(5)))
    [(0, 5)]
    """
    memory = paged(values) if values.nbytes >= LARGE else None
    return ((0, values.size),) if memory is None else _parts(values, memory)


def _parts(values: npt.NDArray[Any], memory: Paged) -> Iterator[tuple[int, int]]:
    first = _address(values) - _address(np.frombuffer(memory, np.uint8))
    step, size = PART // values.itemsize, values.itemsize
    for start in range(0, values.size, step):
        stop = min(start + step, values.size)
        yield start, stop
        memory.give_back(first + start * size, first + stop * size)


def paged(values: npt.NDArray[Any]) -> Paged | None:
    """Return the file that an array lies in; None where it lies in memory."""
    owner: Any = values
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return owner if isinstance(owner, Paged) else None


def _address(values: npt.NDArray[Any]) -> int:
    return int(values.ctypes.data)
