"""The server's end of the link: a gRPC service with one stream for each client."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from flowerpress.transport.address import Address, parse_address
from flowerpress.transport.denied import DenyList
from flowerpress.transport.descriptors import room_for_connections
from flowerpress.transport.door import STREAMS, Door, Identity, identity_of
from flowerpress.transport.frames import (
    MAX_FRAME,
    METHOD,
    REFUSED,
    FrameError,
    kind_of,
    make,
    parse,
)
from flowerpress.transport.hub import Hub, Refused
from flowerpress.transport.limits import Limits
from flowerpress.transport.peer import Peer
from flowerpress.transport.stream import Stream

log = logging.getLogger("flowerpress")
_IDLE = 10_000  # milliseconds that a connection may be without a stream


def _options(limits: Limits) -> list[tuple[str, int]]:
    """Return what gRPC is told.

    gRPC accepts connections by itself, before any code of ours sees them; it bounds their number,
    the time for their handshakes, and how long they may stay without a stream.
    """
    step = int(1000 * limits.hello)
    return [
        ("grpc.max_receive_message_length", MAX_FRAME),
        ("grpc.max_send_message_length", MAX_FRAME),
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", room_for_connections(limits.clients)),
        ("grpc.server_handshake_timeout_ms", step),
        ("grpc.http2.settings_timeout", step),
        ("grpc.max_connection_idle_ms", min(step, _IDLE)),
        ("grpc.max_concurrent_streams", STREAMS),
    ]


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
    denied : DenyList, optional
        Certificates that are shut out.

    Raises
    ------
    OSError
        The address cannot be listened on.
    ValueError
        The address is malformed, or more clients are allowed than open files.
    """

    def __init__(
        self,
        hub: Hub,
        bind: str,
        certs: tuple[bytes, bytes, bytes] | None,
        denied: DenyList | None = None,
    ) -> None:
        address = parse_address(bind, "--bind", listens=True)
        _require_free(address)
        self._hub, self._secure = hub, certs is not None
        options = _options(hub.limits)
        # A thread for each connection that is held; they are made as they are needed.
        most = STREAMS * hub.limits.clients + 2 * hub.limits.unknown
        self._server = grpc.server(
            ThreadPoolExecutor(most, thread_name_prefix="link"),
            options=options,
            maximum_concurrent_rpcs=most,
        )
        handler = grpc.stream_stream_rpc_method_handler(self._connect)
        _, service, method = METHOD.split("/")
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        try:
            if certs is None:
                self.port = self._server.add_insecure_port(str(address))
            else:
                ca, cert, key = certs
                credentials = grpc.ssl_server_credentials(
                    [(key, cert)], root_certificates=ca, require_client_auth=True
                )
                self.port = self._server.add_secure_port(str(address), credentials)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise OSError(f"cannot listen on {bind}: is the port in use, or the host not this one?")
        self._door = Door(hub, denied)
        self._server.start()

    def close(self, seconds: float) -> None:
        """Let connections end by themselves for so long, then end them."""
        self._server.stop(seconds).wait()
        self._door.close()

    def _connect(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Serve one connection: write in this thread, read in another."""
        try:
            identity = identity_of(context, secure=self._secure)
            stream = Stream(self._hub.limits.heartbeat, context.cancel, identity.address)
            with self._door.hold(stream, identity):
                context.add_callback(stream.end)
                reader = threading.Thread(
                    target=self._read,
                    args=(requests, stream, identity),
                    name="link read",
                    daemon=True,
                )
                reader.start()
                stream.admitted.wait()  # at most `Limits.hello` seconds: see `Door`
                yield from stream.frames()
        except Refused as refused:
            self._hub.refuse(str(context.peer()), str(refused))
            _turn_away(context, refused)

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
                    self._hub.hear_goodbye(peer, message.reason)
                    return
                known = stream.confirmed
                peer.receive(stream, message)
                if not known:
                    self._hub.confirm()
            except FrameError:
                peer.counters.malformed += 1
                raise


def _require_free(address: Address) -> None:
    """Raise `OSError` where nothing can listen: gRPC would say so in lines of its own."""
    try:
        places = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        wrong: OSError | None = None
        for family, kind, protocol, _, place in places:
            try:
                with socket.socket(family, kind, protocol) as tried:
                    if os.name == "posix":  # as gRPC does; elsewhere it would take a port in use
                        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    tried.bind(place)
                return
            except OSError as error:
                wrong = wrong or error
        raise wrong or OSError("no such host")
    except OSError as error:
        raise OSError(f"cannot listen on {address}: {error.strerror or error}") from None


def _turn_away(context: Any, refused: Refused) -> None:
    """End a call with a reason, and wait for nobody: a status needs no room at the other side."""
    context.set_trailing_metadata(((REFUSED, "later" if refused.retry else "for good"),))
    code = grpc.StatusCode.UNAVAILABLE if refused.retry else grpc.StatusCode.PERMISSION_DENIED
    context.abort(code, str(refused)[:300])
