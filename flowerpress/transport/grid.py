"""`GrpcGrid`: Flower's Grid over the link."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from flwr.app import ConfigRecord, Error, Message, RecordDict

from flowerpress.protocol import OneRunGrid, ensure_task_identity, name_message, name_reply
from flowerpress.protocol.grids import Upload
from flowerpress.transport.codec import CodecError, decode, encode
from flowerpress.transport.hub import Hub
from flowerpress.transport.peer import FIRST_NODE, Question
from flowerpress.transport.pipes import Incoming

log = logging.getLogger("flowerpress")
_DIGITS = 10  # of the number of a round
_UNAVAILABLE, _MALFORMED = 3, 2  # Flower's codes: the node is not there; its app has failed
_QUICK = 2**16  # bytes of an answer that is read at once where it comes
SERVER = 1  # the server's node id


class LargeMessage(Message):
    """An answer whose content stays on disk until it is asked for.

    So the server's memory holds the answers that it is working on, and not all that have come.
    Strategies that are done with a content may say so by `release`.
    """

    def __init__(self, asked: Message, incoming: Incoming) -> None:
        super().__init__(RecordDict(), reply_to=asked)
        self.__dict__ |= {"_incoming": incoming, "_loaded": False, "_reading": threading.Lock()}

    def release(self) -> None:
        """Let go of the content, with what was changed in it; it is read anew if asked for."""
        self.__dict__ |= {"_loaded": False, "_content": RecordDict()}

    @property
    def content(self) -> RecordDict:
        """The content of this message."""
        with self.__dict__["_reading"]:  # there is one file, with one position
            if not self.__dict__["_loaded"]:
                incoming: Incoming = self.__dict__["_incoming"]
                content = decode(incoming.open(), incoming.size)[1]
                self.__dict__ |= {"_loaded": True, "_content": content}
            found: RecordDict = self.__dict__["_content"]
        return found

    @content.setter
    def content(self, value: RecordDict) -> None:
        self.__dict__ |= {"_loaded": True, "_content": value}


class SetupError(ValueError):
    """The server was started with what its app cannot do; its clients may wait for it."""


class Saving(NamedTuple):
    """Where the runs of an app are saved that does not say so itself.

    Parameters
    ----------
    folder : Path
        Gets the checkpoints of the first strategy that is started, and ``FOLDER-2`` and so on those
        of the next ones.
    every : int
        Rounds between checkpoints; 0: none are saved.
    resume : bool
        Whether to go on from what is there.
    note : callable, optional
        Hears with the run's first message whether it is saved.
    """

    folder: Path
    every: int = 1
    resume: bool = False
    note: Callable[[bool], None] | None = None

    def folder_of(self, number: int) -> Path:
        """Return the folder of the first (1), second, ... strategy."""
        return self.folder if number == 1 else self.folder.with_name(f"{self.folder.name}-{number}")


class _Unread(NamedTuple):
    """An answer that is read by whoever takes it, and the message that it answers."""

    asked: Message
    incoming: Incoming

    def read(self) -> Message:
        """Return it as a Flower message, an error where it is malformed."""
        return _answer(self.asked, self.incoming)


@dataclass
class _Wait:
    """How many answers somebody waits for still."""

    left: int = 0


@dataclass
class ExchangedRound:
    """What a round of an app took that tells nothing itself: its messages say which round it is.

    Seconds and bytes of frames are of all the round's exchanges.
    """

    round: int
    seconds: float = 0.0
    down_bytes: int = 0
    up_bytes: int = 0
    late: int = 0


class GrpcGrid(OneRunGrid):
    """Sends messages to the clients of a hub, and collects the answers.

    Parameters
    ----------
    hub : Hub
        The clients. Client i is node i + `FIRST_NODE`.
    saving : Saving, optional
        Where strategies of flowerpress that are started on this grid save their runs. With
        ``resume``, messages of any other sender are refused: nothing would be saved of its run.

    Attributes
    ----------
    strategies : int
        How many of flowerpress's strategies were started on it.
    refused : SetupError or None
        Why the first message was not sent.
    waiting : tuple of int or None
        How many clients are there of how many that a round waits for; None: it has begun.
    """

    strangers = True  # see `flowerpress.protocol.grids.has_strangers`

    def __init__(self, hub: Hub, saving: Saving | None = None) -> None:
        self._hub, self._saving, self.strategies = hub, saving, 0
        self._begun = False
        self.refused: SetupError | None = None
        self.waiting: tuple[int, int] | None = None
        self.run_id = hub.run_id
        self._asked: dict[str, Message] = {}
        self._answers: dict[str, _Unread | Message] = {}
        self._waits: dict[str, _Wait] = {}  # for these messages
        self.exchanges: list[dict[str, Any]] = []
        self.rounds: dict[int, Any] = {}
        ensure_task_identity(hub.run_id)

    def note_round(self, record: Any) -> None:
        """Hear what round ``record.round`` gave, a dataclass, from a ServerApp that tells."""
        self.rounds[record.round] = record

    def note_waiting(self, waiting: tuple[int, int] | None) -> None:
        """Hear how many clients a round waits for."""
        self.waiting = waiting

    def proven_client(self, node: int) -> int | None:
        """Return the client that a node has proven to be by its certificate; None without any."""
        return node - FIRST_NODE if self._hub.proven else None

    def dismiss(self, node: int, why: str) -> None:
        """Send a client away that cannot take part in this run."""
        self._hub.dismiss(node, why)

    def allow_answers(self, nbytes: int) -> None:
        """Hear how long the answers of this run may be."""
        self._hub.allow_answers(nbytes)

    def measures_uploads(self) -> bool:
        """Return whether it is measured how long answers take to come: it is."""
        return True

    def last_upload(self, node: int) -> Upload | None:
        """Return how long a node's last answer took to come."""
        peer = self._hub.peers.get(node - FIRST_NODE)
        return peer.upload if peer is not None else None

    def stop_waiting(self, message_ids: Iterable[str]) -> None:
        """Wait no more for the answers to these messages."""
        keys = set(message_ids)
        with self._hub.changed:
            for key in keys:
                self._asked.pop(key, None)
                self._answers.pop(key, None)
                self._count_down(key)
        self._cancel(keys)

    def checkpoints(self) -> Any:
        """Return where the next strategy that is started saves its run; None: nowhere."""
        from flowerpress.strategies import Checkpoints  # which no client needs

        self.strategies += 1
        saving = self._saving
        if saving is None or not saving.every:
            return None
        return Checkpoints(saving.folder_of(self.strategies), saving.every, saving.resume)

    # Flower's Grid interface -------------------------------------------------------------------

    def get_node_ids(self) -> list[int]:
        """Return the nodes that are there, or have not been away for long.

        Not those who have said nothing since they were let in: they may be leaving again, because
        the run is not one that they can take part in.
        """
        online = self._hub.online()
        return [peer.node for peer in online if peer.confirmed or not peer.connected]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; returns the ids to ask for their answers by."""
        if not self._begun:
            self._begin()
        online = {peer.node: peer for peer in self._hub.online()}
        keys = []
        for message in messages:
            key = name_message(message)
            keys.append(key)
            self._asked[key] = message
            node = message.metadata.dst_node_id
            if node in online:
                online[node].ask(Question(key, encode(message), self._settler(key)))
            else:
                self._settle(key, f"node {node} is not there")
        return keys

    def _begin(self) -> None:
        """Say whether the run is saved, before its first message is sent."""
        saving, saved = self._saving, self.strategies > 0
        if saving is not None and saving.note is not None and not saved:
            saving.note(False)
        if saving is not None and saving.resume and not saved:
            self.refused = SetupError(
                "--resume: this app's strategy is none of flowerpress's, and nothing of its run is "
                "saved: start it without --resume, or let the app declare `checkpoint` and "
                "`resume` in its run config and save the run itself"
            )
            raise self.refused
        self._begun = True

    def _settler(self, key: str) -> Any:
        def settle(answer: Incoming | str) -> None:
            self._settle(key, answer)

        return settle

    def _settle(self, key: str, answer: Incoming | str) -> None:
        """Keep the answer to a message, or why there is none."""
        with self._hub.changed:
            asked = self._asked.get(key)
        if asked is None:
            return
        found: _Unread | Message
        if isinstance(answer, str) or answer.size <= _QUICK:
            found = _answer(asked, answer)
        else:  # this may be the link's thread, which all clients wait for
            found = _Unread(asked, answer)
        with self._hub.changed:
            if self._asked.pop(key, None) is not None:
                self._answers[key] = found
                self._count_down(key)

    def _count_down(self, key: str) -> None:
        """Wake who waits for the answer to a message, and for others, once it is the last."""
        wait = self._waits.pop(key, None)
        if wait is not None:
            wait.left -= 1
            if not wait.left:
                self._hub.changed.notify_all()

    def _pull(self, ids: list[str] | None) -> list[Message]:
        with self._hub.changed:
            keys = list(self._answers) if ids is None else ids
            there = [(self._answers.pop(key), key) for key in keys if key in self._answers]
        return [
            name_reply(each.read() if isinstance(each, _Unread) else each, key)
            for each, key in there
        ]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages and return the answers that come in time, in the messages' order.

        Who has not answered by then is told so; what it sends later is dropped.
        """
        begun = time.monotonic()
        before = self.total_bytes()
        messages = list(messages)
        keys = self.push_messages(messages)
        with self._hub.changed:
            # Some may have been answered by now, and nobody answers while the lock is held.
            due = [key for key in keys if key in self._asked]
            wait = _Wait(len(due))
            self._waits |= dict.fromkeys(due, wait)
            self._hub.changed.wait_for(lambda: not wait.left, timeout=timeout)
            late = {key for key in keys if self._asked.pop(key, None) is not None}
            for key in late:
                self._waits.pop(key, None)
        if late:
            self._cancel(late)
            log.warning("%d of %d answers did not come in %g s", len(late), len(keys), timeout)
        if keys:
            after = self.total_bytes()
            self.exchanges.append(
                {
                    "messages": len(keys),
                    "late": len(late),
                    "seconds": time.monotonic() - begun,
                    "down_bytes": after[0] - before[0],
                    "up_bytes": after[1] - before[1],
                }
            )
            self._count_round(set(map(_round_said, messages)))
        return self.pull_messages(keys)

    def _count_round(self, numbers: set[int | None]) -> None:
        """Add the last exchange to its round, where its messages say which that is."""
        number, last = numbers.pop(), self.exchanges[-1]
        if number is None or numbers:
            return
        found = self.rounds.setdefault(number, ExchangedRound(number))
        if isinstance(found, ExchangedRound):  # else the app itself has told
            for name in ("seconds", "down_bytes", "up_bytes", "late"):
                setattr(found, name, getattr(found, name) + last[name])

    def _cancel(self, keys: set[str]) -> None:
        for peer in list(self._hub.peers.values()):
            peer.cancel(keys)

    def total_bytes(self) -> tuple[int, int]:
        """Return the bytes of frames that all clients were sent, and have sent."""
        counters = [peer.counters for peer in list(self._hub.peers.values())]
        return sum(c.sent for c in counters), sum(c.received for c in counters)


def _round_said(message: Message) -> int | None:
    """Return the round that a strategy of Flower puts on its messages, or in their config."""
    group = message.metadata.group_id
    if group.isascii() and group.isdecimal() and len(group) < _DIGITS:
        return int(group)
    # Not by `config_records`: it makes a cycle, which keeps the message until it is collected.
    for config in message.content.values():
        number = config.get("server-round") if isinstance(config, ConfigRecord) else None
        if type(number) is int and 0 <= number < 10**_DIGITS:
            return number
    return None


def _answer(asked: Message, answer: Incoming | str) -> Message:
    """Return an answer as a Flower message; an error where there is none, or it is malformed."""
    if isinstance(answer, str):
        return Message(Error(_UNAVAILABLE, answer), reply_to=asked)
    try:
        head, content = decode(answer.open(), answer.size, data=answer.in_memory)
    except CodecError as wrong:
        return Message(Error(_MALFORMED, f"a malformed answer: {wrong}"), reply_to=asked)
    except Exception as error:  # whatever a client sends, its question must be settled
        log.exception("an answer could not be read")
        return Message(Error(_MALFORMED, f"unreadable: {error}"), reply_to=asked)
    if head.error is not None:
        return Message(head.error, reply_to=asked)
    if answer.in_memory and content is not None:
        return Message(content, reply_to=asked)
    return LargeMessage(asked, answer)
