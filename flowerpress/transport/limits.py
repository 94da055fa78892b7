"""What one client may take of a server: bytes, frames, logins, time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a server; what exceeds one is refused, and logged.

    Parameters
    ----------
    clients : int
        Clients that may be connected, or be waited for after they were.
    message : int
        Bytes of an answer. Of these, 8 MiB are kept in memory, the rest in a temporary file.
    frames : float
        Frames a second that are no chunks of an answer; ten times as many at once.
    logins : float
        Logins a minute of one client; twenty at once.
    hello : float
        Seconds from a connection to its hello.
    heartbeat : float
        Seconds between signs of life; after three without one a connection is ended.
    grace : float
        Seconds that a client may be away before its open question is given up.
    """

    clients: int = 256
    message: int = 2**32
    frames: float = 200.0
    logins: float = 60.0
    hello: float = 10.0
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
