"""One worker as the server sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from flowerpress.compressors.feedback import Receiver

_STARTS = 3  # times that a client is asked to start out of turn
KINDS, _FIRST = 5, 3  # of quantities whose norms are remembered, and how many of the first


@dataclass
class Client:
    """One worker as the server sees it.

    Parameters
    ----------
    id, node : int
        Its stable id, and the Flower node it was last heard from.
    examples : int
        Its number of training examples.
    receiver : Receiver
        Which of its packets was applied last, and the question that is open.
    held : int
        The model version it holds; -1 for none.
    failing : str
        Why it failed since its last update; empty if it did not.
    session : int
        Number of this run among those that the worker has seen: one more than the last it has any
        memory of, so that it forgets that.
    forgiven, restarts : int
        The first round in which losing its state may make all start over, and how often it has.
    compressor : str
        The one that it has chosen for itself; empty for none.
    starts : int
        How often it was asked to train while nothing of it was applied.
    mass : float
        What it counts for by its number of examples, see `Population`; 0: not settled yet.
    first : list of list of float
        The first three norms above zero that it sent, of each kind of quantity; see
        `flowerpress.server.guard`.
    last : list of float
        The last norm of each kind; negative: none yet.
    usual, largest : list of float
        The first norm above zero, and the largest, that were accepted of it, of each kind.
    rate : float
        Bytes a second that its answers come with, see `flowerpress.server.ladder`; 0: not known.
    step : int
        The step of the ladder that it was told last; -1: none yet.
    """

    id: int
    node: int
    examples: int
    receiver: Receiver = field(default_factory=Receiver)
    held: int = -1
    failing: str = ""
    session: int = 1
    forgiven: int = 0
    restarts: int = 0
    compressor: str = ""
    starts: int = 0
    mass: float = 0.0
    first: list[list[float]] = field(default_factory=lambda: [[] for _ in range(KINDS)])
    last: list[float] = field(default_factory=lambda: [-1.0] * KINDS)
    usual: list[float] = field(default_factory=lambda: [0.0] * KINDS)
    largest: list[float] = field(default_factory=lambda: [0.0] * KINDS)
    rate: float = 0.0
    step: int = -1

    def hear(self, sizes: Mapping[int, float]) -> None:
        """Remember norms that it sent, by kind; one that is not finite says nothing."""
        for kind, size in sizes.items():
            if math.isfinite(size):
                self.last[kind] = size
                if size > 0 and len(self.first[kind]) < _FIRST:
                    self.first[kind].append(size)

    def accept(self, sizes: Mapping[int, float]) -> None:
        """Remember norms of what went in, by kind."""
        for kind, size in sizes.items():
            self.usual[kind] = self.usual[kind] or size
            self.largest[kind] = max(self.largest[kind], size)

    @property
    def waiting(self) -> bool:
        """Whether it is to start, and was not asked to in vain for a few times."""
        return self.receiver.applied == 0 and self.starts < _STARTS

    def may_restart_all(self, server_round: int) -> bool:
        """Whether this worker's lost state may make all start over now.

        After the first time it must wait 10, 20, 40, ... rounds: one worker must not make all send
        dense in every round.
        """
        if server_round < self.forgiven:
            return False
        self.restarts += 1
        self.forgiven = server_round + 5 * 2**self.restarts
        return True

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return what `dataclasses.asdict` made a mapping of.

        Older checkpoints have four kinds, and of these only the largest norms, which then stand for
        the first ones; and no masses, so that a worker counts for what it said.
        """
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        client = cls(**{**known, "receiver": Receiver(**fields["receiver"])})
        if "mass" not in fields:
            client.mass = float(client.examples)
        if "claimed" in fields:
            client.largest += [0.0] * (KINDS - len(client.largest))
            sizes = {kind: size for kind, size in enumerate(client.largest) if size > 0}
            client.hear(sizes)
            client.accept(sizes)
        return client
