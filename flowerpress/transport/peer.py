"""One client as the server sees it, across its connections.

The server asks one question at a time; the client works on it, and its answer closes it. A question
and its answer are numbered, and both sides know how much of each the other has, so a connection may
break at any byte: the next one goes on from there. What comes twice, or too late, is counted and
dropped.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from flowerpress.protocol.grids import Upload
from flowerpress.transport.frames import FrameError, kind_of, make
from flowerpress.transport.heads import names_short_heads, shorten
from flowerpress.transport.limits import ANY_ANSWER, Bucket, Limits
from flowerpress.transport.pipes import IN_MEMORY, Incoming, Outgoing
from flowerpress.transport.stream import Counters, Stream

log = logging.getLogger("flowerpress")
FIRST_NODE = 2  # client 0's; node 1 is the server
_SHORT = 2**10  # bytes of a piece of an answer that counts as any other frame


@dataclass
class Question:
    """A message to a client, and who waits for the answer.

    Parameters
    ----------
    key : str
        The message's id in the run.
    buffers : list of bytes or views
        The message, encoded.
    settle : callable
        Gets the answer, or the reason why there is none; once.
    """

    key: str
    buffers: list[bytes | memoryview]
    settle: Callable[[Incoming | str], None]
    outgoing: Outgoing = field(init=False)


class Peer:
    """One client, connected or not.

    Parameters
    ----------
    client : int
        Its stable id.
    limits : Limits
        What it may take.

    Attributes
    ----------
    largest : int
        Bytes that an answer may have.
    farewell : str
        Why it has left, as it said.
    upload : Upload or None
        How long its last answer took to come.
    """

    def __init__(self, client: int, limits: Limits) -> None:
        self.client, self.node = client, client + FIRST_NODE
        self.largest = ANY_ANSWER if limits.message is None else limits.message
        self.farewell = ""
        self.upload: Upload | None = None
        self.counters = Counters()
        self.config: dict[str, Any] = {}
        self.gone_since: float | None = None
        self._away = ""  # why it is not waited for any more
        self.logins = Bucket(limits.logins / 60, 20)
        self._limits = limits
        self._lock = RLock()
        self._stream: Stream | None = None
        self._frames = Bucket(limits.frames, 10 * limits.frames)
        self._waiting: deque[Question] = deque()
        self._open: Question | None = None
        self._asked = 0  # number of the last question
        self._answer: Incoming | None = None
        self._unwanted = 0  # bytes still to come of an answer that nobody waits for
        self._short_heads = False  # whether it reads them
        self._may_begin = False  # whether the open question's answer was not begun here yet

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._stream is not None

    @property
    def confirmed(self) -> bool:
        """Whether there is a connection, and the client has said something since its welcome."""
        stream = self._stream
        return stream is not None and stream.confirmed

    def heard_until(self, beats: int) -> float:
        """Return until when it counts as alive that gives no sign for so many heartbeats.

        On the clock of `time.monotonic`; 0 without a connection.
        """
        stream = self._stream
        return stream.last_heard + beats * stream.heartbeat if stream else 0.0

    # questions ------------------------------------------------------------------------------------

    def ask(self, question: Question) -> None:
        """Send a question, once those before it are answered; to who was given up: none."""
        with self._lock:
            away = self._away
            if not away:
                self._waiting.append(question)
                self._next()
        if away:
            question.settle(away)

    def cancel(self, keys: set[str]) -> None:
        """Wait no more for the answers to these."""
        with self._lock:
            self._waiting = deque(q for q in self._waiting if q.key not in keys)
            if self._open is not None and self._open.key in keys:
                self._drop()
                self._next()

    def give_up(self, reason: str, *, absent: bool = False) -> None:
        """Settle all questions without an answer; if `absent`, only where nobody is connected."""
        with self._lock:
            if absent:
                if self._stream is not None:
                    return
                self._away = reason  # until it is back
            dropped = [*([self._open] if self._open else []), *self._waiting]
            self._waiting.clear()
            self._drop()
        for question in dropped:
            question.settle(reason)

    def _next(self) -> None:
        """Send the next question, where none is open."""
        if self._open is not None or not self._waiting:
            return
        self._asked += 1
        self._open = self._waiting.popleft()
        self._open.outgoing = self._outgoing(self._open)
        self._may_begin = True
        if self._stream is not None:
            self._stream.write(self._open.outgoing.frames())

    def _outgoing(self, question: Question) -> Outgoing:
        """Return a question as it is sent to this client."""
        buffers = shorten(question.buffers) if self._short_heads else question.buffers
        return Outgoing(self._asked, buffers)

    def _drop(self) -> None:
        """Wait for no answer to the open question, and say so."""
        if self._open is None:
            return
        self._open.outgoing.cancel()
        if self._stream is not None:
            self._stream.write(make("cancel", id=self._open.outgoing.id))
        if self._answer is not None:  # the rest of it may be under way
            self._unwanted = self._answer.size - self._answer.received
        self._open = self._answer = None

    # connections ----------------------------------------------------------------------------------

    def attach(self, stream: Stream, hello: Any, welcome: Callable[..., bytes], epoch: str) -> None:
        """Take a new connection, in place of one there is, and go on where the last one ended."""
        with self._lock:
            older = self._stream
            stream.instance = str(hello.instance)
            self._stream, self.gone_since, self._unwanted = stream, None, 0
            self._away, self._may_begin = "", True
            self.counters.logins += 1
            stream.counters = self.counters
            known = hello.epoch == epoch
            question = self._open
            short = names_short_heads(hello.capabilities)
            if short != self._short_heads:  # another release than before: it has read other bytes
                self._short_heads, known = short, False
                if question is not None:
                    question.outgoing = self._outgoing(question)
            if question is None or not known or hello.finished != question.outgoing.id:
                self._answer = None
            open_id = question.outgoing.id if question else 0
            kept = self._answer.received if self._answer else 0
            stream.write(welcome(node_id=self.node, open=open_id, reply_bytes=kept))
            if question is not None and not (known and open_id in (hello.finished, hello.busy)):
                resumed = known and hello.partial == open_id
                offset = min(hello.partial_bytes, question.outgoing.size) if resumed else 0
                stream.write(question.outgoing.frames(offset))
            if older is not None:
                self._replace(older, stream)
            stream.admitted = True

    def _replace(self, older: Stream, newer: Stream) -> None:
        """End a connection in whose place there is another, and tell both sides where it is."""
        if older.instance and older.instance == newer.instance:
            log.info("client %d logs in again: its older connection is ended", self.client)
            older.end(make("goodbye", reason="this client has logged in again", retry=True))
            return
        advice = (
            f"if one of the two is not yours, shut the certificate out: "
            f"flowerpress certs DIR --revoke client-{self.client}"
        )
        log.warning(
            "client %d logs in again, as another process at %s: the one at %s is sent away; %s",
            self.client,
            newer.address or "an unknown address",
            older.address or "an unknown address",
            advice,
        )
        reason = f"this client has logged in again, as another process at {newer.address}; {advice}"
        pause = 3 * older.heartbeat
        older.end(make("goodbye", reason=reason, retry=bool(older.instance), pause=pause))
        if not newer.instance:  # it would not know what to do with a note
            return
        note = f"another process of this client was connected, at {older.address}; {advice}"
        newer.write(make("beat", note=note))

    def detach(self, stream: Stream) -> bool:
        """Hear that a connection has ended; returns whether it was the client's last."""
        with self._lock:
            if self._stream is not stream:
                return False
            self._stream, self.gone_since = None, time.monotonic()
            return True

    def holds(self, stream: Stream) -> bool:
        """Whether this is its connection."""
        return self._stream is stream

    def forget(self) -> None:
        """Be as one that has been away for long."""
        with self._lock:
            self._stream = self.gone_since = None
            self._away = f"client {self.client} is away"

    def goodbye(self, frame: bytes) -> None:
        """End the connection, if there is one, with these words."""
        with self._lock:
            if self._stream is not None:
                self._stream.end(frame)

    def hang_up(self) -> None:
        """End the connection, if there is one, without a word."""
        with self._lock:
            if self._stream is not None:
                self._stream.hang_up()

    # answers --------------------------------------------------------------------------------------

    def receive(self, stream: Stream, frame: Any) -> None:
        """Take a parsed frame that came on a connection; what comes on an old one is dropped.

        Raises
        ------
        FrameError
            The frame is out of place.
        """
        with self._lock:
            if stream is not self._stream:
                return
            stream.last_heard = time.monotonic()
            stream.confirmed = True
            if (kind := kind_of(frame)) == "chunk":
                if len(frame) < _SHORT and not self._completes(len(frame)):
                    self._unsolicited()  # many short pieces cost more than their bytes
                done = self._chunk(frame)
            elif kind == "begin":
                done = self._begin(frame)
            elif kind in ("beat", "cancel"):
                self._unsolicited()
                done = None
            else:
                raise FrameError(f"a {kind} in mid-stream")
        if done is not None:
            question, answer = done
            question.settle(answer)

    def _begin(self, frame: Any) -> tuple[Question, Incoming | str] | None:
        if self._answer is not None and frame.id != self._answer.id:
            raise FrameError("an answer within an answer")
        self._unwanted = 0
        if self._open is None or frame.id != self._open.outgoing.id:
            self._unsolicited()
            self.counters.late += 1
            if frame.size > self.largest or frame.offset > frame.size:
                raise FrameError(f"an answer of {frame.size} bytes from {frame.offset} on")
            self._unwanted = frame.size - frame.offset
            return self._chunk(frame.data)
        if not self._may_begin:  # each makes a file, or takes memory
            self._unsolicited()
        self._may_begin = False
        if not 0 < frame.size <= self.largest:
            raise FrameError(
                f"an answer of {frame.size} bytes: the limit is {self.largest} (--max-answer)"
            )
        if frame.offset == 0:
            self._answer = Incoming(frame.id, frame.size)
        answer = self._answer
        if answer is None or (frame.size, frame.offset) != (answer.size, answer.received):
            raise FrameError(f"an answer that goes on from byte {frame.offset}")
        return self._chunk(frame.data)

    def needs_disk(self, frame: Any) -> bool:
        """Whether taking a frame may have to wait for a disk: no loop is to take it."""
        if (kind := kind_of(frame)) == "begin":
            return bool(frame.size > IN_MEMORY)
        answer = self._answer
        return kind == "chunk" and answer is not None and not answer.in_memory

    def _completes(self, count: int) -> bool:
        """Whether so many bytes are the last of the open question's answer."""
        return self._answer is not None and self._answer.received + count == self._answer.size

    def _chunk(self, data: bytes | memoryview) -> tuple[Question, Incoming | str] | None:
        question = self._open
        if self._answer is None or question is None:
            if len(data) > self._unwanted:
                raise FrameError(f"{len(data)} bytes that belong to no answer")
            self._unwanted -= len(data)
            return None
        done: tuple[Question, Incoming | str]
        try:
            if not self._answer.add(data):
                return None
            done = question, self._answer
            self.upload = self._answer.upload
            self._open = self._answer = None
        except OSError as error:
            log.warning("client %d's answer cannot be kept: %s", self.client, error)
            done = question, f"the server cannot keep client {self.client}'s answer"
            self._drop()
        self._next()
        return done

    def _unsolicited(self) -> None:
        if not self._frames.take():
            raise FrameError("more frames than a client may send")
