"""Strategies whose workers train models of their own: asking for these, and their mean."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
from flwr.app import ArrayRecord

from flowerpress.compressors import PacketError, decompress
from flowerpress.compressors.feedback import Acceptance
from flowerpress.protocol import Reply
from flowerpress.strategies.averages import average_buffers, unpack_buffers
from flowerpress.strategies.base import CompressedStrategy, FloatVector
from flowerpress.strategies.population import Client

log = logging.getLogger("flowerpress")
_ATTEMPTS = 10  # to have a worker's model, in one round


class OwnModels(CompressedStrategy):
    """A strategy that may ask its workers for the models they hold, whole, in a second exchange."""

    @abstractmethod
    def holders(self) -> dict[int, FloatVector]:
        """Return the ids of the workers to ask, each with what stands for a model not received."""

    def reset(self) -> None:
        super().reset()
        self.drop()

    def drop(self) -> None:
        """Forget the models collected."""
        self.models: dict[int, FloatVector] = {}
        self._buffers: dict[int, FloatVector] = {}

    def gather(self, server_round: int) -> float:
        """Collect the workers' models; the strategy's model is then their mean.

        Returns
        -------
        float
            The mean squared distance of the workers' models from their mean.
        """
        end = time.monotonic() + self.timeout
        for _ in range(_ATTEMPTS):
            self._ask(server_round, end - time.monotonic())
        holders = self.holders()
        silent = [i for i in holders if i not in self.models]
        if silent:
            log.warning(
                "round %d: no model of clients %s: what is public of them stands for it",
                server_round,
                silent,
            )
        every = [self.models.get(i, public) for i, public in holders.items()]
        mean = np.zeros(self.model.layout.dim)
        for x in every:
            mean += x
        mean /= len(every)
        self.model.jump(mean.astype(self.model.x.dtype), server_round)
        if self._buffers:
            found = [self._buffers[i] for i in sorted(self._buffers)]
            self.model.buffers = average_buffers(self.model.buffers, found, [1.0] * len(found))
        return float(np.mean([np.sum((x - mean) ** 2) for x in every]))

    def _ask(self, server_round: int, seconds: float) -> None:
        """Ask those whose models are not there yet, if they can be reached."""
        online, holders, run = set(self.grid.get_node_ids()), self.holders(), self.run
        clients = [self.population.clients[i] for i in holders if i not in self.models]
        asked = [client for client in clients if client.node in online]
        if not asked or seconds <= 0:
            return
        run.exchange.question += 1
        orders = run.orders(server_round, asked, "collect", stage=2)
        replies = self.grid.send_and_receive(orders, timeout=seconds)
        for client, reply in run.exchange.answers(server_round, asked, replies, "collect"):
            self._take(server_round, client, reply)

    def _take(self, server_round: int, client: Client, reply: Reply) -> None:
        """Take one model, if it may be believed."""
        exchange, layout = self.run.exchange, self.model.layout
        if reply.status != "failed":
            client.held = reply.held
        verdict = exchange.judge(server_round, client, reply, layout, [layout.dim], shared=True)
        if verdict is Acceptance.MISMATCH:
            self.disagree(client, server_round)
        if verdict is not Acceptance.APPLY:
            return
        try:
            model = decompress(reply.packets[0], max_dim=layout.dim)
            self._buffers[client.id] = unpack_buffers(reply.buffers, layout)
            self.models[client.id] = model
        except PacketError as error:
            exchange.refuse(server_round, f"client {client.id}: {error}")

    def local_models(self) -> Iterator[tuple[int, ArrayRecord]]:
        for i, x in sorted(self.models.items()):
            yield i, self.model.layout.unflatten(x, self._buffers[i])
