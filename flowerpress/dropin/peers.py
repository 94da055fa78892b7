"""The server's end of a pressed app: what it knows of each node, and what it makes of answers.

A *channel* is one model in one kind of messages: ``train`` and ``evaluate``, or ``train.NAME`` and
``evaluate.NAME``. Of each, nodes have memory of their own.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, Metadata, RecordDict

from flowerpress.compressors import Opened, PacketError, add_to, decompress
from flowerpress.compressors.feedback import Acceptance
from flowerpress.dropin.arrays import FORM, KEY, FloatVector, Place, Plan, form, paired, refilled
from flowerpress.dropin.replica import Broadcast
from flowerpress.dropin.settings import Settings
from flowerpress.protocol import ProtocolError, Reply
from flowerpress.protocol.blob import from_array
from flowerpress.protocol.layout import FLOATS
from flowerpress.server.ask import Ask
from flowerpress.server.client import Client
from flowerpress.server.guard import Guard, OversizedError, UnknownScaleError
from flowerpress.server.packets import check_packets

_MOST_PAST = 64


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
        The push that it answered last.
    """

    speaks: bool = False
    h: FloatVector | None = None
    heard: int = 0


class Source:
    """What a strategy sent, to some nodes alike, as it was then.

    Arrays do not change, unlike the records that hold them: these may be the strategy's to reuse.
    """

    def __init__(self, plan: Plan, content: RecordDict, server_round: int) -> None:
        self.plan, self.round = plan, server_round
        self.shift: FloatVector | None = None  # x less the replica on which clients work
        self._arrays = plan.arrays(content)

    def vector(self) -> FloatVector:
        """Return x."""
        return self.plan.joined(self._arrays)

    def cast(self) -> dict[Place, Array]:
        """Return the arrays in the dtypes in which they go."""
        found = {}
        for slot, array in zip(self.plan.taken, self._arrays, strict=True):
            same = form(array)[0] == slot.dtype
            found[slot.place] = array if same else Array(array.numpy().astype(slot.dtype))
        return found

    def moved(self, delta: FloatVector) -> dict[Place, Any]:
        """Return x + delta, each array in the dtype in which it goes."""
        parts, found = self.plan.scatter(delta), {}
        for slot, array in zip(self.plan.taken, self._arrays, strict=True):
            x = array.numpy().astype(slot.dtype, copy=False)
            found[slot.place] = np.asarray(x + parts[slot.place])
        return found


@dataclass
class Question:
    """A message that was sent, and is not answered yet."""

    version: int
    push: int
    source: Source
    metadata: Metadata
    training: bool


@dataclass
class Channel:
    """One model in one kind of messages, see this module."""

    settings: Settings
    clients: dict[int, Peer] = field(default_factory=dict)
    open: dict[int, dict[int, Question]] = field(default_factory=dict)  # by node and version
    broadcast: Broadcast | None = None
    norm: float = 0.0  # of the model
    # Closed, for answers of clients without the mod, which come late and know of no question.
    past: deque[Question] = field(default_factory=lambda: deque(maxlen=_MOST_PAST))

    def __post_init__(self) -> None:
        owing = self.settings.memory != "none"
        most = self.settings.max_scale
        self.guard = Guard(self, most, owing=owing, model_norm=lambda: self.norm)

    def peer(self, node: int) -> Peer:
        """Return what is known of a node."""
        if node not in self.clients:
            self.clients[node] = Peer(node, node, 0)
        return self.clients[node]

    def ask(self, node: int, question: Question) -> None:
        """Open a question, and close those of its kind before it."""
        others = self.open.setdefault(node, {}).values()
        kept = {each.version: each for each in others if each.training != question.training}
        self.past += [each for each in others if each.source.shift is not None]
        self.open[node] = {**kept, question.version: question}

    def forget(self, push: int) -> None:
        """Drop what is kept of nodes that were not heard for long, and questions to them.

        Not which of its updates was applied: a node that comes back would owe it again.
        """
        least = push - self.settings.forget_after
        for node in [
            n for n, each in self.open.items() if max(q.push for q in each.values()) < least
        ]:
            del self.open[node]
        for peer in self.clients.values():
            if peer.h is not None and peer.heard < least:
                peer.h, peer.receiver.applied = None, 0  # it starts over

    def question(self, node: int, version: int) -> Question | None:
        """Return the open question of a version."""
        return self.open.get(node, {}).get(version)

    def answered(self, node: int, message_id: str) -> Question | None:
        """Return the question that was sent to a node in a message, open or closed."""
        for question in (*self.open.get(node, {}).values(), *self.past):
            metadata = question.metadata
            if metadata.message_id == message_id and metadata.dst_node_id == node:
                return question
        return None

    def close(self, node: int, version: int) -> None:
        """Close a question: it has its answer."""
        questions = self.open.get(node, {})
        questions.pop(version, None)
        if not questions:
            self.open.pop(node, None)

    # --- answers --------------------------------------------------------------------------------

    def begin(self, replies: Iterable[tuple[int, Reply]], push: int) -> None:
        """Look at answers that came together, before one of them is taken."""
        glances = [_named(reply, node) for node, reply in replies if reply.status == "update"]
        self.guard.begin(Ask([]), glances, push)

    def take(
        self, node: int, reply: Reply, content: RecordDict, *, alone: bool = False
    ) -> RecordDict:
        """Return an answer's content as the app's client made it.

        `alone` lets one in that nothing is known yet to compare with.

        Raises
        ------
        RefusedError
            It is none to an open question, is damaged, or is too large to be believed.
        UnknownScaleError
            Nothing is known yet to compare it with; its question stays open.
        """
        question = self.question(node, reply.version)
        if question is None:
            raise RefusedError("an answer to no open question: a duplicate, or too late")
        peer = self.clients[node]
        others = RecordDict({name: record for name, record in content.items() if name != KEY})
        try:
            whole, delta = self._answer(question, peer, reply, content, others, alone)
        except UnknownScaleError:
            raise
        except (PacketError, ProtocolError) as error:
            self.close(node, reply.version)
            if question.training:
                peer.receiver.refuse(absurd=isinstance(error, OversizedError))
            raise RefusedError(str(error)) from error
        self.close(node, reply.version)
        peer.held, peer.speaks, peer.heard = reply.held, True, question.push
        if delta is not None:
            peer.receiver.apply(reply.version)
            peer.h = delta if self._keeps else None
        elif reply.status not in ("update", "silent"):
            raise RefusedError(f"{reply.status}: {reply.reason}")
        return whole

    @property
    def _keeps(self) -> bool:
        return self.settings.memory.startswith("ef21")

    def _answer(
        self,
        question: Question,
        peer: Peer,
        reply: Reply,
        content: RecordDict,
        others: RecordDict,
        alone: bool,
    ) -> tuple[RecordDict, FloatVector | None]:
        """Return an answer's content, and its update where it has one."""
        if reply.status != "update":  # nothing of it is pressed
            shift = question.training and reply.status == "silent"
            return (self.shifted(question, others) if shift else others), None
        if not question.training:
            raise ProtocolError("an update where none was asked for")
        delta, sizes = self._delta(peer, reply, question.source.plan, alone)
        other = _other_form(content, question.source.plan)
        whole = self._whole(question.source, delta, others, other)
        peer.accept(sizes)
        return whole, delta

    def _delta(
        self, peer: Peer, reply: Reply, plan: Plan, alone: bool
    ) -> tuple[FloatVector, dict[int, float]]:
        """Return the update of an answer: what it decodes to, or with EF21 the sum of all."""
        shared = self._keeps and reply.base > 0  # else it starts over, alone
        verdict = peer.receiver.judge(reply.base, reply.version, shared=shared)
        if verdict is not Acceptance.APPLY:
            raise ProtocolError(verdict.value)
        layout = plan.layout
        (packet,) = check_packets(reply, layout, layout.dim)
        opened = Opened(packet)
        sizes = self.guard.sizes(reply, [opened])
        try:
            self.guard.check(peer, sizes, 1.0, layout.dtype)
        except UnknownScaleError:
            if not alone:
                raise
        if not self._keeps:
            delta = decompress(opened, max_dim=layout.dim)
            scaled = delta if reply.scale == 1.0 else delta * layout.dtype.type(reply.scale)
            return scaled, sizes
        known = peer.h if reply.base else None
        h = np.zeros(layout.dim, layout.dtype) if known is None else known.copy()
        add_to(opened, h, reply.scale)
        return h, sizes

    def _whole(
        self, source: Source, delta: FloatVector, content: RecordDict, other: Mapping[str, Any]
    ) -> RecordDict:
        """Return a content with y = x + delta in its records, in the dtypes that the client had."""
        plan = source.plan
        records = paired(plan.orders, content)
        if missing := {slot.record for slot in plan.taken} - set(records):
            raise ProtocolError(f"the answer has no record {sorted(missing)[0]!r}")
        orders = {**plan.orders, **other.get("orders", {})}
        dtypes: dict[str, str] = other.get("dtypes", {})
        names = {slot.place: slot.name for slot in plan.taken}
        values = {}
        for place, value in source.moved(delta).items():
            dtype = dtypes.get(names[place])
            values[records[place[0]], place[1]] = np.asarray(value, dtype) if dtype else value
        own = {records[name]: keys for name, keys in orders.items() if name in records}
        return refilled(content, values, own)

    def shifted(self, question: Question, content: RecordDict) -> RecordDict:
        """Return a dense answer as if it had started from x, and not from the replica."""
        shift, plan = question.source.shift, question.source.plan
        if shift is None:
            return content
        records = paired(plan.orders, content)
        values: dict[Place, Any] = {}
        for (record, key), part in plan.scatter(shift).items():
            name = records.get(record, "")
            arrays = content.array_records.get(name)
            if arrays is None or key not in arrays:
                continue
            try:
                value = arrays[key].numpy()
            except Exception as error:
                raise ProtocolError(f"array {key!r} cannot be read: {error}") from None
            if value.shape == part.shape and value.dtype.name in FLOATS:
                values[name, key] = np.asarray(value + part, value.dtype)
        orders = {name: list(map(str, content.array_records[name])) for name, _ in values}
        return refilled(content, values, orders)


def model_norm(x: FloatVector) -> float:
    """Return the norm of a model; 0 where it has none."""
    size = float(np.linalg.norm(x.astype(np.float64)))
    return size if math.isfinite(size) else 0.0


def _named(reply: Reply, node: int) -> Reply:
    """Return a reply under its node's number: clients do not say who they are."""
    return Reply(**{**vars(reply), "client": node})


def _other_form(content: RecordDict, plan: Plan) -> Mapping[str, Any]:
    """Return what a reply says of arrays that are not as they were sent, checked."""
    array = content.array_records[KEY].get(FORM)
    if array is None:
        return {}
    try:
        found = json.loads(bytes(from_array(array)))
        dtypes, orders = dict(found.get("dtypes", {})), dict(found.get("orders", {}))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"what an answer says of its arrays is no JSON: {error}") from None
    names = {slot.name for slot in plan.taken}
    if not (set(dtypes) <= names and all(each in FLOATS for each in dtypes.values())):
        raise ProtocolError("an answer has dtypes of arrays that were not asked for")
    records = paired(plan.orders, content)
    for name, keys in orders.items():
        pressed = {slot.key for slot in plan.taken if slot.record == name}
        texts = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
        if name not in records or not texts or len(set(keys)) != len(keys):
            raise ProtocolError("an answer orders arrays that were not asked for")
        there = {str(key) for key in content.array_records[records[name]]}
        if not pressed <= set(keys) <= pressed | there:
            raise ProtocolError("an answer orders other arrays than it has")
    return {"dtypes": dtypes, "orders": orders}
