"""Strategies whose workers train models of their own: asking for these, and their mean."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
from flwr.app import ArrayRecord

from flowerpress.compressors import decompress
from flowerpress.protocol.buffers import Buffers
from flowerpress.strategies.base import CompressedStrategy, FloatVector
from flowerpress.strategies.buffers import average_buffers
from flowerpress.strategies.run import COLLECTION
from flowerpress.strategies.update import Update

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
        self._buffers: dict[int, Buffers] = {}

    def keep(self, update: Update) -> None:
        """Take one model; raises `PacketError`."""
        packet, dim = update.packets[0], self.model.layout.dim
        self.models[update.client.id] = decompress(packet, max_dim=dim)

    def gather(self, server_round: int) -> float:
        """Collect the workers' models; the strategy's model is then their mean.

        Returns
        -------
        float
            The mean squared distance of the workers' models from their mean.
        """
        end, holders = time.monotonic() + self.timeout, self.holders()
        waiting = set(holders)  # from whom nothing was heard
        for _ in range(_ATTEMPTS):
            waiting -= self._ask(server_round, waiting, end - time.monotonic())
        if missing := sorted(set(holders) - set(self.models)):
            log.warning(
                "round %d: no model of clients %s: what is public of them stands for it",
                server_round,
                missing,
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

    def _ask(self, server_round: int, waiting: set[int], seconds: float) -> set[int]:
        """Ask those of `waiting` that can be reached for their models; returns who answered."""
        online, run = set(self.grid.get_node_ids()), self.run
        clients = [self.population.clients[i] for i in sorted(waiting)]
        asked = [client for client in clients if client.node in online]
        if not asked or seconds <= 0:
            return set()
        run.exchange.question += 1
        orders = run.orders(server_round, asked, "collect", stage=2)
        replies = self.grid.send_and_receive(orders, timeout=seconds)
        run.take(server_round, asked, replies, self.keep, [self.model.layout.dim], stage=COLLECTION)
        self._buffers |= run.buffers
        return set(run.heard)

    def local_models(self) -> Iterator[tuple[int, ArrayRecord]]:
        for i, x in sorted(self.models.items()):
            yield i, self.model.layout.unflatten(x, self._buffers[i])
