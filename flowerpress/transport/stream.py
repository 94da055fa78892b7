"""One connection, at either end: what is to be written to it, and how to end it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event

from flowerpress.transport.frames import BEAT

_LAST_WORDS = 2.0  # seconds for a goodbye to get through


@dataclass
class Counters:
    """What went over a client's connections, in frames' bytes, and what was dropped."""

    logins: int = 0
    sent: int = 0
    received: int = 0
    late: int = 0
    malformed: int = 0


class Stream:
    """One connection: what is to be written to it, and how to end it.

    Parameters
    ----------
    heartbeat : float
        Seconds after which a sign of life is sent where nothing else is.
    hang_up : callable
        Ends the connection without a word.
    """

    def __init__(self, heartbeat: float, hang_up: Callable[[], object]) -> None:
        self.heartbeat, self.hang_up = heartbeat, hang_up
        self.counters = Counters()
        self._out: queue.SimpleQueue[Iterator[bytes] | bytes | None] = queue.SimpleQueue()
        self.last_heard = time.monotonic()
        self.admitted, self.ended = Event(), Event()

    def write(self, what: Iterator[bytes] | bytes) -> None:
        """Send a frame, or several, after all that is to be sent already."""
        self._out.put(what)

    def end(self, goodbye: bytes = b"") -> None:
        """Send no more than what is to be sent already, and a goodbye; then close."""
        if goodbye:
            self._out.put(goodbye)
        self._out.put(None)
        self.admitted.set()

    def hang_up_soon(self) -> None:
        """Let what is to be sent get through, and end the connection even if it does not."""
        timer = threading.Timer(_LAST_WORDS, self.hang_up)
        timer.daemon = True
        timer.start()

    def frames(self) -> Iterator[bytes]:
        """Yield what is to be written, until the end."""
        while True:
            try:
                item = self._out.get(timeout=self.heartbeat)
            except queue.Empty:
                item = BEAT
            if item is None:
                return
            for frame in (item,) if isinstance(item, bytes) else item:
                self.counters.sent += len(frame)
                yield frame
