"""A client's attempts to connect: how long to wait for the next, and when to give up."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from flowerpress.transport.reach import Trouble

log = logging.getLogger("flowerpress")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 15.0  # seconds between attempts
_BELIEVED = 3  # attempts after which a trouble is believed to last
_WITHOUT_NEED = 3.0  # seconds of patience of a process in whose place another one works


class Attempts:
    """What is known of attempts to connect to one server.

    Parameters
    ----------
    server : str
        What to call it.
    patience : float
        Seconds to go on trying without a connection.

    Attributes
    ----------
    in_vain : bool
        Whether trying on cannot help: somebody has to change something.
    """

    def __init__(
        self, server: str, patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server, self._patience, self._clock = server, patience, clock
        self.in_vain = False
        self._began = clock()
        self._reached = False
        self._said = self._replaced = ""
        self._count, self._pause, self._asked_for = 0, _FIRST_PAUSE, 0.0

    def connected(self) -> None:
        """Hear that the server has let this client in."""
        self._reached, self._replaced, self._said = True, "", ""
        self._count, self._pause, self._asked_for = 0, _FIRST_PAUSE, 0.0

    def ended(self, state: str) -> None:
        """Hear that a connection has ended, and why."""
        self._began = self._clock() + self._asked_for
        self._say(state)

    def replaced(self, reason: str, pause: float) -> None:
        """Hear that another process of this client works now, and when to try again."""
        self._replaced, self._asked_for = reason, pause

    def failed(self, state: str, trouble: Trouble | None) -> str:
        """Hear that an attempt has failed; returns why to give up, "" to go on."""
        self._count += 1
        hint = f"; {trouble.hint}" if trouble and trouble.hint and self._count >= _BELIEVED else ""
        if trouble and trouble.lasting and self._count >= _BELIEVED and not self._reached:
            self.in_vain = True
            return f"{self._server}: {trouble.hint} [{trouble.reason}]"
        # Another process of this client, where there is one, waits for the server.
        patience = min(self._patience, _WITHOUT_NEED) if self._replaced else self._patience
        if self._clock() - self._began > patience:
            reason = f"{self._server} was not reached: {state}{hint}"
            return f"{self._replaced}; then {reason}" if self._replaced else reason
        self._say(state + hint)
        return ""

    def wait(self) -> float:
        """Return the seconds to wait before the next attempt."""
        pause = max(self._pause * random.uniform(0.5, 1.0), self._asked_for)  # noqa: S311
        self._asked_for = 0.0
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return pause

    def _say(self, state: str) -> None:
        """Log why there is no connection, each time that it is for another reason."""
        if state != self._said:
            log.warning("%s: %s", self._server, state)
        self._said = state
