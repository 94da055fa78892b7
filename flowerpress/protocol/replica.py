"""The model on both sides of the network: versions, missed deltas, snapshots.

A version is the number of steps the model has taken. A server either sends the model dense in
every round, or, where the algorithm compresses the downlink, one delta a step. It knows which
version each worker holds, and sends the deltas that worker missed or a snapshot, whichever is
smaller. What a delta does is a `Rule`, applied by the same function on both sides.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import Packet, PacketError, decompress
from flowerpress.compressors.identity import Identity
from flowerpress.protocol.layout import Layout
from flowerpress.protocol.model_part import ModelPart, mark_of
from flowerpress.protocol.rooms import zeros_like
from flowerpress.protocol.rules import Kept, Rule
from flowerpress.protocol.shared import shared_of

FloatVector = npt.NDArray[np.floating[Any]]


class ReplicaError(ValueError):
    """A replica cannot follow: the deltas do not start at the version it holds."""


@dataclass
class Replica:
    """A model at a version, with what its rule keeps beside it.

    Parameters
    ----------
    rule : Rule or None
        What a delta does; None: the model comes whole in every round.
    version : int
        -1 for an empty replica.
    x : vector or None
        The model.
    kept : dict
        The rule's vectors by name; absent ones are zero.
    scale : float
        A delta stands for ``scale * decompress(packet)``; below 1 where an unbiased compressor is
        scaled into a contractive one.
    mark : int
        Fingerprint of the model (see `ModelPart`); 0: not known.
    """

    rule: Rule | None = None
    version: int = -1
    x: FloatVector | None = None
    kept: Kept = field(default_factory=dict)
    scale: float = 1.0
    mark: int = 0

    @property
    def model(self) -> FloatVector:
        """Return x; raises `ReplicaError` while the replica is empty."""
        if self.x is None:
            raise ReplicaError("this replica holds no model yet")
        return self.x

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the vectors kept beside x."""
        return self.rule.kept if self.rule else ()

    def advance(self, packet: bytes, rate: float) -> None:
        """Apply the delta that takes this version to the next."""
        x = self.model
        if self.rule is None:
            raise ReplicaError("deltas for a model that comes whole in every round")
        for name in self.names:
            self.kept.setdefault(name, zeros_like(x))
        self.rule.advance(x, self.kept, packet, self.scale, rate)
        self.mark = mark_of([packet], [rate], self.mark)
        self.version += 1

    def follow(self, part: ModelPart, layout: Layout) -> None:
        """Take the replica to `part.version`: load the snapshot, or apply the deltas not seen yet.

        Raises
        ------
        ReplicaError
            The deltas start after the version held, or do not lead from it to where they should:
            the server must send a snapshot.
        PacketError
            A packet is damaged or of another model. Deltas before it may have been applied: the
            replica must not be used again.
        """
        if part.base < 0:
            self._load(part, layout)
            return
        if self.x is None or not part.base <= self.version <= part.version:
            raise ReplicaError(
                f"deltas start at version {part.base}, this worker holds {self.version}"
            )
        if not len(part.packets) == len(part.rates) == part.version - part.base:
            raise ReplicaError(f"{len(part.packets)} deltas from {part.base} to {part.version}")
        seen = self.version - part.base
        rest = list(zip(part.packets[seen:], part.rates[seen:], strict=True))
        mark = self.mark
        for packet, rate in rest:
            mark = mark_of([packet], [rate], mark)
        if part.mark and self.mark and mark != part.mark:
            raise ReplicaError(f"version {self.version} here is not what it is on the server")
        for packet, rate in rest:
            self.advance(packet, rate)
        self.mark = part.mark

    def _load(self, part: ModelPart, layout: Layout) -> None:
        names = self.names
        shared, most = shared_of(part.array), 2 + len(names)
        if shared is not None:
            vectors = shared.once("vectors", lambda: _vectors(part, layout, most))
        else:
            vectors = _vectors(part, layout, most)
        if shared is not None:
            vectors = [vector.copy() for vector in vectors]  # others read these
        fits = len(vectors) in (1, 1 + len(names))
        for vector in vectors:
            fits &= vector.size == layout.dim and vector.dtype == layout.dtype
        if not fits:
            raise PacketError(_unlike([(v.size, v.dtype) for v in vectors], layout))
        self.x, *others = vectors
        self.kept = dict(zip(names, others, strict=False))
        self.version, self.mark = part.version, part.mark


def _vectors(part: ModelPart, layout: Layout, most: int) -> list[FloatVector]:
    """Decode a snapshot's first vectors; raises `PacketError` if they are not of the model."""
    packets = [_packet(each) for each in part.packets[:most]]
    found = [(packet.dim, packet.dtype) for packet in packets]
    if {*found} != {(layout.dim, layout.dtype)}:
        raise PacketError(_unlike(found, layout))
    return [_vector(packet, layout.dim) for packet in packets]


def _unlike(found: list[tuple[int, np.dtype[Any]]], layout: Layout) -> str:
    vectors = [f"{dim} x {dtype}" for dim, dtype in found]
    return f"snapshot has vectors {vectors}, the model {layout.dim} x {layout.dtype}"


def _packet(data: Any) -> Packet:
    """Return a packet of a message, which is not copied where the message is the reader's own."""
    return Packet.view(data) if isinstance(data, bytes | memoryview) else Packet.parse(bytes(data))


def _vector(packet: Packet, dim: int) -> FloatVector:
    """Return what a packet of a snapshot holds, the caller's own: where it can be, where it lies.

    A message that came over the link is read into memory that is its own. So a model that is whole
    in it is there already, and its checked bytes need not be copied to another place.
    """
    if packet.header.codec != Identity.codec:
        return decompress(packet, max_dim=dim)
    values: FloatVector = Identity.decode(packet).values
    return values if values.flags.writeable else values.copy()


@dataclass
class DeltaLog:
    """The last deltas, kept while together they are smaller than a snapshot.

    Examples
    --------
    >>> log = DeltaLog(limit=10)
    >>> for packet in (b"aaaa", b"bbbb", b"cccc"):
    ...     log.append(packet, 0.1)
    >>> log.since(1).packets, log.since(0)
    ([b'bbbb', b'cccc'], None)
    """

    limit: int
    version: int = 0
    deltas: deque[tuple[bytes, float]] = field(default_factory=deque)
    size: int = 0

    def append(self, packet: bytes, lr: float) -> None:
        """Add the delta that leads to the next version; forget what a snapshot would beat."""
        self.deltas.append((packet, lr))
        self.version += 1
        self.size += len(packet)
        while self.size > self.limit:
            self.size -= len(self.deltas.popleft()[0])

    def since(self, version: int) -> ModelPart | None:
        """Return the deltas after `version`, or None where only a snapshot will do."""
        missed = self.version - version
        if version < 0 or not 0 <= missed <= len(self.deltas):
            return None
        deltas = list(self.deltas)[len(self.deltas) - missed :]
        packets, rates = [packet for packet, _ in deltas], [lr for _, lr in deltas]
        return ModelPart(self.version, version, packets, rates)
