"""Two threads for one long vector: compiled kernels work without the interpreter's lock."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable
from functools import cache
from typing import TypeVar

from flowerpress.compressors.kernels.arithmetic import by_default_rules

T = TypeVar("T")
R = TypeVar("R")
_LONG = 1 << 22  # numbers: a few milliseconds, where a thread takes a tenth of one to start


def in_threads(work: Callable[[T], R], items: Iterable[T], size: int) -> list[R]:
    """Return what `work` gives for each item, in order.

    Parameters
    ----------
    work : callable
        Works on the item's own part of memory, so that it does not matter which is first.
    items : iterable
        Where there are several, another thread may work on some of them.
    size : int
        Numbers to work on, all in all: where they are few, or there is one core, all is done here.

    Raises
    ------
    Exception
        What `work` raised first. What other items gave is then lost.
    """
    rest = list(items)
    if size < _LONG or len(rest) < 2 or _cores() < 2:
        return [work(item) for item in rest]
    found: dict[int, R] = {}
    failed: list[BaseException] = []
    left: queue.SimpleQueue[tuple[int, T]] = queue.SimpleQueue()
    for each in enumerate(rest):
        left.put(each)

    @by_default_rules  # which are a thread's own
    def take() -> None:
        while not failed:
            try:
                index, item = left.get_nowait()
            except queue.Empty:
                return
            try:
                found[index] = work(item)
            except BaseException as error:
                failed.append(error)

    other = threading.Thread(target=take, daemon=True)
    other.start()
    try:
        take()
    finally:
        other.join()
    if failed:
        raise failed[0]
    return [found[index] for index in range(len(rest))]


@cache
def _cores() -> int:
    """Return how many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
