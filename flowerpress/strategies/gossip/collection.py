"""Strategies whose workers train models of their own: asking for these, and their mean."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Generator, Iterator

import numpy as np
from flwr.app import ArrayRecord

from flowerpress.compressors import decompress
from flowerpress.protocol.buffers import Buffers
from flowerpress.server.ask import Ask
from flowerpress.server.base import CompressedStrategy, FloatVector
from flowerpress.server.buffers import average_buffers
from flowerpress.server.client import Client
from flowerpress.server.update import Update

log = logging.getLogger("flowerpress")
_ATTEMPTS = 10  # to have a worker's model, in one round


class OwnModels(CompressedStrategy):
    """A strategy that may ask its workers for the models they hold, whole, in a second exchange."""

    @abstractmethod
    def holders(self) -> dict[int, FloatVector]:
        """Return the ids of the workers to ask, each with what stands for a model not received."""

    def reset(self) -> None:
        super().reset()
        self.collected = 0  # the round in which it was done last
        self.drop()

    def drop(self) -> None:
        """Forget the models collected."""
        self.models: dict[int, FloatVector] = {}
        self._buffers: dict[int, Buffers] = {}

    def keep(self, update: Update) -> None:
        """Take one model; raises `PacketError`."""
        packet, dim = update.packets[0], self.model.layout.dim
        self.models[update.client.id] = decompress(packet, max_dim=dim)

    def gather(self, server_round: int) -> Generator[Ask, list[Client], float]:
        """Collect the workers' models, as a part of a round; the strategy's is then their mean.

        Returns
        -------
        float
            The mean squared distance of the workers' models from their mean.
        """
        self.collected = server_round
        end, holders = time.monotonic() + self.timeout, self.holders()
        waiting = set(holders)  # from whom nothing was heard
        for _ in range(_ATTEMPTS):
            asked, seconds = self._reachable(waiting), end - time.monotonic()
            if asked and seconds > 0:
                yield self.question(asked, seconds)
                self._buffers |= self.run.buffers
                waiting -= self.run.heard
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

    def question(self, holders: list[Client], seconds: float) -> Ask:
        """Return the question for the models that workers hold."""
        return Ask(holders, into=self.keep, what="model", optional=True, timeout=seconds)

    def _reachable(self, waiting: set[int]) -> list[Client]:
        online = set(self.grid.get_node_ids())
        clients = [self.population.clients[i] for i in sorted(waiting)]
        return [client for client in clients if client.node in online]

    def local_models(self) -> Iterator[tuple[int, ArrayRecord]]:
        for i, x in sorted(self.models.items()):
            yield i, self.model.layout.unflatten(x, self._buffers.get(i, {}))
