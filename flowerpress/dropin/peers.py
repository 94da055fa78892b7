"""The server's end of a pressed app: what it knows of each node, and what it makes of answers.

A *channel* is one kind of messages, ``train`` and ``evaluate`` or ``train.NAME`` and
``evaluate.NAME``: of each, nodes have memory of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from flwr.app import Array, Message, RecordDict

from flowerpress.compressors import Opened, PacketError, add_to, decompress
from flowerpress.compressors.feedback import Acceptance
from flowerpress.dropin.arrays import KEY, FloatVector, Place, Plan, form, paired, refilled
from flowerpress.dropin.settings import Settings
from flowerpress.protocol import ProtocolError, Reply
from flowerpress.protocol.layout import FLOATS
from flowerpress.server.ask import Ask
from flowerpress.server.client import Client
from flowerpress.server.guard import Guard, OversizedError
from flowerpress.server.packets import check_packets

FORM = "form"  # in the record of a reply: what of its arrays is not as they were sent
_MOST_FORM = 1 << 20  # bytes


class RefusedError(ValueError):
    """An answer that is not believed, or cannot be read; the text says why."""


@dataclass
class Peer(Client):
    """One node, in one channel; its `id` is the node's.

    Parameters
    ----------
    speaks : bool
        Whether it has answered with a record: only then is it sent deltas.
    h : vector or None
        What EF21 keeps of it: the sum of all its packets.
    heard : int
        The question that it answered last.
    """

    speaks: bool = False
    h: FloatVector | None = None
    heard: int = 0


@dataclass
class Source:
    """What a strategy sent, to some nodes alike."""

    content: RecordDict
    plan: Plan
    round: int
    shift: FloatVector | None = None  # x less the replica on which clients work

    @cached_property
    def x(self) -> FloatVector:
        """The vector of what is pressed."""
        return self.plan.gather(self.content)

    @cached_property
    def arrays(self) -> dict[Place, Array]:
        """What is pressed as arrays, in the dtypes that are kept; the same objects for all."""
        return {place: Array(value) for place, value in self.plan.scatter(self.x).items()}


@dataclass
class Question:
    """A message that was sent, and is not answered yet."""

    version: int
    source: Source
    message: Message
    training: bool


@dataclass
class Channel:
    """One kind of messages, see this module."""

    settings: Settings
    clients: dict[int, Peer] = field(default_factory=dict)
    open: dict[int, Question] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    skip: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        owing = self.settings.memory != "none"
        self.guard = Guard(self, self.settings.max_scale, owing=owing)

    # --- what is pressed ------------------------------------------------------------------------

    def plan(self, content: RecordDict) -> Plan:
        """Return what is pressed of a message.

        What once was no float is never pressed: FedAvg makes floats of whole numbers, and what is
        pressed would change from round to round. Likewise a name keeps the dtype that it had first:
        FedAdam makes float64 of all.
        """
        for name, record in content.array_records.items():
            for key, array in record.items():
                dtype, _ = form(array)
                if dtype in FLOATS:
                    self.dtypes.setdefault(f"{name}/{key}", dtype)
                else:
                    self.skip.add(f"{name}/{key}")
        return Plan.of(content, self.settings.dense, self.skip, self.dtypes)

    def peer(self, node: int) -> Peer:
        """Return what is known of a node."""
        if node not in self.clients:
            self.clients[node] = Peer(node, node, 0)
        return self.clients[node]

    def forget_the_silent(self, question: int) -> None:
        """Forget nodes that were not heard for long, and what is kept of them."""
        least = question - self.settings.forget_after
        for node in [n for n, peer in self.clients.items() if peer.heard < least]:
            if node not in self.open:
                del self.clients[node]

    # --- answers --------------------------------------------------------------------------------

    def begin(self, replies: Sequence[tuple[int, Reply]]) -> None:
        """Look at answers that came together, before one of them is taken."""
        peers = [self.clients[node] for node, _ in replies]
        glances = (_named(reply, node) for node, reply in replies if reply.status == "update")
        self.guard.begin(Ask(list(peers)), glances)

    def take(self, node: int, reply: Reply, content: RecordDict) -> RecordDict:
        """Return an answer's content as the app's client made it.

        Raises
        ------
        RefusedError
            It is none to the open question, is damaged, or is too large to be believed.
        """
        question = self.open.get(node)
        if question is None or question.version != reply.version:
            raise RefusedError("an answer to no open question: a duplicate, or too late")
        del self.open[node]
        peer = self.clients[node]
        peer.held, peer.speaks, peer.heard = reply.held, True, reply.version
        others = RecordDict({name: record for name, record in content.items() if name != KEY})
        if reply.status == "silent":  # nothing of it is pressed
            return self.shifted(question, others) if question.training else others
        if reply.status != "update" or not question.training:
            raise RefusedError(f"{reply.status}: {reply.reason}")
        try:
            delta = self._delta(peer, reply, question.source.plan)
            other = _other_form(content, question.source.plan)
            whole = self._whole(question.source, delta, others, other)
        except (PacketError, ProtocolError) as error:
            peer.receiver.refuse(absurd=isinstance(error, OversizedError))
            raise RefusedError(str(error)) from error
        peer.receiver.apply(reply.version)
        if self._keeps:
            peer.h = delta
        return whole

    @property
    def _keeps(self) -> bool:
        return self.settings.memory.startswith("ef21")

    def _delta(self, peer: Peer, reply: Reply, plan: Plan) -> FloatVector:
        """Return the update of an answer: what it decodes to, or with EF21 the sum of all."""
        verdict = peer.receiver.judge(
            reply.base, reply.version, shared=self._keeps and reply.base > 0
        )
        if verdict is not Acceptance.APPLY:
            raise ProtocolError(verdict.value)
        layout = plan.layout
        (packet,) = check_packets(reply, layout, layout.dim)
        opened = Opened(packet)
        sizes = self.guard.sizes(reply, [opened])
        self.guard.check(peer, sizes, 1.0, layout.dtype)
        if not self._keeps:
            delta = decompress(opened, max_dim=layout.dim)
            delta = delta if reply.scale == 1.0 else delta * layout.dtype.type(reply.scale)
        else:
            known = peer.h is not None and reply.base and peer.h.size == layout.dim
            delta = peer.h.copy() if known else np.zeros(layout.dim, layout.dtype)  # type: ignore[union-attr]
            add_to(opened, delta, reply.scale)
        self.guard.accept(peer, sizes)
        return delta

    def _whole(
        self, source: Source, delta: FloatVector, content: RecordDict, other: Mapping[str, Any]
    ) -> RecordDict:
        """Return a content with y = x + delta in its records, in the dtypes that the client had."""
        plan = source.plan
        records = paired(plan.orders, content)
        if missing := {slot.record for slot in plan.taken} - set(records):
            raise ProtocolError(f"the answer has no record {sorted(missing)[0]!r}")
        dtypes: dict[str, str] = other.get("dtypes", {})
        orders: dict[str, list[str]] = {**plan.orders, **other.get("orders", {})}
        values = {}
        names = {slot.place: slot.name for slot in plan.taken}
        for (record, key), value in plan.scatter(source.x + delta).items():
            dtype = dtypes.get(names[record, key])
            values[records[record], key] = value.astype(dtype) if dtype else value
        return refilled(
            content, values, {records[n]: keys for n, keys in orders.items() if n in records}
        )

    def shifted(self, question: Question, content: RecordDict) -> RecordDict:
        """Return a dense answer as if it had started from x, and not from the replica."""
        shift, plan = question.source.shift, question.source.plan
        if shift is None:
            return content
        records = paired(plan.orders, content)
        values, orders = {}, {}
        for (record, key), part in plan.scatter(shift).items():
            name = records.get(record, "")
            arrays = content.array_records.get(name)
            if arrays is None or key not in arrays:
                continue
            value = arrays[key].numpy()
            if value.shape == part.shape and value.dtype.name in FLOATS:
                values[name, key] = (value + part).astype(value.dtype)
                orders[name] = list(map(str, arrays))
        return refilled(content, values, orders)


def _named(reply: Reply, node: int) -> Reply:
    """Return a reply under its node's number: clients do not say who they are."""
    return Reply(**{**vars(reply), "client": node})


def _other_form(content: RecordDict, plan: Plan) -> Mapping[str, Any]:
    """Return what a reply says of arrays that are not as they were sent, checked."""
    array = content.array_records[KEY].get(FORM)
    if array is None:
        return {}
    if array.dtype != "uint8" or len(array.data) > _MOST_FORM:
        raise ProtocolError("what an answer says of its arrays is no text")
    try:
        found = json.loads(array.numpy().tobytes())
        dtypes, orders = dict(found.get("dtypes", {})), dict(found.get("orders", {}))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"what an answer says of its arrays is no JSON: {error}") from None
    names = {slot.name for slot in plan.taken}
    if not (set(dtypes) <= names and set(map(str, dtypes.values())) <= set(FLOATS)):
        raise ProtocolError("an answer has dtypes of arrays that were not asked for")
    for name, keys in orders.items():
        if (
            name not in plan.orders
            or not isinstance(keys, list)
            or len(keys) > 2 * len(plan.slots) + 64
        ):
            raise ProtocolError("an answer orders arrays that were not asked for")
        if not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
            raise ProtocolError("an answer orders arrays that were not asked for")
    return {"dtypes": dtypes, "orders": orders}
