"""Asking nodes that are new who they are, without keeping those who are known waiting."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from flowerpress.protocol import question
from flowerpress.protocol.grids import has_strangers, stop_waiting

_MOMENT = 1.0  # seconds that a round waits for a node that is new
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05  # seconds between looks at what has come


@dataclass
class Newcomers:
    """Nodes that were asked who they are, and have not answered yet.

    Where all nodes are known to mean well (one process, Flower's engines), all answers are waited
    for, so that who is there in a round does not depend on how long each takes. On a grid with
    strangers, a question stays open while rounds go on, and one round waits a moment for its
    answer; what comes later is taken in a later round.

    Parameters
    ----------
    patience : float
        Seconds that a node has for its answer.
    """

    patience: float
    _open: dict[str, tuple[int, float]] = field(default_factory=dict)  # key -> (node, deadline)
    _slow: set[int] = field(default_factory=set)  # a round has waited for them already
    _silent: set[int] = field(default_factory=set)  # they have let their time pass
    _answers: list[Message] = field(default_factory=list)

    @property
    def asked(self) -> set[int]:
        """The nodes whose answers are not there yet."""
        return {node for node, _ in self._open.values()} if self._open else set()

    def ask(self, grid: Grid, nodes: Iterable[int], *, needed: int, first: bool) -> list[Message]:
        """Ask nodes, and return all answers that are there, in the nodes' order.

        Parameters
        ----------
        needed : int
            How many more workers a round needs.
        first : bool
            Whether nobody is known yet: then the answers of so many are given at once, for the
            first decide on the model's layout.
        """
        messages = [Message(question(), node, "query") for node in nodes]
        if not has_strangers(grid):
            return list(grid.send_and_receive(messages, timeout=self.patience)) if messages else []
        self._send(grid, messages)
        end, pause = time.monotonic() + _MOMENT, _FIRST_PAUSE
        while self._take(grid) - self._slow and time.monotonic() < end:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._slow |= self.asked
        if first and len(self._answers) < needed and self.asked - self._silent:
            return []
        found, self._answers = self._answers, []
        return sorted(found, key=lambda message: message.metadata.src_node_id)

    def _send(self, grid: Grid, messages: list[Message]) -> None:
        if not messages:
            return
        deadline = time.monotonic() + self.patience
        for key, message in zip(grid.push_messages(messages), messages, strict=True):
            self._open[key] = message.metadata.dst_node_id, deadline

    def _take(self, grid: Grid) -> set[int]:
        """Take the answers that have come; returns the nodes whose answers have not."""
        now = time.monotonic()
        for key, (node, deadline) in list(self._open.items()):
            answers = list(grid.pull_messages([key]))
            if answers:
                self._slow.discard(node)
                self._silent.discard(node)
                self._answers += answers
            elif now > deadline:
                self._silent.add(node)
                stop_waiting(grid, [key])
            else:
                continue
            del self._open[key]
        return self.asked
