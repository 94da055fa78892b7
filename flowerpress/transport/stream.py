"""One connection, at either end: what is to be written to it, and how to end it."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flowerpress.transport.frames import BEAT

LAST_WORDS = 5.0  # seconds for a goodbye to get through


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

    A client's is written by a thread, which takes `frames`; a server's by a loop: `LoopStream`.

    Parameters
    ----------
    heartbeat : float
        Seconds after which a sign of life is sent where nothing else is.
    hang_up : callable
        Ends the connection without a word.
    address : str
        Where the other side is.

    Attributes
    ----------
    instance : str
        The process at the other side, by a number that it has drawn; empty if it says none.
    admitted, confirmed : bool
        Whether the other side was let in, or turned away, and whether it has said something after
        it was let in.
    opened, last_heard, last_sent, ending : float
        When the connection began, a frame came last, one was taken last by the other side, and the
        end was decided (0: it was not), on the clock of `time.monotonic`.
    """

    def __init__(self, heartbeat: float, hang_up: Callable[[], object], address: str = "") -> None:
        self.heartbeat, self.hang_up, self.address = heartbeat, hang_up, address
        self.counters = Counters()
        self._out: queue.SimpleQueue[Iterator[bytes] | bytes | None] = queue.SimpleQueue()
        self.opened = self.last_heard = self.last_sent = time.monotonic()
        self.ending = self._writing = 0.0
        self.instance, self.admitted, self.confirmed = "", False, False

    def write(self, what: Iterator[bytes] | bytes) -> None:
        """Send a frame, or several, after all that is to be sent already."""
        self._out.put(what)

    def end(self, goodbye: bytes = b"") -> None:
        """Send no more than what is to be sent already, and a goodbye; then close."""
        self.ending = self.ending or time.monotonic()
        if goodbye:
            self._out.put(goodbye)
        self._out.put(None)
        self.admitted = True

    def stalled(self, now: float) -> float:
        """Return the seconds for which the other side has not taken the frame that is sent."""
        since = self._writing
        return now - since if since else 0.0

    def frames(self) -> Iterator[bytes]:
        """Yield what is to be written, until the end."""
        while True:
            try:
                item = self._out.get(timeout=self.heartbeat)
            except queue.Empty:
                item = BEAT
            if item is None:
                return
            yield from self.each(item)

    def each(self, item: Iterator[bytes] | bytes) -> Iterator[bytes]:
        """Yield the frames of one thing that is to be written, counted, and timed in between."""
        for frame in (item,) if isinstance(item, bytes) else item:
            self.counters.sent += len(frame)
            self._writing = time.monotonic()
            yield frame  # comes back once there was room for it
            self._writing, self.last_sent = 0.0, time.monotonic()
