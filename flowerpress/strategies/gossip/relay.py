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

from flowerpress.compressors import Opened, add_to, make_compressor
from flowerpress.compressors.sparse.topk import TopK
from flowerpress.protocol import Mix, ModelPart, Owed
from flowerpress.protocol.buffers import kept_buffers
from flowerpress.server.tree import Tree
from flowerpress.strategies.gossip.topology import Topology

FloatVector = npt.NDArray[np.floating[Any]]
RELAYS = ("forward", "mix", "auto")
_IDENTITY = make_compressor("identity")


@dataclass
class Node:
    """One node, as the relay sees it.

    Attributes
    ----------
    public : vector, shape (dim,)
        Its public copy: what it started at and the packets of it that were applied.
    count : int
        Number of the last thing made for it, a start or a synchronisation.
    start : list of bytes or None
        Packets of its start (see `Owed`), until it was heard to have begun.
    own : float
        Sum of the weights of its edges, at its start.
    owed : deque of (Mix, gamma)
        The synchronisations up to `count` that it was not heard to have done.
    away : int
        Synchronisations since it was last heard of.
    changed : bool
        Whether its neighbours changed, so that it must be sent their whole sum.
    mark : int
        Of it when it will have done all that is owed, see `ModelPart`.
    """

    public: FloatVector
    count: int = -1
    start: list[bytes] | None = None
    own: float = 0.0
    owed: deque[tuple[Mix, float]] = field(default_factory=deque)
    away: int = 0
    changed: bool = False
    mark: int = 0

    @property
    def base(self) -> int:
        """Number of the start, or of the last thing it was heard to have done."""
        return self.count - len(self.owed)

    def hear(self, held: int) -> None:
        """Drop what it has done: everything up to number `held`."""
        if held >= self.base:
            self.start = None
        while self.start is None and self.owed and self.base < held:
            self.owed.popleft()

    def lacks(self, held: int) -> bool:
        """Whether a node that holds `held` cannot go on from what is owed to it."""
        return self.start is None and held < self.base

    def part(self) -> ModelPart:
        """Return what it has not done."""
        mixes = [(mix.encode(), gamma) for mix, gamma in self.owed]
        return Owed(self.base, mixes, self.start, self.own, self.mark).to_part()


class Relay:
    """Everyone's public copies, and the graph.

    Parameters
    ----------
    x0 : vector, shape (dim,)
        The public copy of a node that joins before there are others.
    buffers : bytes
        Buffers of the model (see `flowerpress.protocol.buffers`), sent with a start.
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

    def __init__(self, x0: FloatVector, buffers: bytes, own_start: bool, mode: str) -> None:
        self._x0, self.buffers = x0, buffers
        self._own_start, self._mode = own_start, mode
        self.nodes: dict[int, Node] = {}
        self.topology: Topology | None = None
        self.total = np.zeros(x0.size, np.float64)
        self.edge_bytes = 0.0
        self._news: dict[int, tuple[float, bytes]] = {}  # what became public: (scale, packet)

    def state(self) -> Tree:
        """Return what a checkpoint needs of it."""
        nodes = {}
        for i, node in self.nodes.items():
            owed = [(mix.encode(), gamma) for mix, gamma in node.owed]
            nodes[i] = {**vars(node), "owed": owed}
        graph = self.topology
        return {
            "x0": self._x0,
            "buffers": self.buffers,
            "nodes": nodes,
            "topology": [graph.name, dict(graph.weights)] if graph else None,
            "total": self.total,
            "edge_bytes": self.edge_bytes,
        }

    def restore(self, state: Tree) -> None:
        """Take what `state` returned."""
        self._x0, self.buffers = state["x0"], kept_buffers(state["buffers"])
        self.total, self.edge_bytes = state["total"], state["edge_bytes"]
        self.topology = Topology(*state["topology"]) if state["topology"] else None
        for i, fields in state["nodes"].items():
            owed = deque((Mix.decode(mix), gamma) for mix, gamma in fields["owed"])
            self.nodes[i] = Node(**{**fields, "owed": owed})

    @property
    def there(self) -> tuple[int, ...]:
        """Ids of the nodes in the graph."""
        return self.topology.nodes if self.topology else ()

    def mean(self) -> FloatVector:
        """Return the mean of the public copies."""
        mean: FloatVector = (self.total / max(len(self.there), 1)).astype(self._x0.dtype)
        return mean

    def rewire(self, topology: Topology) -> None:
        """Change the graph; nodes that are not known yet join."""
        before, mean = self.topology, self.mean()
        for i in topology.nodes:
            if i not in self.nodes:
                public = self._x0 if before is None else mean
                self.nodes[i] = Node(np.zeros_like(mean) if self._own_start else public.copy())
        self.topology = topology
        self.total[:] = 0
        for i, row in topology.weights.items():
            self.total += self.nodes[i].public
            self.nodes[i].changed |= before is not None and row != before.weights.get(i)
        for i in topology.nodes:
            if self.nodes[i].count < 0:
                self.begin(i, alike=before is None)

    def begin(self, i: int, *, alike: bool = False) -> None:
        """Let a node begin, or begin anew at its public copy if it lost its memory.

        Parameters
        ----------
        alike : bool
            All public copies are equal, so that a node knows its neighbours' sum from its own.
        """
        node = self.nodes[i]
        node.owed.clear()
        node.count += 1
        node.own = self._topology.own(i)
        # Where nothing is public, a node can begin at its own model only; the sum comes with the
        # next synchronisation, unless it is zero.
        own = self._own_start and not node.public.any()
        node.changed = own and not alike
        vectors = [] if own else [node.public] if alike else [node.public, self._around(i)]
        node.start = [_IDENTITY.compress(vector).data for vector in vectors]
        if node.start and self.buffers:
            node.start.append(self.buffers)
        node.mark = Owed(node.count, [], node.start, node.own).first_mark

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

    def receive(self, i: int, packet: Opened, scale: float) -> None:
        """Add a packet to its sender's public copy; raises `PacketError` and changes nothing."""
        add_to(packet, self.nodes[i].public, scale)
        if i in self._topology.weights:
            add_to(packet, self.total, scale)
            self._news[i] = scale, bytes(packet.packet.data)

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
            mix = self._mix(i, row)
            node.owed.append((mix, gamma))
            node.mark = mix.mark(gamma, node.mark)
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
    (41, 8024)
    """
    count = int(np.count_nonzero(vector))
    dense = _IDENTITY.compress(vector)
    if not 0 < count < vector.size:
        return dense.data
    sparse = TopK(k=count).compress(vector)
    return min(sparse, dense, key=lambda packet: packet.nbytes).data
