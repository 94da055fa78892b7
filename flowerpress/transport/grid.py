"""`GrpcGrid`: Flower's Grid over the link."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from flwr.app import Error, Message, RecordDict

from flowerpress.protocol import OneRunGrid, ensure_task_identity, name_message, name_reply
from flowerpress.transport.codec import CodecError, decode, encode
from flowerpress.transport.hub import Hub
from flowerpress.transport.peer import Question
from flowerpress.transport.pipes import Incoming

log = logging.getLogger("flowerpress")
_UNAVAILABLE, _MALFORMED = 3, 2  # Flower's codes: the node is not there; its app has failed
SERVER = 1  # the server's node id


class LargeMessage(Message):
    """An answer whose content stays on disk until it is asked for.

    So the server's memory holds the answers that it is working on, and not all that have come.
    Strategies that are done with a content may say so by `release`.
    """

    def __init__(self, asked: Message, incoming: Incoming) -> None:
        super().__init__(RecordDict(), reply_to=asked)
        self.__dict__ |= {"_incoming": incoming, "_loaded": False}

    def release(self) -> None:
        """Let go of the content, with what was changed in it; it is read anew if asked for."""
        self.__dict__ |= {"_loaded": False, "_content": RecordDict()}

    @property
    def content(self) -> RecordDict:
        """The content of this message."""
        if not self.__dict__["_loaded"]:
            incoming: Incoming = self.__dict__["_incoming"]
            content = decode(incoming.open(), incoming.size)[1]
            self.__dict__ |= {"_loaded": True, "_content": content}
        found: RecordDict = self.__dict__["_content"]
        return found

    @content.setter
    def content(self, value: RecordDict) -> None:
        self.__dict__ |= {"_loaded": True, "_content": value}


class GrpcGrid(OneRunGrid):
    """Sends messages to the clients of a hub, and collects the answers.

    Parameters
    ----------
    hub : Hub
        The clients. Client i is node i + 2.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._asked: dict[str, Message] = {}
        self._answers: dict[str, Message] = {}
        self.exchanges: list[dict[str, Any]] = []
        self.rounds: dict[int, Any] = {}
        ensure_task_identity(hub.run_id)

    def note_round(self, record: Any) -> None:
        """Hear what round ``record.round`` gave, a dataclass, from a ServerApp that tells."""
        self.rounds[record.round] = record

    # Flower's Grid interface -------------------------------------------------------------------

    def get_node_ids(self) -> list[int]:
        """Return the nodes that are there, or have not been away for long."""
        return [peer.node for peer in self._hub.online()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; returns the ids to ask for their answers by."""
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
        try:
            message = _answer(asked, answer)
        except Exception as error:  # whatever a client sends, its question must be settled
            log.exception("an answer could not be read")
            message = Message(Error(_MALFORMED, f"unreadable: {error}"), reply_to=asked)
        with self._hub.changed:
            if self._asked.pop(key, None) is not None:
                self._answers[key] = message
                self._hub.changed.notify_all()

    def _pull(self, ids: list[str] | None) -> list[Message]:
        with self._hub.changed:
            keys = list(self._answers) if ids is None else ids
            there = [(self._answers.pop(key), key) for key in keys if key in self._answers]
        return [name_reply(answer, key) for answer, key in there]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages and return the answers that come in time, in the messages' order.

        Who has not answered by then is told so; what it sends later is dropped.
        """
        begun = time.monotonic()
        before = self.total_bytes()
        keys = self.push_messages(messages)
        with self._hub.changed:
            self._hub.changed.wait_for(
                lambda: all(key in self._answers for key in keys), timeout=timeout
            )
            late = {key for key in keys if self._asked.pop(key, None) is not None}
        if late:
            for peer in list(self._hub.peers.values()):
                peer.cancel(late)
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
        return self.pull_messages(keys)

    def total_bytes(self) -> tuple[int, int]:
        """Return the bytes of frames that all clients were sent, and have sent."""
        counters = [peer.counters for peer in list(self._hub.peers.values())]
        return sum(c.sent for c in counters), sum(c.received for c in counters)


def _answer(asked: Message, answer: Incoming | str) -> Message:
    """Return an answer as a Flower message; an error where there is none, or it is malformed."""
    if isinstance(answer, str):
        return Message(Error(_UNAVAILABLE, answer), reply_to=asked)
    try:
        head, content = decode(answer.open(), answer.size, data=answer.in_memory)
    except CodecError as wrong:
        return Message(Error(_MALFORMED, f"a malformed answer: {wrong}"), reply_to=asked)
    if head.error is not None:
        return Message(head.error, reply_to=asked)
    if answer.in_memory and content is not None:
        return Message(content, reply_to=asked)
    return LargeMessage(asked, answer)
