"""The server's end of the link: a gRPC service with one stream for each client."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import grpc

from flowerpress.protocol import printable
from flowerpress.transport.frames import MAX_FRAME, METHOD, FrameError, kind_of, make, parse
from flowerpress.transport.hub import Hub, Refused
from flowerpress.transport.peer import Peer
from flowerpress.transport.stream import Stream

log = logging.getLogger("flowerpress")
_CLIENT_NAME = "client-"
_STREAMS = 4  # connections that a client may have while older ones are being ended
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_FRAME),
    ("grpc.max_send_message_length", MAX_FRAME),
    ("grpc.so_reuseport", 0),
]


class Identity(NamedTuple):
    """Who the other side of a connection is.

    Parameters
    ----------
    client : int or None
        The client that its certificate names; None without TLS.
    address : str
        Where it connects from.
    """

    client: int | None
    address: str


class LinkServer:
    """Listens for clients.

    Parameters
    ----------
    hub : Hub
        Who may log in.
    bind : str
        ``HOST:PORT``; port 0: any that is free.
    certs : tuple of bytes, optional
        The CA's certificate, the server's, and the server's key, in PEM. Clients must have a
        certificate of that CA, whose common name is ``client-I``. None: plain text, and clients are
        believed who they are.

    Raises
    ------
    OSError
        The address cannot be listened on.
    """

    def __init__(self, hub: Hub, bind: str, certs: tuple[bytes, bytes, bytes] | None) -> None:
        self._hub, self._secure = hub, certs is not None
        self._lock, self._streams = threading.Lock(), Counter[int]()
        most = hub.limits.clients + 8  # those whose login is being refused need a thread too
        self._server = grpc.server(
            ThreadPoolExecutor(most, thread_name_prefix="link"),
            options=OPTIONS,
            maximum_concurrent_rpcs=most,
        )
        handler = grpc.stream_stream_rpc_method_handler(self._connect)
        _, service, method = METHOD.split("/")
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        try:
            if certs is None:
                self.port = self._server.add_insecure_port(bind)
            else:
                ca, cert, key = certs
                credentials = grpc.ssl_server_credentials(
                    [(key, cert)], root_certificates=ca, require_client_auth=True
                )
                self.port = self._server.add_secure_port(bind, credentials)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise OSError(f"cannot listen on {bind}: is the port in use, or the host not this one?")
        self._server.start()

    def close(self, seconds: float) -> None:
        """Let connections end by themselves for so long, then end them."""
        self._server.stop(seconds).wait()

    def _connect(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Serve one connection: write in this thread, read in another."""
        stream = Stream(self._hub.limits.heartbeat, context.cancel)
        try:
            identity = _identity(context, secure=self._secure)
            held = self._hold(identity)
        except Refused as refused:
            self._hub.refuse(str(context.peer()), str(refused))
            yield make("goodbye", reason=str(refused), retry=refused.retry)
            return
        context.add_callback(stream.end)
        reader = threading.Thread(
            target=self._read, args=(requests, stream, identity), name="link read", daemon=True
        )
        reader.start()
        with held:
            if not stream.admitted.wait(self._hub.limits.hello):
                self._hub.refuse(identity.address, "no hello came")
                stream.end(make("goodbye", reason="no hello came", retry=True))
            yield from stream.frames()

    def _hold(self, identity: Identity) -> AbstractContextManager[None]:
        """Take one of the connections that a proven client may have; raises `Refused`."""
        client = identity.client
        if client is None:
            return nullcontext()
        with self._lock:
            if self._streams[client] >= _STREAMS:
                raise Refused(f"client {client} has {_STREAMS} connections", retry=True)
            self._streams[client] += 1
        return self._held(client)

    @contextmanager
    def _held(self, client: int) -> Iterator[None]:
        try:
            yield
        finally:
            with self._lock:
                self._streams[client] -= 1

    def _read(self, requests: Iterator[bytes], stream: Stream, identity: Identity) -> None:
        """Take what a client sends, until its connection ends or it says what it may not."""
        peer: Peer | None = None
        who = identity.address
        try:
            peer = self._login(next(requests), stream, identity)
            who = f"client {peer.client}"
            self._serve(requests, stream, peer)
        except (FrameError, Refused) as wrong:
            self._hub.refuse(who, str(wrong))
            retry = isinstance(wrong, Refused) and wrong.retry
            stream.end(make("goodbye", reason=str(wrong)[:300], retry=retry))
        except (grpc.RpcError, StopIteration):
            pass  # the connection broke, or was closed
        except Exception as error:
            if type(error) is not Exception:  # which gRPC raises where a stream is cut
                log.exception("%s: the connection ended", who)
        finally:
            stream.end()
            if peer is not None:
                self._hub.leave(peer, stream)

    def _login(self, frame: bytes, stream: Stream, identity: Identity) -> Peer:
        hello = parse(frame)
        if kind_of(hello) != "hello":
            raise FrameError("the first frame is no hello")
        return self._hub.admit(stream, hello, identity.client)

    def _serve(self, requests: Iterator[bytes], stream: Stream, peer: Peer) -> None:
        for frame in requests:
            peer.counters.received += len(frame)
            try:
                message = parse(frame)
                if kind_of(message) == "goodbye":
                    return
                peer.receive(stream, message)
            except FrameError:
                peer.counters.malformed += 1
                raise


def _identity(context: Any, *, secure: bool) -> Identity:
    """Return who a certificate names; raises `Refused` for one that names no client."""
    address = str(context.peer())
    if not secure:
        return Identity(None, address)
    names = context.auth_context().get("x509_common_name", [])
    name = names[0].decode("utf-8", "replace") if len(names) == 1 else ""
    number = name.removeprefix(_CLIENT_NAME)
    if not (name.startswith(_CLIENT_NAME) and number.isascii() and number.isdigit()):
        raise Refused(f"a certificate of {printable(name)!r:.80}, which is no client")
    return Identity(int(number), address)
