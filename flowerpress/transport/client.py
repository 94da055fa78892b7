"""The client's end of the link: stays connected, takes questions, sends answers, loses none."""

from __future__ import annotations

import json
import logging
import platform
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import grpc

from flowerpress.compressors.kernels.paging import LARGE
from flowerpress.protocol import printable
from flowerpress.protocol.blob import Data
from flowerpress.protocol.heap import give_back_freed_memory
from flowerpress.transport.address import parse_address
from flowerpress.transport.attempts import Attempts
from flowerpress.transport.frames import (
    BEAT,
    MAX_FRAME,
    METHOD,
    PROTOCOL,
    REFUSED,
    FrameError,
    json_text,
    kind_of,
    make,
    parse,
)
from flowerpress.transport.heads import SHORT_HEADS
from flowerpress.transport.pipes import Incoming, Outgoing
from flowerpress.transport.reach import Trouble, explain, proxy_of
from flowerpress.transport.stream import LAST_WORDS, Stream

log = logging.getLogger("flowerpress")
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_FRAME),
    ("grpc.max_send_message_length", MAX_FRAME),
    ("grpc.use_local_subchannel_pool", 1),
]
_HEARTBEAT = 5.0  # until the server has said its own
_SHORTEST, _LONGEST = 0.05, 3600.0  # seconds that it may be
Handle = Callable[[Any, Incoming], list[Data]]


class UnfitError(ValueError):
    """A client cannot take part in the run that the server has: says why."""


def _no_matter(welcome: Any) -> None:
    """Take part in any run."""


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
    enter : callable, optional
        Given the server's welcome, raises `UnfitError` where this client cannot take part.
    unfit : callable, optional
        Returns why this client cannot take part, once its last answer has shown that; else "".

    Attributes
    ----------
    mistaken : bool
        Whether the work has ended because this client cannot take part, or cannot connect, until
        somebody changes something.
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
        enter: Callable[[Any], None] = _no_matter,
        unfit: Callable[[], str] = lambda: "",
    ) -> None:
        self._address = parse_address(server, "--server")
        self._server, self._certs, self._handle = str(self._address), certs, handle
        self._proxy = proxy_of(self._address)
        self._attempts = Attempts(self._server, patience)
        self._check, self._unfit = enter, unfit
        self._about = {
            "protocol": PROTOCOL,
            "client": client,
            "versions": json_text(_versions()),
            "capabilities": json.dumps(["resume", SHORT_HEADS]),
            "node_config": json_text(node_config),
            "instance": secrets.token_hex(8),
        }
        self.state = "connecting"
        self.mistaken = False
        self.answered = self.logins = 0
        self._trouble: Trouble | None = None  # of the last attempt
        self._goodbye = ""  # of a server that says to come again
        self._farewell: Farewell | None = None  # once the end is decided here
        self._lock = threading.Lock()
        self._epoch = ""
        self._welcome: Any = None
        self._stream: Stream | None = None
        self._partial: Incoming | None = None
        self._busy = 0
        self._answer: Outgoing | None = None  # to the last question
        self._questions: queue.SimpleQueue[tuple[str, Incoming] | None] = queue.SimpleQueue()

    def run(self) -> Farewell:
        """Work until the server says goodbye, or cannot be reached for `patience` seconds.

        What nobody can heal by waiting (a wrong certificate, a task that does not fit) ends it
        within seconds.
        """
        worker = threading.Thread(target=self._work, name="link work", daemon=True)
        worker.start()
        attempts = self._attempts
        try:
            while True:
                logins = self.logins
                farewell = self._farewell or self._connect() or self._farewell
                if farewell is not None:
                    return farewell
                if self.logins > logins:
                    attempts.ended(self.state)
                elif reason := attempts.failed(self.state, self._trouble):
                    self.mistaken = attempts.in_vain
                    return Farewell(False, reason)
                time.sleep(attempts.wait())
        finally:
            self._questions.put(None)
            if not self._busy:  # else it may take long, and nobody waits for its answer
                worker.join(LAST_WORDS)

    # one connection -------------------------------------------------------------------------------

    def _connect(self) -> Farewell | None:
        """Connect, and serve the connection to its end; returns how the run ended, if it has."""
        self._trouble, self._goodbye = None, ""
        ended = threading.Event()
        with self._channel() as channel:
            stream = Stream(_HEARTBEAT, lambda: None)
            stream.write(self._hello())
            call = channel.stream_stream(METHOD)(stream.frames())
            stream.hang_up = call.cancel
            watch = threading.Thread(target=self._watch, args=(stream, ended), daemon=True)
            watch.start()
            try:
                for frame in call:
                    farewell = self._receive(stream, parse(frame))
                    if farewell is not None:
                        return farewell
                self.state = self._goodbye or "the server has closed the connection"
            except FrameError as wrong:
                self.state = f"the server sent {wrong}"
                log.warning("%s", self.state)
            except grpc.RpcError as error:
                return self._hear_failure(error)
            finally:
                with self._lock:
                    self._stream = None
                ended.set()
                stream.end()
                call.cancel()
        return None

    def _hear_failure(self, error: Any) -> Farewell | None:
        """Note why a call has failed; returns how the run ended, if the server says so."""
        details = _details(error)
        told = dict(error.trailing_metadata() or ()) if isinstance(error, grpc.Call) else {}
        if told.get(REFUSED) == "for good":
            self.mistaken = True
            return Farewell(False, printable(details))
        if REFUSED not in told:
            secure = self._certs is not None
            self._trouble = explain(details, self._address, secure=secure, proxy=self._proxy)
            details = self._trouble.reason
        self.state = printable(details)
        log.debug("connection ended: %s", self.state)
        return None

    def _channel(self) -> grpc.Channel:
        # No proxy reaches this machine's own loopback interface.
        options = [*OPTIONS, ("grpc.enable_http_proxy", int(not self._address.is_loopback))]
        if self._certs is None:
            return grpc.insecure_channel(self._server, options=options)
        ca, cert, key = self._certs
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        return grpc.secure_channel(self._server, credentials, options=options)

    def _hello(self) -> bytes:
        with self._lock:
            where: dict[str, Any] = {"epoch": self._epoch, "busy": self._busy}
            if self._answer is not None:
                where["finished"] = self._answer.id
            if self._partial is not None:
                where |= {"partial": self._partial.id, "partial_bytes": self._partial.received}
        return make("hello", **self._about, **where)

    def _watch(self, stream: Stream, ended: threading.Event) -> None:
        """End a connection on which nothing comes."""
        while not ended.wait(stream.heartbeat / 4):
            if stream.ending and time.monotonic() - stream.ending > LAST_WORDS:
                stream.hang_up()
            if time.monotonic() - stream.last_heard > 3 * stream.heartbeat:
                log.warning("no sign of life from %s", self._server)
                stream.hang_up()
                return

    # frames ---------------------------------------------------------------------------------------

    def _receive(self, stream: Stream, frame: Any) -> Farewell | None:
        """Take a frame; returns how the run ended, if it says so."""
        stream.last_heard = time.monotonic()
        if self._farewell is not None:  # what is under way still is not for this client
            return None
        if (kind := kind_of(frame)) == "chunk":
            if self._partial is not None:
                self._take(frame)
        elif kind == "begin":
            self._begin(stream, frame)
        elif kind == "welcome":
            self._enter(stream, frame)
        elif kind == "cancel":
            self._cancel(frame.id)
        elif kind == "beat" and frame.note:
            log.warning("%s: %s", self._server, printable(frame.note))
        elif kind == "goodbye":
            return self._hear_goodbye(frame)
        return None

    def _hear_goodbye(self, frame: Any) -> Farewell | None:
        reason = printable(frame.reason)
        if not frame.retry:
            self.mistaken = frame.unfit
            return Farewell(frame.done, reason)
        self._goodbye = reason
        if frame.pause > 0:  # another process of this client has come
            self._attempts.replaced(reason, min(frame.pause, _LONGEST))
        return None

    def _leave(self, stream: Stream | None, reason: str) -> None:
        """End the work because this client cannot take part, and let the server know why."""
        self._farewell, self.mistaken = Farewell(False, reason), True
        if stream is not None:
            stream.end(make("goodbye", reason=reason[:300], unfit=True))

    def _enter(self, stream: Stream, welcome: Any) -> None:
        """Log in; what was sent to another start of the server is of no use to this one."""
        if not _SHORTEST <= welcome.heartbeat <= _LONGEST:
            raise FrameError(f"a heartbeat of {welcome.heartbeat} seconds")
        try:
            self._check(welcome)
        except UnfitError as wrong:
            self._leave(stream, str(wrong))
            return
        with self._lock:
            if welcome.epoch != self._epoch:
                self._epoch, self._partial, self._busy, self._answer = welcome.epoch, None, 0, None
            self._welcome, self._stream = welcome, stream
            stream.heartbeat = welcome.heartbeat
            stream.write(BEAT)  # which says that it stays, and ends the heartbeat's wait
            self._attempts.connected()
            self.state, self.logins = "connected", self.logins + 1
            answer = self._answer
            if answer is not None and answer.id == welcome.open:
                stream.write(answer.frames(welcome.reply_bytes))
        own, node = self._about["client"], welcome.node_id
        log.info("connected to %s as client %d (Flower's node %d)", self._server, own, node)

    def _begin(self, stream: Stream, frame: Any) -> None:
        with self._lock:
            if self._answer is not None and frame.id == self._answer.id:
                stream.write(self._answer.frames())  # the server has lost it
                return
            if frame.id == self._busy or frame.size == 0:
                return
            self._answer = None  # the server asks on: it has the last answer, or waits for none
            partial = self._partial
            if frame.offset == 0:
                partial = _room_for(frame)
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
        while self._work_on(self._questions.get()):
            pass

    def _work_on(self, item: tuple[str, Incoming] | None) -> bool:
        """Answer a question, and hold nothing of it; returns whether there may be more."""
        if item is None:
            return False
        epoch, question = item
        with self._lock:
            welcome = self._welcome
            if not self._is_open(epoch, question.id):
                return True
        if question.size >= LARGE:
            give_back_freed_memory()
        answer = Outgoing(question.id, self._handle(welcome, question))
        with self._lock:
            if not self._is_open(epoch, question.id):
                return True
            self._busy, self._answer = 0, answer
            self.answered += 1
            stream = self._stream
            if stream is not None:
                stream.write(answer.frames())
        if reason := self._unfit():
            self._leave(stream, reason)
        return True

    def _is_open(self, epoch: str, number: int) -> bool:
        """Whether a question is neither cancelled nor of an earlier start of the server."""
        return (epoch, number) == (self._epoch, self._busy)


def _room_for(frame: Any) -> Incoming:
    """Return where a question goes; `FrameError` where there is no room for what it says it is."""
    try:
        return Incoming(frame.id, frame.size, in_memory=frame.size)
    except (MemoryError, ValueError, OverflowError) as error:
        raise FrameError(
            f"a message of {frame.size} bytes, for which there is no room: {error}"
        ) from None


def _details(error: grpc.RpcError) -> str:
    """Return what gRPC says of a failed call."""
    return str(error.details() if isinstance(error, grpc.Call) else error)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("flowerpress", "flwr", "flwr-nightly"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
