"""The model on both sides of the network: versions, missed deltas, snapshots.

A version is the number of steps the model has taken. A server either sends the model dense in
every round, or, where the algorithm compresses the downlink, one delta a step. It knows which
version each worker holds, and sends the deltas that worker missed or a snapshot, whichever is
smaller. Server and workers apply deltas by the same function below, so their replicas are equal to
the bit.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import PacketError, add_to, decompress
from flowerpress.protocol.messages import ModelPart

FloatVector = npt.NDArray[np.floating[Any]]
RULES = ("dense", "step", "ef21")


class ReplicaError(ValueError):
    """A replica cannot follow: the deltas do not start at the version it holds."""


@dataclass
class Replica:
    """A model at a version, and how one delta takes it to the next.

    Parameters
    ----------
    rule : {"dense", "step", "ef21"}
        dense: no deltas. step: x -= delta (two-way EF14). ef21: g += delta, then x -= lr * g
        (EF21-BC: Fatkhullin et al. 2021, "EF21 with Bells & Whistles").
    version : int
        -1 for an empty replica.
    x, g : vector or None
        The model and, for rule "ef21", the estimate both sides hold (None: zero).
    scale : float
        A delta stands for ``scale * decompress(packet)``; below 1 where an unbiased compressor is
        scaled into a contractive one.
    """

    rule: str = "dense"
    version: int = -1
    x: FloatVector | None = None
    g: FloatVector | None = None
    scale: float = 1.0

    @property
    def model(self) -> FloatVector:
        """Return x; raises `ReplicaError` while the replica is empty."""
        if self.x is None:
            raise ReplicaError("this replica holds no model yet")
        return self.x

    def advance(self, packet: bytes, lr: float) -> None:
        """Apply the delta that takes this version to the next."""
        x = self.model
        if self.rule == "step":
            add_to(packet, x, -self.scale)
        else:
            if self.g is None:
                self.g = np.zeros_like(x)
            add_to(packet, self.g, self.scale)
            x -= x.dtype.type(lr) * self.g
        self.version += 1

    def follow(self, part: ModelPart, dim: int, lr: float) -> None:
        """Take the replica to `part.version`: load the snapshot, or apply the deltas not seen yet.

        Raises
        ------
        ReplicaError
            The deltas start after the version held: the server must send a snapshot.
        PacketError
            A packet is damaged or has another dimension.
        """
        if part.base < 0:
            self._load(part, dim)
            return
        if self.x is None or not part.base <= self.version <= part.version:
            raise ReplicaError(
                f"deltas start at version {part.base}, this worker holds {self.version}"
            )
        if len(part.packets) != part.version - part.base:
            raise ReplicaError(f"{len(part.packets)} deltas from {part.base} to {part.version}")
        for packet in part.packets[self.version - part.base :]:
            self.advance(packet, lr)

    def _load(self, part: ModelPart, dim: int) -> None:
        vectors = [decompress(packet) for packet in part.packets]
        if not 1 <= len(vectors) <= 2 or any(v.size != dim for v in vectors):
            raise PacketError(
                f"snapshot has vectors of sizes {[v.size for v in vectors]}, the layout has {dim}"
            )
        self.x, self.g = vectors[0], vectors[1] if len(vectors) == 2 else None
        self.version = part.version


@dataclass
class DeltaLog:
    """The last deltas, kept while together they are smaller than a snapshot.

    Examples
    --------
    >>> log = DeltaLog(limit=10)
    >>> for packet in (b"aaaa", b"bbbb", b"cccc"):
    ...     log.append(packet)
    >>> log.since(1), log.since(0)
    ([b'bbbb', b'cccc'], None)
    """

    limit: int
    version: int = 0
    packets: deque[bytes] = field(default_factory=deque)

    def append(self, packet: bytes) -> None:
        """Add the delta that leads to the next version; forget what a snapshot would beat."""
        self.packets.append(packet)
        self.version += 1
        while sum(map(len, self.packets)) > self.limit:
            self.packets.popleft()

    def since(self, version: int) -> list[bytes] | None:
        """Return the deltas after `version`, or None where only a snapshot will do."""
        missed = self.version - version
        if version < 0 or not 0 <= missed <= len(self.packets):
            return None
        return list(self.packets)[len(self.packets) - missed :]
