"""Rounds with two exchanges: the workers answer, and are asked again for some coordinates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from flwr.app import Message

from flowerpress.protocol import Reply, encode_places
from flowerpress.protocol.places import Places
from flowerpress.strategies.base import CompressedStrategy
from flowerpress.strategies.client import Client
from flowerpress.strategies.update import Update


class TwoExchanges(CompressedStrategy):
    """A strategy whose rounds ask twice.

    The first answers go to `receive_first`; `places` says which coordinates are then asked of those
    who answered; the second answers go to `receive`. A worker takes part in a step if its second
    answer came in. The second question brings no model: the downlink must be compressed, so that
    workers keep a replica.
    """

    @abstractmethod
    def receive_first(self, update: Update) -> None:
        """Add a first answer, or raise `PacketError` and change nothing."""

    @abstractmethod
    def places(self, answered: list[Client], server_round: int) -> Places:
        """Return the coordinates to ask for, ascending, at least one."""

    def collect(self, server_round: int, replies: Iterable[Message]) -> list[tuple[Client, Reply]]:
        """Take the first answers, ask again, and take the second ones."""
        run = self.run
        taken = run.take(
            server_round, run.cohort, replies, self.receive_first, self.dims(1), stage=1
        )
        if not taken:
            return []
        again = [client for client, _ in taken]
        self.asked = self.places(again, server_round)
        run.exchange.question += 1
        places = encode_places(self.asked, self.model.layout.dim)
        orders = run.orders(
            server_round, again, "train", stage=2, places=places, part_for=run.nothing
        )
        messages = self.grid.send_and_receive(orders, timeout=self.timeout)
        return run.take(server_round, again, messages, self.receive, self.dims(2), stage=2)
