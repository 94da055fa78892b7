"""The client's half: a mod for any Flower ClientApp.

    1. x: the arrays as they came, or this client's replica of the model and the deltas it missed
    2. settle what became of the last update, by the commit rule (`compressors.feedback`)
    3. the app trains, and returns y in the arrays of its reply
    4. send C(y - x), with the memory that the server asks for; the rest of the reply as it is

First in the list of mods, everything behind it sees ordinary arrays. A server without the grid
sends no instruction, and the mod does nothing.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import numpy as np
from flwr.app import Context, Error, Message, RecordDict

from flowerpress.compressors import Draw, PacketError, make_compressor
from flowerpress.compressors.feedback import EF14Sender, EF21Sender, PlainSender, Sender, Settlement
from flowerpress.dropin.arrays import (
    CORRELATED,
    FORM,
    KEY,
    FloatVector,
    Plan,
    form,
    paired,
    refilled,
)
from flowerpress.dropin.bounded import bounded
from flowerpress.protocol import Instruction, ProtocolError, ReplicaError, Reply
from flowerpress.protocol.blob import to_array
from flowerpress.protocol.layout import FLOATS
from flowerpress.worker.memory import (
    begin_session,
    keep_moments,
    keep_sender,
    restore_sender,
    settle_moments,
)
from flowerpress.worker.replicas import follow_model
from flowerpress.worker.stores import StateStore, WorkerState, open_store

log = logging.getLogger("flowerpress")
Next = Callable[[Message, Context], Message]
SENDERS: Mapping[str, type[Sender]] = {
    "none": PlainSender,
    "ef14": EF14Sender,
    "ef21": EF21Sender,
    "ef21-sgdm": EF21Sender,
}
_PLAN = "plan"  # names a vector of the state: the text of the plan
_FAILED = 2  # Flower's code of a ClientApp that raised
_STATES: dict[int, dict[Any, WorkerState]] = {}  # by run, where a process lives on
_MOST_RUNS = 16
_WARNED: set[tuple[int, str]] = set()
_LOCK = threading.Lock()


def press(message: Message, context: Context, call_next: Next) -> Message:
    """Press what a ClientApp sends: ``ClientApp(mods=[press, ...])``, first in the list.

    Its server says how: see `flowerpress.dropin.pressed`. From the node config it reads
    ``compressor`` (this client's own choice), ``client-id`` (else ``partition-id``, else the node's
    number), ``state-store`` and ``state-dir``, as `flowerpress.clients.client_app` does, and
    ``flowerpress="off"``, with which this client answers as if it had no mod.
    """
    if not message.has_content() or KEY not in message.content:
        return call_next(message, context)
    record = message.content.pop(KEY)
    if context.node_config.get("flowerpress") == "off":
        return call_next(message, context)
    try:
        order = Instruction.decode(RecordDict({"arrays": record}))
    except ProtocolError as error:
        return _error(message, str(error))
    return _Question(message, context, order).answer(call_next)


class _Question:
    """One instruction to one client, and what answering it needs."""

    def __init__(self, message: Message, context: Context, order: Instruction) -> None:
        self.message, self.context, self.order = message, context, order
        purpose, _, part = message.metadata.message_type.partition(".")
        self.training = purpose == "train"
        # Each model has a memory of its own: what is owed of one is nothing to another.
        kind = "-".join(("press", *filter(None, (re.sub(r"\W", "-", part), order.layout))))
        table = _memory_of(context.run_id)
        self.store: StateStore = open_store(_own_config(context), _client(context), table, kind)

    def answer(self, call_next: Next) -> Message:
        """Return the reply of the app, pressed."""
        self.state = self.store.load()
        begin_session(self.state, self.order.session)
        try:
            self._receive()
        except ReplicaError as error:
            return self._status("snapshot", str(error))
        except (PacketError, ProtocolError) as error:
            self.store.save(self.state)
            return _error(self.message, str(error))
        if not self.training:
            self.store.save(self.state)
            return self._beside(call_next(self.message, self.context))
        sender = self._settle()
        if sender is None:
            return _error(self.message, f"question {self.order.version} was answered before")
        self.store.save(self.state)  # whatever the app does, nothing is settled twice
        reply = call_next(self.message, self.context)
        if reply.has_error() or not reply.has_content():
            return reply
        records = paired(self.plan.orders, reply.content)
        if not self._fits(reply.content, records):
            return self._beside(reply)
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # told by the compressor
                delta = self.plan.gather(reply.content, records) - self.x
            packet = self._press(sender, delta)
        except ValueError as error:
            return _error(self.message, str(error))
        own = Reply(
            0,
            self.order.version,
            base=sender.settled,
            held=self._held,
            scale=sender.scale,
            packets=[packet],
        )
        self.store.save(self.state)
        content = self.plan.peeled(reply.content, records)
        content[KEY] = own.encode().array_records["arrays"]
        if other := self._other_form(reply.content, records):
            content.array_records[KEY][FORM] = to_array(json.dumps(other).encode())
        return Message(content, reply_to=self.message)

    # --- 1: the model ---------------------------------------------------------------------------

    def _receive(self) -> None:
        """Find what is pressed and where it starts from; put whole arrays in the message."""
        order, state = self.order, self.state
        content, hyper = self.message.content, order.hyper
        if hyper["downlink"] and order.model.base >= 0:  # deltas
            self.plan = self._known_plan()
            self.x = follow_model(order, self.plan.layout, state)
            values = self.plan.scatter(self.x)
            self.message.content = refilled(content, values, self.plan.orders)
            return
        self.plan = Plan.of(content, _texts(hyper["dense"]), _texts(hyper["skip"]))
        if self.plan.layout.digest != order.layout:
            raise ProtocolError("what is pressed of this message is not what its server presses")
        self.x = self.plan.gather(content)
        if hyper["downlink"]:
            state.vectors["replica.x"] = self.x.copy()
            state.vectors[_PLAN] = np.frombuffer(self.plan.to_json().encode(), np.uint8)
            state.numbers |= {"held": order.model.version, "mark": order.model.mark}

    def _known_plan(self) -> Plan:
        kept = self.state.vectors.get(_PLAN)
        plan = Plan.from_json(kept.tobytes().decode()) if kept is not None else None
        if plan is None or plan.layout.digest != self.order.layout:
            self.state.numbers["held"] = -1
            raise ReplicaError("this client holds no model of this form")
        return plan

    @property
    def _held(self) -> int:
        return int(self.state.numbers.get("held", -1))

    # --- 2: what became of the last update ------------------------------------------------------

    def _settle(self) -> Sender | None:
        """Return the sender, its last packet settled; None if the question was answered before."""
        order, state = self.order, self.state
        kind = SENDERS.get(str(order.hyper["memory"]), PlainSender)
        sender = restore_sender(kind, state, {})
        refused = 0 < sender.pending == order.refused
        applied = order.applied
        if order.hyper["fresh"] and sender.pending and not sender.shared:
            # The server never asked this node: it has another number since its last answer, which
            # then was most likely taken. Owed once too little is better than sent twice.
            applied = sender.pending
        outcome = sender.settle(applied, order.version, order.absurd)
        if outcome in (Settlement.STALE, Settlement.REPEAT) and sender.remembers:
            return None
        if outcome is Settlement.MISMATCH:  # the server keeps this client's own h: it starts over
            sender = kind(heard=order.version)
            state.vectors.pop("v", None)
        settle_moments(state, refused=refused)
        keep_sender(sender, state)
        return sender

    # --- 4: the update --------------------------------------------------------------------------

    def _press(self, sender: Sender, delta: FloatVector) -> bytes:
        """Return the packet of an update, remembered."""
        order, hyper, state = self.order, self.order.hyper, self.state
        moments = {}
        if hyper["memory"] == "ef21-sgdm":
            old, eta = state.vectors.get("v", delta), delta.dtype.type(hyper["momentum"])
            delta = moments["v"] = (1 - eta) * old + eta * delta
        spec = str(hyper["compressor"])
        own = self.context.node_config.get("compressor")
        if own and hyper["own"]:
            spec = str(own)
            if CORRELATED.search(spec) and not hyper["plain_mean"]:
                raise ValueError(f"this node's compressor {spec!r} is for a plain mean of all")
        compressor = make_compressor(spec).bind_shapes(self.plan.layout.shapes)
        if most := float(hyper["clip_sent"]):
            compressor = bounded(compressor, most)
        draw = Draw(order.seed, order.round, order.rank, order.cohort, 0)
        packet = sender.send(delta, compressor, order.version, draw)
        keep_moments(state, moments, {})
        keep_sender(sender, state)
        return packet.data

    def _fits(self, content: RecordDict, records: Mapping[str, str]) -> bool:
        """Whether the reply has all that is pressed, in the same shapes."""
        for slot in self.plan.taken:
            arrays = content.array_records.get(records.get(slot.record, ""))
            if arrays is None or slot.key not in arrays:
                return self._other(f"{slot.key!r} is not in the reply")
            dtype, shape = form(arrays[slot.key])
            if dtype not in FLOATS or shape != slot.shape:
                return self._other(f"{slot.key!r} came as {slot.shape}, goes as {dtype} {shape}")
        return bool(self.plan.taken)

    def _other(self, what: str) -> bool:
        key = (self.context.run_id, what)
        with _LOCK:
            fresh = key not in _WARNED
            _WARNED.add(key)
        if fresh:
            log.warning("%s: replies that are not of the arrays received go as they are", what)
        return False

    def _other_form(self, content: RecordDict, records: Mapping[str, str]) -> dict[str, Any]:
        """Return what of a reply's arrays is not as in the question: dtypes, and their order."""
        dtypes, orders = {}, {}
        for slot in self.plan.taken:
            dtype, _ = form(content.array_records[records[slot.record]][slot.key])
            if dtype != slot.dtype:
                dtypes[slot.name] = dtype
        for name, keys in self.plan.orders.items():
            there = list(map(str, content.array_records[records[name]])) if name in records else []
            if there and there != keys:
                orders[name] = there
        return {**({"dtypes": dtypes} if dtypes else {}), **({"orders": orders} if orders else {})}

    def _beside(self, reply: Message) -> Message:
        """Return a reply as it is, with the version of the model that this client holds."""
        if reply.has_content():
            own = Reply(0, self.order.version, status="silent", held=self._held)
            reply.content[KEY] = own.encode().array_records["arrays"]
        return reply

    def _status(self, status: str, reason: str) -> Message:
        self.store.save(self.state)
        own = Reply(0, self.order.version, status=status, reason=reason[:300], held=self._held)
        content = RecordDict({KEY: own.encode().array_records["arrays"]})
        return Message(content, reply_to=self.message)


def _memory_of(run: int) -> dict[Any, WorkerState]:
    """Return the memory of a run's clients in this process; that of the oldest run may go."""
    with _LOCK:
        found = _STATES.pop(run, {})
        _STATES[run] = found
        while len(_STATES) > _MOST_RUNS:
            del _STATES[next(iter(_STATES))]
    return found


def _client(context: Context) -> int:
    """Return this client's number: of a name that is none, one that no partition has."""
    config = context.node_config
    own = config.get("client-id", config.get("partition-id", context.node_id))
    try:
        return int(own)
    except ValueError:
        return 2**32 + crc32(str(own).encode())


def _own_config(context: Context) -> Context:
    """Return the context with those keys of the run config that are meant for flowerpress."""
    own = {k: v for k, v in context.run_config.items() if k.startswith("flowerpress.")}
    return Context(context.run_id, context.node_id, context.node_config, context.state, own)


def _texts(value: Any) -> list[str]:
    """Read a list of texts of an instruction; raises `ProtocolError` where it is none."""
    try:
        found = json.loads(str(value))
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ProtocolError(f"an instruction has {value!r:.80}, no list of names")
    return found


def _error(message: Message, why: str) -> Message:
    log.warning("%s", why)
    return Message(Error(_FAILED, f"flowerpress: {why}"), reply_to=message)
