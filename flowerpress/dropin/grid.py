"""The server's half: a grid around the grid.

    1. a training message with floats in its arrays gets a record beside them: the number of the
       question, the version of this node's update applied last, and how to press
    2. with a compressed downlink, the arrays go as the deltas that the node lacks; those of
       evaluation too
    3. an answer is judged, decoded and put on x: strategies see y = x + delta in ordinary arrays
    4. what is refused is an error message, as from a client that failed

A client without the mod passes over the record, and answers as ever.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from flowerpress.dropin import saved
from flowerpress.dropin.arrays import FORM, KEY, Plan, copied, form, name_of, refilled
from flowerpress.dropin.messages import Casts, answer_with, changed, identity, purpose_of, round_of
from flowerpress.dropin.peers import (
    Channel,
    Peer,
    Question,
    RefusedError,
    Source,
    model_norm,
)
from flowerpress.dropin.replica import Broadcast
from flowerpress.dropin.settings import Settings
from flowerpress.protocol import (
    Instruction,
    Ledger,
    LedgerRow,
    ModelPart,
    Reply,
    content_bytes,
    printable,
    release,
)
from flowerpress.protocol.layout import FLOATS
from flowerpress.server.guard import UnknownScaleError
from flowerpress.server.tree import Tree

log = logging.getLogger("flowerpress")
_MOST_MODELS = 32  # that memory is kept of: an app may have a new one in every round
_REFUSED = 2  # Flower's code of a ClientApp that raised: strategies count a failure


@dataclass
class _Out:
    """A message on its way down, before anything is changed for it."""

    message: Message
    channel: Channel
    source: Source
    rank: int
    cohort: int
    broadcast: bool


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
    unpressed : int
        Updates that came dense, of clients without the mod.
    """

    def __init__(self, grid: Grid, settings: Settings) -> None:
        if isinstance(grid, PressedGrid):
            raise ValueError("this grid is pressed already: once is enough")
        self._grid, self.settings = grid, settings
        self.ledger, self.refused, self.unpressed = Ledger(), 0, 0
        self._session = secrets.randbits(52)
        self._question = self._pushes = 0
        self._channels: dict[tuple[str, str], Channel] = {}
        self._skip: set[str] = set()  # names that once were no float
        self._dtypes: dict[str, str] = {}  # of each name at first
        self._waiting: list[Message] = []  # answers to be compared with others
        self._lock = threading.RLock()
        self._file = Path(settings.checkpoint) if settings.checkpoint else None
        if self._file is not None:
            self._restore(saved.find(self._file, settings, resume=settings.resume))

    def _restore(self, tree: Tree) -> None:
        """Go on from what a file held, if it held anything."""
        if tree is None:
            return
        self._session, self._question = tree["session"], tree["question"]
        self._pushes, self.refused = tree["pushes"], tree["refused"]
        self.unpressed = tree.get("unpressed", 0)  # files of earlier versions lack it
        self._skip, self._dtypes = tree["skip"], tree["dtypes"]
        self._channels = saved.restored(tree["channels"], self.settings)
        log.info("%s: going on after question %d", self._file, self._question)

    def _save(self) -> None:
        if self._file is not None:
            tree = {
                "settings": saved.settings_of(self.settings),
                "session": self._session,
                "question": self._question,
                "pushes": self._pushes,
                "refused": self.refused,
                "unpressed": self.unpressed,
                "skip": self._skip,
                "dtypes": self._dtypes,
                "channels": saved.state(self._channels),
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

    def get_nodes(self) -> Iterable[Any]:
        return self._grid.get_nodes()

    def __getattr__(self, name: str) -> Any:
        if name == "_grid":  # not made yet
            raise AttributeError(name)
        return getattr(self._grid, name)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(self.press(list(messages)))

    def pull_messages(self, *args: Any, **options: Any) -> Iterable[Message]:
        return self.open(list(self._grid.pull_messages(*args, **options)), wait=True)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        pressed = self.press(list(messages))
        return self.open(list(self._grid.send_and_receive(pressed, timeout=timeout)))

    # --- down -----------------------------------------------------------------------------------

    def press(self, messages: list[Message]) -> list[Message]:
        """Return the messages as they are sent.

        Raises
        ------
        ValueError
            Pressing one would void what the app promises: nothing was changed.
        """
        with self._lock:
            planned, casts = self._planned(messages), Casts(self._dtypes)
            pairs = zip(messages, planned, strict=True)
            return [self._pressed(m if out else casts.of(m), out) for m, out in pairs]

    def _planned(self, messages: list[Message]) -> list[_Out | None]:
        """Return what is pressed of each message; None where it goes as it is."""
        sources = self._sources(messages)  # what is refused is, before anything is changed
        self._pushes += 1
        nodes = [message.metadata.dst_node_id for message in messages]
        training = [i for i, message in enumerate(messages) if purpose_of(message) == "train"]
        order = sorted(training, key=lambda i: nodes[i])
        ranks = {i: rank for rank, i in enumerate(order)}
        alike = len({identity(message) for message in messages}) == 1
        several = len(set(nodes)) > 1
        planned: list[_Out | None] = []
        for i, (message, source) in enumerate(zip(messages, sources, strict=True)):
            if source is None:
                planned.append(None)
                continue
            channel = self._channel(message, source.plan)
            # Alone, a node may have a model of its own, which no replica follows.
            shared = alike and (several or set(channel.clients) <= {nodes[i]})
            broadcast = bool(self.settings.downlink) and shared and self._follows(channel, source)
            if i not in ranks and not broadcast:  # an evaluation of arrays that go as they are
                planned.append(None)
                continue
            rank, cohort = ranks.get(i, 0), max(len(training), 1)
            planned.append(_Out(message, channel, source, rank, cohort, broadcast))
        for channel in self._channels.values():
            channel.forget(self._pushes)
        return planned

    def _sources(self, messages: list[Message]) -> list[Source | None]:
        """Return what each message is made of, the same for the same arrays; None: not pressed."""
        found = dict[Any, Source]()
        sources: list[Source | None] = []
        for message in messages:
            purpose = purpose_of(message)
            known = purpose == "train" or (purpose == "evaluate" and self.settings.downlink)
            if not known or not message.has_content():
                sources.append(None)
                continue
            key = (message.metadata.message_type, identity(message))
            if key not in found:
                plan = self._plan(message.content)
                found[key] = Source(
                    plan, message.content, round_of(message.content, self._pushes + 1)
                )
            plan = found[key].plan
            if plan.taken and purpose == "train":
                beside = any(s.dtype.startswith("float") and not s.pressed for s in plan.slots)
                self.settings.refuse(message.content, dense=beside)
            sources.append(found[key] if plan.taken else None)
        return sources

    def _plan(self, content: RecordDict) -> Plan:
        """Return what is pressed of a message.

        What once was no float is never pressed: FedAvg makes floats of whole numbers, and what is
        pressed would change from round to round. Likewise a name keeps the dtype that it had first:
        FedAdam makes float64 of all.
        """
        for record, arrays in content.array_records.items():
            for key, array in arrays.items():
                dtype, name = form(array)[0], name_of(str(record), str(key))
                if dtype in FLOATS:
                    self._dtypes.setdefault(name, dtype)
                else:
                    self._skip.add(name)
        return Plan.of(content, self.settings.dense, self._skip, self._dtypes)

    def _channel(self, message: Message, plan: Plan) -> Channel:
        key = message.metadata.message_type.partition(".")[2], plan.layout.digest
        found = self._channels.pop(key, None) or Channel(self.settings)
        self._channels[key] = found  # the last used last
        while len(self._channels) > _MOST_MODELS:
            del self._channels[next(iter(self._channels))]
        return found

    def _follows(self, channel: Channel, source: Source) -> bool:
        """Take the channel's replica to what is sent; whether there is one to follow."""
        if source.shift is not None:
            return True
        if any(slot.dtype == "float16" for slot in source.plan.taken):
            return False  # a client would hold what was rounded, and the server what was not
        x = source.vector()
        if not np.isfinite(x).all():
            return False  # it goes as it is, as without a replica
        if channel.broadcast is None:
            own = self.settings
            channel.broadcast = Broadcast(source.plan, x, own.downlink, own.seed)
        source.shift = channel.broadcast.follow(x, self._pushes)
        return source.shift is not None

    def _pressed(self, message: Message, out: _Out | None) -> Message:
        if not message.has_content():
            return message
        node, purpose = message.metadata.dst_node_id, purpose_of(message)
        if out is None:
            number = round_of(message.content, self._pushes)
            self._enter(number, node, "down", message.content, 0, purpose)
            return message
        self._question += 1
        channel, source = out.channel, out.source
        channel.norm = channel.norm or model_norm(source.vector())
        broadcast = channel.broadcast if out.broadcast else None
        order = self._instruction(out, channel.peer(node), broadcast)
        content = self._content(message.content, source, order, broadcast)
        content[KEY] = order.encode().array_records["arrays"]
        self._enter(source.round, node, "down", content, order.payload, purpose)
        sent = changed(message, content)
        question = Question(order.version, self._pushes, source, sent.metadata, purpose == "train")
        channel.ask(node, question)
        return sent

    def _instruction(self, out: _Out, peer: Peer, broadcast: Broadcast | None) -> Instruction:
        own, of, training = self.settings, peer.receiver, purpose_of(out.message) == "train"
        bound = any("clipping_norm" in each for each in out.message.content.config_records.values())
        hyper: dict[str, int | float | str | bool] = {
            "compressor": own.compressor,
            "memory": own.memory,
            "momentum": own.momentum,
            "clip_sent": own.clip_sent,
            "own": bool(own.clip_sent or own.allow_clipping or not bound),
            "plain_mean": own.plain_mean,
            "fresh": of.asked == 0,
            "dense": json.dumps(own.dense),
            "skip": json.dumps(sorted(self._skip)),
            "downlink": own.downlink if broadcast else "",
            "rule": "step",
        }
        part = ModelPart(0)
        if broadcast is not None:
            part = broadcast.part_for(peer.held, speaks=peer.speaks)
        order = Instruction(
            "press",
            self._pushes,  # what compressors draw by; the app's own round may stand still
            self._question,
            own.seed,
            out.source.plan.layout.digest,
            hyper,
            part,
            session=self._session,
            applied=of.applied,
            rank=out.rank,
            cohort=out.cohort,
        )
        if training:
            order = replace(order, refused=of.refused, absurd=of.absurd)
            order = replace(order, applied=of.ask(self._question))
        return order

    def _content(
        self, content: RecordDict, source: Source, order: Instruction, broadcast: Broadcast | None
    ) -> RecordDict:
        """Return the records of a message: as they are, cast, of the replica, or without."""
        if broadcast is None:
            return refilled(copied(content), source.cast(), source.plan.orders)
        if order.model.base >= 0:
            return source.plan.peeled(content)
        return refilled(copied(content), broadcast.arrays, source.plan.orders)

    # --- up -------------------------------------------------------------------------------------

    def open(self, messages: list[Message], *, wait: bool = False) -> list[Message]:
        """Return answers as the app's clients made them, by the nodes' numbers.

        With `wait`, an answer that nothing is known yet to compare with comes with a later call,
        as long as others are awaited.
        """
        with self._lock:
            messages = [*self._waiting, *messages]
            self._waiting = []
            messages.sort(key=lambda message: message.metadata.src_node_id)
            read = [self._read(message) for message in messages]
            batches: dict[int, tuple[Channel, list[tuple[int, Reply]]]] = {}
            for message, reply in zip(messages, read, strict=True):
                node = message.metadata.src_node_id
                found = self._find(node, reply.version) if isinstance(reply, Reply) else None
                if isinstance(reply, Reply) and found is not None:
                    batches.setdefault(id(found[0]), (found[0], []))[1].append((node, reply))
            for channel, replies in batches.values():
                channel.begin(replies, self._pushes)
            taken = [self._take(m, reply, wait) for m, reply in zip(messages, read, strict=True)]
            if any(isinstance(reply, Reply) for reply in read):
                self._save()
            return [message for message in taken if message is not None]

    def _find(self, node: int, version: int) -> tuple[Channel, Question] | None:
        """Return the open question of a version to a node, and its channel."""
        for channel in self._channels.values():
            question = channel.question(node, version)
            if question is not None:
                return channel, question
        return None

    def _asked(self, message: Message) -> tuple[Channel, Question] | None:
        """Return the question that a message answers which says nothing of that itself."""
        node, to = message.metadata.src_node_id, message.metadata.reply_to_message_id
        for channel in self._channels.values():
            question = channel.answered(node, to) if to else None
            if question is not None:
                return channel, question
        return None

    def _read(self, message: Message) -> Reply | str | None:
        """Return the record of an answer; what is wrong with it; or None where it has none."""
        if message.has_error() or not message.has_content() or KEY not in message.content:
            return None
        record = message.content[KEY]
        if not isinstance(record, ArrayRecord):
            return f"its record {KEY!r} is no record of arrays"
        plain = ArrayRecord()
        for name, array in record.items():
            if name != FORM:
                plain[name] = array
        try:
            return Reply.decode(RecordDict({"arrays": plain}))
        except Exception as error:  # of a peer's bytes: whatever it is
            return str(error) or type(error).__name__

    def _take(self, message: Message, reply: Reply | str | None, wait: bool) -> Message | None:
        node, purpose = message.metadata.src_node_id, purpose_of(message)
        if message.has_error() or not message.has_content():
            if (found := self._asked(message)) is not None:
                found[0].close(node, found[1].version)
            return message
        content = message.content
        if isinstance(reply, Reply):
            found = self._find(node, reply.version)
        else:
            found = self._asked(message)
        try:
            if isinstance(reply, str):
                raise RefusedError(reply)
            if reply is None:
                answer = self._dense(message, found)
            elif found is None:
                raise RefusedError("an answer to no open question: a duplicate, or too late")
            else:
                answer = answer_with(message, found[0].take(node, reply, content))
        except UnknownScaleError as error:
            if wait and found is not None and _others(found[0], node):
                self._waiting.append(message)
                return None
            answer = self._alone(message, reply, error, found)
        except Exception as error:  # of a peer's bytes: whatever it is
            answer = self._refused(message, error, found)
        number = found[1].source.round if found else self._pushes
        payload = reply.payload if isinstance(reply, Reply) else 0
        self._enter(number, node, "up", content, payload, purpose)
        release(message)
        return answer

    def _alone(
        self,
        message: Message,
        reply: Reply | str | None,
        error: Exception,
        found: tuple[Channel, Question] | None,
    ) -> Message:
        """Return an answer to a model of zeros that comes first and alone: it must be believed."""
        if found is None or not isinstance(reply, Reply):
            return self._refused(message, error, found)
        node = message.metadata.src_node_id
        try:
            return answer_with(message, found[0].take(node, reply, message.content, alone=True))
        except Exception as other:  # of a peer's bytes: whatever it is
            return self._refused(message, other, found)

    def _dense(self, message: Message, found: tuple[Channel, Question] | None) -> Message:
        """Return the answer of a client without the mod."""
        if found is None:
            return message
        channel, question = found
        channel.close(message.metadata.src_node_id, question.version)
        channel.peer(message.metadata.src_node_id).heard = question.push
        if not question.training:
            return message
        self.unpressed += 1
        whole = channel.shifted(question, message.content)
        return message if whole is message.content else answer_with(message, whole)

    def _refused(
        self, message: Message, error: Exception, found: tuple[Channel, Question] | None
    ) -> Message:
        self.refused += 1
        node = message.metadata.src_node_id
        if found is not None:
            found[0].close(node, found[1].version)
        why = printable(str(error) or type(error).__name__)
        log.warning("refused an answer of node %d: %s", node, why)
        return answer_with(message, error=Error(_REFUSED, f"flowerpress: {why}"))

    def _enter(
        self, number: int, node: int, way: str, content: RecordDict, payload: int, purpose: str
    ) -> None:
        framing = content_bytes(content) - payload
        self.ledger.add(LedgerRow(number, node, way, payload, framing, purpose))

    def summary(self) -> str:
        """Return what was sent so far, in one line."""
        led = self.ledger
        said = f"uplink {led.up_bytes:,} bytes, downlink {led.down_bytes:,}, refused {self.refused}"
        if not self.unpressed:
            return said
        return f"{said}, unpressed {self.unpressed}: clients without mods=[press], or with it off"


def _others(channel: Channel, node: int) -> bool:
    """Whether other nodes' training answers are awaited."""
    return any(
        question.training
        for other, questions in channel.open.items()
        if other != node
        for question in questions.values()
    )
