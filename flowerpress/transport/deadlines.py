"""Work that is due later, in one thread, which sleeps until the next of it is."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from itertools import count

log = logging.getLogger("flowerpress")


class Deadlines:
    """Work that is due at some time; it costs nothing until then.

    Parameters
    ----------
    name : str
        The thread's.

    Examples
    --------
    >>> deadlines, done = Deadlines("test"), threading.Event()
    >>> deadlines.at(time.monotonic() + 0.01, done.set)
    >>> done.wait(5)
    True
    >>> deadlines.close()
    """

    def __init__(self, name: str) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()  # of what is due at the same time
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def at(self, when: float, work: Callable[[], None]) -> None:
        """Do something once `time.monotonic` is `when`."""
        with self._changed:
            heapq.heappush(self._heap, (when, next(self._order), work))
            if self._heap[0][0] == when:
                self._changed.notify()

    def close(self) -> None:
        """Do no more of it; what is being done is waited for."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except Exception:  # the others are to be done all the same
                log.exception("what was due could not be done")

    def _next(self) -> Callable[[], None] | None:
        """Wait for what is due next, and return it; None once this is closed."""
        with self._changed:
            while not self._closed:
                left = self._heap[0][0] - time.monotonic() if self._heap else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._heap)[2]
                self._changed.wait(left)
        return None
