"""What one client may take of a server: bytes, frames, logins, time, lines of the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

ANY_ANSWER = 2**32
"""Bytes of an answer where nothing is known of the model."""


CLIENTS = 2048
"""Clients that may be there unless something else is said."""


@dataclass(frozen=True)
class Limits:
    """Limits of a server; what exceeds one is refused, and logged.

    Parameters
    ----------
    clients : int
        Clients that may be connected, or be waited for after they were.
    message : int, optional
        Bytes of an answer. Of these, 8 MiB are kept in memory, the rest in a temporary file. None:
        what the model's size allows, once flowerpress's own strategies have said it, and until
        then 4 GiB.
    frames : float
        Frames a second that are no chunks of an answer; ten times as many at once.
    logins : float
        Logins a minute of one client; twenty at once.
    hello : float
        Seconds from a connection's first byte to the end of its handshake, and from there to its
        hello.
    unknown : int
        Connections that have not said hello and have proven nothing; of more, the oldest end.
    heartbeat : float
        Seconds between signs of life, at least; a fiftieth of a second for each client where that
        is more, as the welcome says it. After three without one a connection is ended.
    grace : float
        Seconds that a client may be away before its open question is given up.
    """

    clients: int = CLIENTS
    message: int | None = None
    frames: float = 200.0
    logins: float = 60.0
    hello: float = 10.0
    unknown: int = 64
    heartbeat: float = 5.0
    grace: float = 30.0


class Bucket:
    """A token bucket: so many at once, so many a second after that.

    Examples
    --------
    >>> now = 0.0
    >>> bucket = Bucket(rate=1.0, size=2, clock=lambda: now)
    >>> bucket.take(), bucket.take(), bucket.take()
    (True, True, False)
    >>> now = 1.0
    >>> bucket.take()
    True
    """

    def __init__(
        self, rate: float, size: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._size, self._clock = rate, size, clock
        self._level, self._last = size, clock()

    def take(self) -> bool:
        """Take one; returns whether one was there."""
        now = self._clock()
        self._level = min(self._size, self._level + self._rate * (now - self._last))
        self._last = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


class Lines:
    """Lines of a log of which there may be very many: some at once, then one a second.

    What is left out is counted, and the next line that is let through says so.

    Parameters
    ----------
    most : int
        Lines at once.

    Examples
    --------
    >>> now = 0.0
    >>> lines = Lines(most=1, clock=lambda: now)
    >>> lines.let("a"), lines.let("b"), lines.let("c")
    ('a', None, None)
    >>> now = 1.0
    >>> lines.let("d")
    'd (and 2 lines like it that are left out)'
    """

    def __init__(self, most: int = 50, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket, self._lock, self.untold = Bucket(1.0, most, clock), threading.Lock(), 0

    def let(self, line: str) -> str | None:
        """Return what is to be written of a line; None: nothing."""
        with self._lock:
            if not self._bucket.take():
                self.untold += 1
                return None
            untold, self.untold = self.untold, 0
        return f"{line} (and {untold} lines like it that are left out)" if untold else line
