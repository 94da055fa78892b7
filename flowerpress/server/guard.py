"""Absurd updates: what is too large to be believed, and refused.

The rule: an update is refused if its norm (l2, of the decoded packet times its scale) is more than
``max_scale`` times the *reference*: the median, over the clients heard so far, of the first norm
accepted of each (of the smallest that it sent, if none was). Of two norms in the middle the smaller
counts; norms of zero are left out. The reference stands still within a round.

- Fewer than half of the clients cannot move the median above the others' norms. That holds from the
  first round on, where a round's own answers are looked at before they are taken.
- What comes later does not move it. A client that sends 900 times what is usual throws the model
  off, and so makes the honest clients' updates larger; if these counted, it could send 900 times as
  much again. First norms are of the model that all began with, or of when a client came.
- A run whose updates truly grow beyond ``max_scale`` is not stuck: where more than half of the
  clients heard sent as much with their last answer, refused or not, that is the reference. It costs
  such a run a round, or as many as it takes to ask more than half of the clients.
- First norms, not last ones: EF21, MARINA and gossip send gradients or models first, and then
  differences, which shrink. What was right once is not absurd later.
- Error feedback and sketches send what was owed, which grows at first: by no more than one update
  a round. So with these the reference may grow too, as the median of the largest norms accepted of
  each client does, to as many times the first as rounds have passed, and to 100 times at most.

Three clients heard make a median that none of them can set alone. Of two, the smaller norm counts;
one that was larger from the start is measured by itself after it has been heard three times, by
the smallest of these. A client that is heard alone while others are known, as in cohorts of one, is
measured by the model's own norm, until another is heard or it was heard three times; where the
model is zero, it waits. An only client is measured by itself, and so, after one refusal, by
anything it sends. The clients' weights play no part.

What is measured: an update; the largest gradient that the worker says went into it, since
algorithms that normalise (Birder, Efficient-Adam) or average (momentum) hide an absurd one in
updates of usual size, which an honest client can say of itself; exact values asked for in a second
exchange; models collected whole; buffers (batch-norm statistics). Each has references of its own.
Sketches are measured by their cells. Of buffers the real and complex numbers count that the
server's model has otherwise: a mask with -3e38 that nobody changes is none of them.

Apart from that, numbers whose weighted norm cannot be squared in the model's dtype (1.8e19 in
float32) count as infinite, as they are to Adam's second moment: they are refused whatever came
before, and a run in which all clients send such has diverged.

What this does not prevent: a hostile client may send a thousand times what is usual, in every
round, in any direction. That is enough to spoil a model. The rule keeps a run from being ended or
overwritten by one message; it is no robust aggregation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median_low
from typing import Any, Protocol

import numpy as np

from flowerpress.compressors import Opened, Packet, PacketError, norm
from flowerpress.compressors.wire.packet import HEADER_BYTES, MAX_DIM
from flowerpress.protocol import Reply
from flowerpress.server.ask import Ask
from flowerpress.server.client import Client

UPDATES, EXACT, MODELS, BUFFERS, GRADIENTS = range(5)  # what has references of its own
_WHAT = ("update", "second update", "model", "buffers", "gradient")
_KINDS = {"update": UPDATES, "sketch": UPDATES, "values": EXACT, "model": MODELS}
NEEDED = 3  # clients whose median none of them can set alone
MOST_OWED = 100  # times the first norms that the reference may grow where updates are owed
Sizes = dict[int, float]


class OversizedError(PacketError):
    """An update is too large to be believed."""


class UnknownScaleError(PacketError):
    """An update came alone, before anything is known of what is usual."""


class Heard(Protocol):
    """Who keeps the norms that clients sent."""

    @property
    def clients(self) -> Mapping[int, Client]:
        """The clients known, by id."""


def parsed(reply: Reply) -> list[Packet]:
    """Return the packets of an answer, checked as frames, whatever vectors they are of."""
    return list(map(Packet.parse, reply.packets))


class Guard:
    """Compares norms with what is usual.

    Parameters
    ----------
    population : Heard
        Whose clients keep the norms that they sent: `Client.first`, `Client.last`.
    max_scale : float
        How many times the reference a norm may be; 0: nothing is measured, all is believed.
    owing : bool
        Whether updates may hold what was owed for many rounds.
    buffers_norm : callable
        Returns the norm of an answer's buffers, of their bytes.
    model_norm : callable
        Returns the norm of the server's model.
    """

    def __init__(
        self,
        population: Heard,
        max_scale: float,
        *,
        owing: bool = False,
        buffers_norm: Callable[[bytes], float] = norm,
        model_norm: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._population, self.max_scale = population, max_scale
        self._owing = owing
        self._kind, self._scaled = UPDATES, True  # of the question that is open
        self._buffers_norm, self._model_norm = buffers_norm, model_norm
        self._references = [0.0] * len(_WHAT)
        self._glances = False  # whether the answers to it are looked at before they are taken
        self._norms: dict[tuple[int, bytes], float] = {}  # of these
        self._fresh: dict[int, Sizes] = {}  # of these, by client, while they are not taken yet
        self._alone = False  # whether one client was heard of more

    def sizes(self, reply: Reply, packets: Sequence[Opened | Packet] | None = None) -> Sizes:
        """Return the norms of an update and of its buffers; raises `PacketError` if damaged.

        `packets` are those of the reply, where they were checked, or opened, already: then what a
        glance at it has measured is not measured again.
        """
        if not self.max_scale:
            return {}
        found = {}
        if reply.packets or reply.status == "silent":
            if packets and not self._glances:
                size = _norm_of(packets)
            else:
                size = self._norm(reply, packets)
            found[self._kind] = reply.scale * size if self._scaled else size
        if reply.buffers:
            found[BUFFERS] = self._buffers_norm(reply.buffers)
        if reply.gradient:
            found[GRADIENTS] = reply.gradient
        return found

    def _norm(self, reply: Reply, packets: Sequence[Opened | Packet] | None) -> float:
        if packets is None:
            return math.hypot(*map(norm, reply.packets))
        # A client's answer to a question is known by its frames' heads, with checksums that hold.
        frames = [each.packet if isinstance(each, Opened) else each for each in packets]
        heads = [bytes(frame.data[:HEADER_BYTES]) for frame in frames]
        key = reply.client, b"".join(heads)
        if key not in self._norms:
            self._norms[key] = _norm_of(packets)
        return self._norms[key]

    def begin(
        self,
        ask: Ask,
        glances: Iterable[Reply],
        server_round: int = 1,
        checked: Callable[[Reply], Sequence[Packet]] = parsed,
    ) -> None:
        """Settle the references for the answers to a question, before they are taken.

        `glances` are all its answers; they are looked at only where too few clients were heard.
        `checked` returns the packets of one of them, checked as frames.
        """
        self._norms.clear()
        self._fresh = {}
        if not self.max_scale:
            return
        kind = self._kind = _KINDS[ask.what]
        self._scaled = ask.scaled
        clients = self._population.clients
        self._glances = self._heard(kind) < min(NEEDED, len(clients))
        fresh = self._measured(glances, checked) if self._glances else {}
        self._fresh = dict(fresh)
        for each in (kind, BUFFERS, GRADIENTS):  # of which answers have norms
            self._references[each] = self._reference(each, fresh, server_round)
        heard = 0
        for client in clients.values():
            heard += client.last[kind] >= 0 or kind in fresh.get(client.id, {})
        self._alone = heard == 1 < len(clients)

    def _heard(self, kind: int) -> int:
        """Return how many clients have sent a norm above zero."""
        heard = 0
        for client in self._population.clients.values():
            heard += bool(client.first[kind])
        return heard

    def _measured(
        self, glances: Iterable[Reply], checked: Callable[[Reply], Sequence[Packet]]
    ) -> dict[int, Sizes]:
        found = {}
        for reply in glances:
            try:
                found[reply.client] = self.sizes(reply, checked(reply))
            except PacketError:  # counted when it is refused
                continue
            finally:
                del reply  # before the next one is opened
        return found

    def _reference(self, kind: int, fresh: dict[int, Sizes], server_round: int) -> float:
        usual, largest, last = [], [], []
        for client in self._population.clients.values():
            size = client.usual[kind]
            if not size and (client.first[kind] or fresh):
                size = _smallest(client, kind, fresh)
            if size > 0:
                usual.append(size)
            if client.largest[kind] > 0:
                largest.append(client.largest[kind])
            if client.last[kind] >= 0:
                last.append(client.last[kind])
        if not usual:
            return 0.0
        reference = median_low(usual)
        if self._owing and kind in (UPDATES, EXACT):
            grown = median_low(largest) if largest else 0.0
            reference = max(reference, min(grown, reference * min(server_round, MOST_OWED)))
        now = median_low(last) if last else 0.0
        return now if now > self.max_scale * reference else reference

    def check(self, client: Client, sizes: Sizes, mass: float, dtype: np.dtype[Any]) -> None:
        """Remember an answer's sizes, and raise if one is too large, saying how much.

        Raises
        ------
        OversizedError
            It is too large to be believed.
        UnknownScaleError
            Nothing is known yet of what is usual.
        """
        self._fresh.pop(client.id, None)
        client.hear(sizes)
        largest = math.sqrt(float(np.finfo(dtype).max))
        for kind, size in sizes.items():
            if kind != GRADIENTS and not mass * size < largest:
                client.failing = (
                    f"{_WHAT[kind]} of norm {size:.3g}, too large for {dtype}: lower lr"
                )
                raise OversizedError(client.failing)
        for kind, size in sizes.items():
            reference = self._references[kind]
            if self._alone or not reference or size > self.max_scale * reference:
                self._compare(client, kind, size)

    def refused(self, client: Client) -> None:
        """Remember what a glance saw of an answer that was refused before it was measured.

        It has moved the reference: so it counts as what its client sent, as if it had gone in.
        """
        client.hear(self._fresh.pop(client.id, {}))

    def _compare(self, client: Client, kind: int, size: float) -> None:
        repeated = len(client.first[kind]) == NEEDED
        alone = self._alone and size > 0 and not repeated
        reference = self._references[kind]
        if alone:
            reference = self._model_norm()
            if not reference:
                raise UnknownScaleError(
                    f"{_WHAT[kind]} of norm {size:.3g} waits for others to be compared with"
                )
        if repeated and self._heard(kind) < NEEDED:
            reference = max(reference, min(client.first[kind]))
        if reference and size > self.max_scale * reference:
            raise OversizedError(
                f"{_WHAT[kind]} of norm {size:.3g}, {size / reference:.3g} times the "
                f"{'model, ' if alone else 'median '}{reference:.3g}; "
                f"max_scale is {self.max_scale:g}"
            )


def _norm_of(packets: Sequence[Opened | Packet]) -> float:
    """Return the norm of all that some packets hold; they may be as long as any model.

    Of one that is not open yet the places stay unread. Whoever sends wrong ones, to be measured and
    then refused, could have sent right ones of the same norm, and is remembered by it as well.
    """
    total = 0.0
    for packet in packets:
        total = math.hypot(total, norm(packet, max_dim=MAX_DIM, glance=True))
    return total


def _smallest(client: Client, kind: int, fresh: dict[int, Sizes]) -> float:
    """Return the smallest norm above zero that a client has sent; 0: none."""
    now = fresh.get(client.id, {}).get(kind, 0.0)
    sent = [*client.first[kind], now] if now > 0 else client.first[kind]
    return min(sent, default=0.0)
