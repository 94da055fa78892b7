"""The relay of decentralized training: what each node has made public, and what it is still owed.

No model is here. The relay keeps each node's public copy, the sum of the packets that it applied,
so that it can start a node that lost its memory or joins; and, for each node, the synchronisations
it was not yet heard to have done. A synchronisation is settled once, with the weights of that
moment, and every node in it does it sooner or later: what moves one end of an edge moves the other
by as much, and the mean of the nodes' models stays where it is, whatever is lost on the way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import add_to, make_compressor
from flowerpress.compressors.topk import TopK
from flowerpress.protocol import Mix, ModelPart
from flowerpress.strategies.topology import Topology

FloatVector = npt.NDArray[np.floating[Any]]
RELAYS = ("forward", "mix", "auto")
_IDENTITY = make_compressor("identity")


@dataclass
class Start:
    """Vectors that a node begins at: none where it begins at its task's own model."""

    number: int
    packets: list[bytes]
    own: float


@dataclass
class Node:
    """One node, as the relay sees it.

    Attributes
    ----------
    public : vector, shape (dim,)
        Its public copy: what it started at and the packets of it that were applied.
    count : int
        Number of the last thing made for it, a start or a synchronisation.
    start : Start or None
        Where it begins, until it was heard to have begun.
    owed : deque of (Mix, gamma)
        The synchronisations up to `count` that it was not heard to have done.
    away : int
        Synchronisations since it was last heard of.
    changed : bool
        Whether its neighbours changed, so that it must be sent their whole sum.
    """

    public: FloatVector
    count: int = -1
    start: Start | None = None
    owed: deque[tuple[Mix, float]] = field(default_factory=deque)
    away: int = 0
    changed: bool = False

    @property
    def done(self) -> int:
        """Number of the last thing it was heard to have done; -1 where it has not begun."""
        return self.start.number - 1 if self.start else self.count - len(self.owed)

    def hear(self, held: int) -> None:
        """Drop what it has done."""
        if self.start and held >= self.start.number:
            self.start = None
        if not self.start:
            while self.owed and self.done < held:
                self.owed.popleft()

    def part(self) -> ModelPart:
        """Return what it has not done."""
        mixes = [mix.encode() for mix, _ in self.owed]
        gammas = [gamma for _, gamma in self.owed]
        if self.start is None:
            return ModelPart(self.count, self.done, mixes, gammas)
        return ModelPart(self.count, -1, [*self.start.packets, *mixes], [self.start.own, *gammas])


class Relay:
    """Everyone's public copies, and the graph.

    Parameters
    ----------
    x0 : vector, shape (dim,)
        The public copy of a node that joins before there are others.
    buffers : vector
        Buffers of the initial model, sent with a start; empty for none.
    own_start : bool
        Nodes begin at their tasks' own models, with zero for public copies.
    mode : {"forward", "mix", "auto"}
        What neighbours' packets are sent as: as they came; as their weighted sum; or as whichever
        of these is smaller.

    Attributes
    ----------
    nodes : dict of int to Node
        All nodes met, those that are not in the graph now too, by id.
    topology : Topology or None
        The graph of the nodes that are there.
    total : vector of float64
        Sum of the public copies of the nodes in the graph.
    edge_bytes : float
        Bytes of packets that crossed an edge one way in the last synchronisation, on average.
    """

    def __init__(self, x0: FloatVector, buffers: FloatVector, own_start: bool, mode: str) -> None:
        self._x0, self._buffers = x0, buffers
        self._own_start, self._mode = own_start, mode
        self.nodes: dict[int, Node] = {}
        self.topology: Topology | None = None
        self.total = np.zeros(x0.size, np.float64)
        self.edge_bytes = 0.0
        self._news: dict[int, tuple[float, bytes]] = {}  # what became public: (scale, packet)

    @property
    def there(self) -> tuple[int, ...]:
        """Ids of the nodes in the graph."""
        return self.topology.nodes if self.topology else ()

    def mean(self) -> FloatVector:
        """Return the mean of the public copies."""
        mean: FloatVector = (self.total / max(len(self.there), 1)).astype(self._x0.dtype)
        return mean

    def rewire(self, topology: Topology) -> None:
        """Change the graph; nodes that are not known yet join, at the mean of the public copies."""
        before, first = self.topology, self.topology is None
        for i in topology.nodes:
            if i not in self.nodes:
                zero = first and self._own_start
                public = np.zeros_like(self._x0) if zero else self._x0 if first else self.mean()
                self.nodes[i] = Node(public.copy())
        self.topology = topology
        self.total[:] = 0
        for i, row in topology.weights.items():
            self.total += self.nodes[i].public
            self.nodes[i].changed |= before is not None and row != before.weights.get(i)
        for i in topology.nodes:
            if self.nodes[i].count < 0:
                self._begin(i, alike=first)

    def restart(self, node: int) -> None:
        """Let a node that lost its memory begin anew, at its public copy."""
        self._begin(node, alike=False)

    def _begin(self, i: int, *, alike: bool) -> None:
        """Make a start; `alike`: all public copies are equal, so that t is known from this one."""
        node = self.nodes[i]
        node.owed.clear()
        node.count += 1
        node.changed = False
        vectors = [] if alike and self._own_start else [node.public]
        if vectors and not alike:
            vectors.append(self._around(i))
        if vectors and self._buffers.size:
            vectors.append(self._buffers)
        packets = [_IDENTITY.compress(vector).data for vector in vectors]
        node.start = Start(node.count, packets, self._topology.own(i))

    @property
    def _topology(self) -> Topology:
        if self.topology is None:
            raise RuntimeError("the graph was not drawn yet")
        return self.topology

    def _around(self, i: int) -> FloatVector:
        """Return the weighted sum of the neighbours' public copies."""
        around = np.zeros_like(self._x0)
        for j, weight in self._topology.weights.get(i, {}).items():
            around += around.dtype.type(weight) * self.nodes[j].public
        return around

    def receive(self, i: int, packet: bytes, scale: float) -> None:
        """Add a packet to its sender's public copy; raises `PacketError` and changes nothing."""
        add_to(packet, self.nodes[i].public, scale)
        if i in self._topology.weights:
            add_to(packet, self.total, scale)
            self._news[i] = scale, packet

    def settle(self, heard: Iterable[int], gamma: float) -> None:
        """End a synchronisation: what became public in it goes to the senders' neighbours.

        Parameters
        ----------
        heard : iterable of int
            The nodes that answered.
        gamma : float
            The step towards the neighbours.
        """
        answered, graph = set(heard), self._topology
        passed = sum(len(packet) * len(graph.weights[j]) for j, (_, packet) in self._news.items())
        self.edge_bytes = passed / (2 * graph.edges or 1)
        for i, node in self.nodes.items():
            node.away = 0 if i in answered else node.away + 1
        for i, row in graph.weights.items():
            node = self.nodes[i]
            node.owed.append((self._mix(i, row), gamma))
            node.count += 1
            node.changed = False
        self._news.clear()

    def _mix(self, i: int, row: Mapping[int, float]) -> Mix:
        own = self._topology.own(i)
        if self.nodes[i].changed:
            return Mix(own, (1.0,), (_IDENTITY.compress(self._around(i)).data,), whole=True)
        news = [(row[j] * self._news[j][0], self._news[j][1]) for j in row if j in self._news]
        mix = Mix(own, tuple(weight for weight, _ in news), tuple(packet for _, packet in news))
        if self._mode == "forward" or len(news) < 2:
            return mix
        summed = Mix(own, (1.0,), (packed(mix.total(self._x0)),))
        return summed if self._mode == "mix" or summed.nbytes < mix.nbytes else mix


def packed(vector: FloatVector) -> bytes:
    """Return a packet of exactly `vector`, short where most of it is zero.

    Examples
    --------
    >>> len(packed(np.eye(1, 1000)[0])), len(packed(np.ones(1000)))
    (42, 8024)
    """
    count = int(np.count_nonzero(vector))
    dense = _IDENTITY.compress(vector)
    if not 0 < count < vector.size:
        return dense.data
    sparse = TopK(k=count).compress(vector)
    return min(sparse, dense, key=lambda packet: packet.nbytes).data
