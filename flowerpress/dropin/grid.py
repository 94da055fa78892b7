"""The server's half: a grid around the grid.

    1. a training or evaluation message with floats in its arrays gets a record beside them: the
       number of the question, the version of this node's update applied last, and how to press
    2. with a compressed downlink, the arrays go as the deltas that the node lacks
    3. an answer is judged, decoded and put on x: strategies see y = x + delta in ordinary arrays
    4. what is refused is an error message, as from a client that failed

A client without the mod passes over the record, and answers as ever.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from flowerpress.dropin import saved
from flowerpress.dropin.arrays import KEY, Plan, refilled
from flowerpress.dropin.peers import Channel, Peer, Question, RefusedError, Source
from flowerpress.dropin.replica import Broadcast
from flowerpress.dropin.settings import Settings
from flowerpress.protocol import (
    Instruction,
    Ledger,
    LedgerRow,
    ModelPart,
    ProtocolError,
    Reply,
    content_bytes,
    printable,
    release,
)
from flowerpress.server.tree import Tree

log = logging.getLogger("flowerpress")
_REFUSED = 2  # Flower's code of a ClientApp that raised: strategies count a failure


class PressedGrid(Grid):
    """A grid whose messages are pressed, for any strategy and any loop.

    Parameters
    ----------
    grid : Grid
    settings : Settings

    Attributes
    ----------
    ledger : Ledger
        Every message's bytes.
    refused : int
        Answers that were not believed, or could not be read.
    """

    def __init__(self, grid: Grid, settings: Settings) -> None:
        if isinstance(grid, PressedGrid):
            raise ValueError("this grid is pressed already: once is enough")
        self._grid, self.settings = grid, settings
        self.ledger, self.refused = Ledger(), 0
        self._session = secrets.randbits(52)
        self._question = self._pushes = 0
        self._channels: dict[str, Channel] = {}
        self._broadcasts: dict[tuple[str, str], Broadcast] = {}
        self._file = Path(settings.checkpoint) if settings.checkpoint else None
        if self._file is not None:
            self._restore(saved.find(self._file, settings, resume=settings.resume))

    def _restore(self, tree: Tree) -> None:
        """Go on from what a file held, if it held anything."""
        if tree is None:
            return
        self._session, self._question = tree["session"], tree["question"]
        self._pushes, self.refused = tree["pushes"], tree["refused"]
        self._channels = saved.restored_channels(tree["channels"], self.settings)
        self._broadcasts = saved.restored_broadcasts(tree["broadcasts"], self.settings)
        log.info("%s: going on after question %d", self._file, self._question)

    def _save(self) -> None:
        if self._file is not None:
            tree = {
                "settings": saved.settings_of(self.settings),
                "session": self._session,
                "question": self._question,
                "pushes": self._pushes,
                "refused": self.refused,
                "channels": saved.channels_state(self._channels),
                "broadcasts": saved.broadcasts_state(self._broadcasts),
            }
            saved.save(self._file, tree)

    # --- Flower's own ---------------------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        return self._grid.run

    def create_message(self, *args: Any, **options: Any) -> Message:
        return self._grid.create_message(*args, **options)

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()

    def __getattr__(self, name: str) -> Any:
        if name == "_grid":  # not made yet
            raise AttributeError(name)
        return getattr(self._grid, name)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(self.press(list(messages)))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self.open(list(self._grid.pull_messages(message_ids)))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        pressed = self.press(list(messages))
        return self.open(list(self._grid.send_and_receive(pressed, timeout=timeout)))

    # --- down -----------------------------------------------------------------------------------

    def press(self, messages: list[Message]) -> list[Message]:
        """Return the messages as they are sent."""
        self._pushes += 1
        self._question += 1
        sources: dict[Any, Source] = {}
        out = []
        cohort = sum(_purpose(message) == "train" for message in messages)
        order = sorted(range(len(messages)), key=lambda i: messages[i].metadata.dst_node_id)
        ranks = {i: rank for rank, i in enumerate(order)}
        alike = len({_identity(message) for message in messages if message.has_content()}) == 1
        for i, message in enumerate(messages):
            out.append(
                self._one(message, min(ranks[i], max(cohort - 1, 0)), cohort, sources, alike)
            )
        return out

    def _one(
        self,
        message: Message,
        rank: int,
        cohort: int,
        sources: dict[Any, Source],
        alike: bool,
    ) -> Message:
        purpose, node = _purpose(message), message.metadata.dst_node_id
        if purpose not in ("train", "evaluate") or not message.has_content():
            if message.has_content():
                self._enter(self._pushes, node, "down", message.content, 0, purpose)
            return message
        channel = self._channel(message)
        source = self._source(channel, message, sources)
        plan = source.plan
        training = purpose == "train"
        if not plan.taken:
            self._enter(source.round, node, "down", message.content, 0, purpose)
            return message
        if training:
            floats = any(slot.dtype.startswith("float") and not slot.pressed for slot in plan.slots)
            self.settings.refuse(message.content, dense=floats)
        peer = channel.peer(node)
        broadcast = self._broadcast(message, source) if self.settings.downlink and alike else None
        instruction = self._instruction(channel, source, peer, rank, cohort, training, broadcast)
        content = self._content(message.content, source, instruction, broadcast)
        content[KEY] = instruction.encode().array_records["arrays"]
        self._enter(source.round, node, "down", content, instruction.payload, purpose)
        kept = message.metadata
        sent = Message(content, node, kept.message_type, ttl=kept.ttl, group_id=kept.group_id)
        channel.open[node] = Question(instruction.version, source, sent, training)
        return sent

    def _channel(self, message: Message) -> Channel:
        name = message.metadata.message_type.partition(".")[2]
        if name not in self._channels:
            self._channels[name] = Channel(self.settings)
        return self._channels[name]

    def _source(self, channel: Channel, message: Message, sources: dict[Any, Source]) -> Source:
        """Return what a message is made of, once for all that are sent the same arrays."""
        key = (message.metadata.message_type, _identity(message))
        if key not in sources:
            channel.forget_the_silent(self._question)
            plan = channel.plan(message.content)
            sources[key] = Source(message.content, plan, self._round_of(message.content))
        return sources[key]

    def _round_of(self, content: RecordDict) -> int:
        for config in content.config_records.values():
            if isinstance(number := config.get("server-round"), int):
                return number
        return self._pushes

    def _broadcast(self, message: Message, source: Source) -> Broadcast:
        name = message.metadata.message_type.partition(".")[2]
        key = name, source.plan.layout.digest
        if key not in self._broadcasts:
            own = self.settings
            self._broadcasts[key] = Broadcast(source.plan, source.x, own.downlink, own.seed)
        if source.shift is None:
            source.shift = self._broadcasts[key].follow(source.x, source.round)
        return self._broadcasts[key]

    def _instruction(
        self,
        channel: Channel,
        source: Source,
        peer: Peer,
        rank: int,
        cohort: int,
        training: bool,
        broadcast: Broadcast | None,
    ) -> Instruction:
        own, of = self.settings, peer.receiver
        hyper: dict[str, int | float | str | bool] = {
            "compressor": own.compressor,
            "memory": own.memory,
            "momentum": own.momentum,
            "clip_sent": own.clip_sent,
            "dense": "\n".join(own.dense),
            "skip": "\n".join(sorted(channel.skip)),
            "downlink": own.downlink if broadcast else "",
            "rule": "step",
        }
        part = ModelPart(0)
        if broadcast is not None:
            part = broadcast.part_for(peer.held, speaks=peer.speaks)
        order = Instruction(
            "press",
            source.round,
            self._question,
            own.seed,
            source.plan.layout.digest,
            hyper,
            part,
            session=self._session,
            applied=of.applied,
            rank=rank,
            cohort=max(cohort, 1),
        )
        if training:
            order = replace(order, refused=of.refused, absurd=of.absurd)
            order = replace(order, applied=of.ask(self._question))
        return order

    def _content(
        self,
        content: RecordDict,
        source: Source,
        order: Instruction,
        broadcast: Broadcast | None,
    ) -> RecordDict:
        """Return the records of a message: as they are, cast, of the replica, or without."""
        plan = source.plan
        if broadcast is not None and order.model.base >= 0:
            return plan.peeled(content)
        values: dict[tuple[str, str], Any] = {}
        if broadcast is not None:
            values = dict(broadcast.arrays)
        elif _other_dtypes(plan, content):
            values = dict(source.arrays)
        if not values:
            return RecordDict(dict(content.items()))
        return refilled(content, values, plan.orders)

    # --- up -------------------------------------------------------------------------------------

    def open(self, messages: list[Message]) -> list[Message]:
        """Return answers as the app's clients made them, by the nodes' numbers."""
        messages.sort(key=lambda message: message.metadata.src_node_id)
        read = [self._read(message) for message in messages]
        batches: dict[int, list[tuple[int, Reply]]] = {}
        for message, reply in zip(messages, read, strict=True):
            node = message.metadata.src_node_id
            if isinstance(reply, Reply) and node in self._channel(message).clients:
                batches.setdefault(id(self._channel(message)), []).append((node, reply))
        for channel in self._channels.values():
            if id(channel) in batches:
                channel.begin(batches[id(channel)])
        pairs = zip(messages, read, strict=True)
        answers = [self._take(message, reply) for message, reply in pairs]
        if any(isinstance(reply, Reply) for reply in read):
            self._save()
        return answers

    def _read(self, message: Message) -> Reply | str | None:
        """Return the record of an answer; what is wrong with it; or None where it has none."""
        if message.has_error() or not message.has_content():
            return None
        record = message.content.array_records.get(KEY)
        if record is None:
            return None
        try:
            plain = {name: array for name, array in record.items() if name != "form"}
            own = RecordDict()
            own["arrays"] = _record(plain)
            return Reply.decode(own)
        except ProtocolError as error:
            return str(error)

    def _take(self, message: Message, reply: Reply | str | None) -> Message:
        if message.has_error() or not message.has_content():
            return message
        node, purpose, channel = (
            message.metadata.src_node_id,
            _purpose(message),
            self._channel(message),
        )
        content = message.content
        question = channel.open.get(node)
        number = question.source.round if question else self._pushes
        payload = reply.payload if isinstance(reply, Reply) else 0
        self._enter(number, node, "up", content, payload, purpose)
        if reply is None:  # a client without the mod
            channel.open.pop(node, None)
            if question is None or not question.training:
                return message
            channel.peer(node).heard = question.version
            whole = channel.shifted(question, content)
            return message if whole is content else _with(message, whole)
        try:
            if isinstance(reply, str):
                raise RefusedError(reply)
            return _with(message, channel.take(node, reply, content))
        except RefusedError as error:
            self.refused += 1
            log.warning("refused an answer of node %d: %s", node, printable(str(error)))
            return _with(message, error=Error(_REFUSED, f"flowerpress: {error}"))
        finally:
            release(message)

    def _enter(
        self, number: int, node: int, way: str, content: RecordDict, payload: int, purpose: str
    ) -> None:
        framing = content_bytes(content) - payload
        self.ledger.add(LedgerRow(number, node, way, payload, framing, purpose))

    def summary(self) -> str:
        """Return what was sent so far, in one line."""
        led = self.ledger
        return f"uplink {led.up_bytes:,} bytes, downlink {led.down_bytes:,}, refused {self.refused}"


def _purpose(message: Message) -> str:
    return message.metadata.message_type.partition(".")[0]


def _identity(message: Message) -> tuple[int, ...]:
    """Return what is the same for messages that carry the same arrays."""
    return tuple(id(record) for record in message.content.array_records.values())


def _with(
    message: Message, content: RecordDict | None = None, error: Error | None = None
) -> Message:
    """Return an answer with another content, or an error instead, from where it came."""
    make: Any = Message  # Flower's own way, which its overloads leave out
    whole: Message = make(metadata=message.metadata, content=content, error=error)
    return whole


def _record(arrays: dict[str, Array]) -> ArrayRecord:
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = array
    return record


def _other_dtypes(plan: Plan, content: RecordDict) -> bool:
    records = content.array_records
    return any(records[s.record][s.key].dtype not in ("", s.dtype) for s in plan.taken)
