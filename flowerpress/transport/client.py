"""The client's end of the link: stays connected, takes questions, sends answers, loses none."""

from __future__ import annotations

import logging
import platform
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import grpc

from flowerpress.protocol import printable
from flowerpress.transport.frames import (
    BEAT,
    MAX_FRAME,
    METHOD,
    PROTOCOL,
    FrameError,
    json_text,
    kind_of,
    make,
    parse,
)
from flowerpress.transport.pipes import Incoming, Outgoing
from flowerpress.transport.stream import Stream

log = logging.getLogger("flowerpress")
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_FRAME),
    ("grpc.max_send_message_length", MAX_FRAME),
    ("grpc.use_local_subchannel_pool", 1),
]
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 15.0  # seconds between attempts to connect
_HEARTBEAT = 5.0  # until the server has said its own
_SHORTEST, _LONGEST = 0.05, 3600.0  # seconds that it may be
Handle = Callable[[Any, Incoming], list[bytes]]


class Farewell(NamedTuple):
    """How a client's work has ended: well, or why not."""

    done: bool
    reason: str


class LinkClient:
    """One client's connection to a server, for as long as the run lasts.

    Parameters
    ----------
    server : str
        ``HOST:PORT``.
    certs : tuple of bytes or None
        The CA's certificate, this client's, and its key, in PEM. None: plain text.
    client : int
        Its id, the same as in the certificate.
    node_config : mapping
        What the server is told of this node.
    handle : callable
        Given the server's welcome and a question, returns the answer. Called in a thread of its
        own, one question after the other; must not raise.
    patience : float
        Seconds to go on trying without a connection.
    """

    def __init__(
        self,
        server: str,
        certs: tuple[bytes, bytes, bytes] | None,
        client: int,
        node_config: Mapping[str, Any],
        handle: Handle,
        *,
        patience: float = 600.0,
    ) -> None:
        self._server, self._certs, self._handle = server, certs, handle
        self._patience = patience
        self._about = {
            "protocol": PROTOCOL,
            "client": client,
            "versions": json_text(_versions()),
            "capabilities": '["resume"]',
            "node_config": json_text(node_config),
        }
        self.state = "connecting"
        self.answered = self.logins = 0
        self._lock = threading.Lock()
        self._epoch = ""
        self._welcome: Any = None
        self._stream: Stream | None = None
        self._partial: Incoming | None = None
        self._busy = 0
        self._answer: Outgoing | None = None  # to the last question
        self._questions: queue.SimpleQueue[tuple[str, Incoming] | None] = queue.SimpleQueue()

    def run(self) -> Farewell:
        """Work until the server says goodbye, or cannot be reached for `patience` seconds."""
        worker = threading.Thread(target=self._work, name="link work", daemon=True)
        worker.start()
        pause, last, said = _FIRST_PAUSE, time.monotonic(), ""
        try:
            while True:
                logins = self.logins
                farewell = self._connect()
                if farewell is not None:
                    return farewell
                if self.state != said:
                    said = self.state
                    log.warning("%s: %s", self._server, said)
                now = time.monotonic()
                if self.logins > logins:
                    pause, last = _FIRST_PAUSE, now
                elif now - last > self._patience:
                    return Farewell(False, f"{self._server} was not reached: {self.state}")
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            self._questions.put(None)

    # one connection -------------------------------------------------------------------------------

    def _connect(self) -> Farewell | None:
        """Connect, and serve the connection to its end; returns how the run ended, if it has."""
        with self._channel() as channel:
            stream = Stream(_HEARTBEAT, lambda: None)
            stream.write(self._hello())
            call = channel.stream_stream(METHOD)(stream.frames())
            stream.hang_up = call.cancel
            watch = threading.Thread(target=self._watch, args=(stream,), daemon=True)
            watch.start()
            try:
                for frame in call:
                    farewell = self._receive(stream, parse(frame))
                    if farewell is not None:
                        return farewell
                self.state = "the server has closed the connection"
            except FrameError as wrong:
                self.state = f"the server sent {wrong}"
                log.warning("%s", self.state)
            except grpc.RpcError as error:
                self.state = _details(error)
                log.debug("connection ended: %s", self.state)
            finally:
                with self._lock:
                    self._stream = None
                stream.ended.set()
                stream.end()
                call.cancel()
        return None

    def _channel(self) -> grpc.Channel:
        if self._certs is None:
            return grpc.insecure_channel(self._server, options=OPTIONS)
        ca, cert, key = self._certs
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        return grpc.secure_channel(self._server, credentials, options=OPTIONS)

    def _hello(self) -> bytes:
        with self._lock:
            where: dict[str, Any] = {"epoch": self._epoch, "busy": self._busy}
            if self._answer is not None:
                where["finished"] = self._answer.id
            if self._partial is not None:
                where |= {"partial": self._partial.id, "partial_bytes": self._partial.received}
        return make("hello", **self._about, **where)

    def _watch(self, stream: Stream) -> None:
        """End a connection on which nothing comes."""
        while not stream.ended.wait(stream.heartbeat / 4):
            if time.monotonic() - stream.last_heard > 3 * stream.heartbeat:
                log.warning("no sign of life from %s", self._server)
                stream.hang_up()
                return

    # frames ---------------------------------------------------------------------------------------

    def _receive(self, stream: Stream, frame: Any) -> Farewell | None:
        """Take a frame; returns how the run ended, if it says so."""
        stream.last_heard = time.monotonic()
        if (kind := kind_of(frame)) == "chunk":
            if self._partial is not None:
                self._take(frame)
        elif kind == "begin":
            self._begin(stream, frame)
        elif kind == "welcome":
            self._enter(stream, frame)
        elif kind == "cancel":
            self._cancel(frame.id)
        elif kind == "goodbye":
            reason = printable(frame.reason)
            if not frame.retry:
                return Farewell(frame.done, reason)
            self.state = reason
        return None

    def _enter(self, stream: Stream, welcome: Any) -> None:
        """Log in; what was sent to another start of the server is of no use to this one."""
        if not _SHORTEST <= welcome.heartbeat <= _LONGEST:
            raise FrameError(f"a heartbeat of {welcome.heartbeat} seconds")
        with self._lock:
            if welcome.epoch != self._epoch:
                self._epoch, self._partial, self._busy, self._answer = welcome.epoch, None, 0, None
            self._welcome, self._stream = welcome, stream
            stream.heartbeat = welcome.heartbeat
            stream.write(BEAT)  # which ends the wait of the heartbeat before
            self.state, self.logins = "connected", self.logins + 1
            answer = self._answer
            if answer is not None and answer.id == welcome.open:
                stream.write(answer.frames(welcome.reply_bytes))
        log.info("connected to %s as node %d", self._server, welcome.node_id)

    def _begin(self, stream: Stream, frame: Any) -> None:
        with self._lock:
            if self._answer is not None and frame.id == self._answer.id:
                stream.write(self._answer.frames())  # the server has lost it
                return
            if frame.id == self._busy or frame.size == 0:
                return
            partial = self._partial
            if frame.offset == 0:
                partial = Incoming(frame.id, frame.size, in_memory=frame.size)
            elif partial is None or (frame.id, frame.offset) != (partial.id, partial.received):
                raise FrameError(f"a message that goes on from byte {frame.offset}")
            self._partial = partial
        self._take(frame.data)

    def _take(self, data: bytes | memoryview) -> None:
        partial = self._partial
        if partial is not None and partial.add(data):
            with self._lock:
                self._partial, self._busy = None, partial.id
                self._forget_older()
                self._questions.put((self._epoch, partial))

    def _forget_older(self) -> None:
        """Drop the questions that nobody waits for any more, and that were not begun."""
        while not self._questions.empty():
            self._questions.get()

    def _cancel(self, number: int) -> None:
        with self._lock:
            if self._answer is not None and self._answer.id == number:
                self._answer.cancel()
            if self._partial is not None and self._partial.id == number:
                self._partial = None
            if self._busy == number:
                self._busy = 0

    # the work -------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Answer questions, in this thread, one after the other."""
        while (item := self._questions.get()) is not None:
            epoch, question = item
            with self._lock:
                welcome = self._welcome
                if not self._is_open(epoch, question.id):
                    continue
            answer = Outgoing(question.id, self._handle(welcome, question))
            with self._lock:
                if not self._is_open(epoch, question.id):
                    continue
                self._busy, self._answer = 0, answer
                self.answered += 1
                if self._stream is not None:
                    self._stream.write(answer.frames())

    def _is_open(self, epoch: str, number: int) -> bool:
        """Whether a question is neither cancelled nor of an earlier start of the server."""
        return (epoch, number) == (self._epoch, self._busy)


def _details(error: grpc.RpcError) -> str:
    """Return what gRPC says of a failed call."""
    details = error.details() if isinstance(error, grpc.Call) else error
    return printable(str(details))[:200]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("flowerpress", "flwr", "flwr-nightly"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
