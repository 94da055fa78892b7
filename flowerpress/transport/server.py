"""The server's end of the link: a gRPC service with one stream for each client, on one thread."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import grpc.aio

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
from flowerpress.transport.hang_up import Place, place_of, shut_down
from flowerpress.transport.hub import Hub, Refused
from flowerpress.transport.limits import Limits
from flowerpress.transport.loop import LoopStream, LoopThread
from flowerpress.transport.peer import Peer

log = logging.getLogger("flowerpress")
_IDLE = 10_000  # milliseconds that a connection may be without a stream
_CUT = 5.0  # seconds for connections that are cut at the end to be gone


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
        self._door: Door
        self._server: grpc.aio.Server | None = None
        self._to_shut = set[Place]()
        self._loop = LoopThread("link loop")
        try:
            self.port = self._loop.run(self._start(str(address), certs, denied, options))
            if not self.port:
                raise OSError(
                    f"cannot listen on {bind}: is the port in use, or the host not this one?"
                )
        except BaseException:
            self.close(0)
            raise

    async def _start(
        self,
        address: str,
        certs: tuple[bytes, bytes, bytes] | None,
        denied: DenyList | None,
        options: list[tuple[str, int]],
    ) -> int:
        """Listen; returns the port, 0 where that cannot be."""
        limits = self._hub.limits
        most = STREAMS * limits.clients + 2 * limits.unknown
        self._door = Door(self._hub, denied)
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=most)
        handler = grpc.stream_stream_rpc_method_handler(self._connect)
        _, service, method = METHOD.split("/")
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        try:
            if certs is None:
                port = server.add_insecure_port(address)
            else:
                ca, cert, key = certs
                credentials = grpc.ssl_server_credentials(
                    [(key, cert)], root_certificates=ca, require_client_auth=True
                )
                port = server.add_secure_port(address, credentials)
        except RuntimeError:
            return 0
        if port:
            await server.start()
            self._server = server
        return int(port)

    def close(self, seconds: float) -> None:
        """Let connections end by themselves for so long, then end them."""
        if self._loop.closed:
            return
        try:
            self._loop.run(self._stop(seconds))
        finally:
            self._loop.close()

    async def _stop(self, seconds: float) -> None:
        # gRPC wants to be let go of while the loop is there still: by this frame, at its end.
        server, self._server = self._server, None
        if server is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(server.stop(seconds), seconds + _CUT)
            self._door.close()
            await self._loop.calm(_CUT)

    async def _connect(self, _: object, context: Any) -> None:
        """Serve one connection."""
        try:
            identity = identity_of(context, secure=self._secure)
            hang_up = partial(self._hang_up, asyncio.current_task(), identity.address)
            stream = LoopStream(
                self._hub.limits.heartbeat,
                self._loop,
                partial(self._loop.soon, hang_up),
                identity.address,
            )
            with self._door.hold(stream, identity):
                await self._converse(context, stream, identity)
        except Refused as refused:
            self._hub.refuse(str(context.peer()), str(refused))
            await _turn_away(context, refused)

    def _hang_up(self, handler: asyncio.Task[Any] | None, address: str) -> None:
        """End a connection without a word, and the task that handles it."""
        if handler is None or handler.done():
            return
        handler.cancel()
        if (place := place_of(address)) is not None:
            self._to_shut.add(place)
            if len(self._to_shut) == 1:
                self._loop.loop.run_in_executor(None, self._shut_down)

    def _shut_down(self) -> None:
        """Shut down the connections that are to be, all with one look at the open files."""
        places, self._to_shut = self._to_shut, set()
        shut_down(places, self.port)

    async def _converse(self, context: Any, stream: LoopStream, identity: Identity) -> None:
        """Write in this task, and read in another, until the end of what is to be written."""
        reader = asyncio.create_task(self._read(context, stream, identity))
        try:
            await stream.send_all(partial(_send, context))
        finally:
            reader.cancel()

    async def _read(self, context: Any, stream: LoopStream, identity: Identity) -> None:
        """Take what a client sends, until its connection ends or it says what it may not."""
        peer: Peer | None = None
        who = identity.address
        try:
            peer = self._login(await _receive(context), stream, identity)
            who = f"client {peer.client}"
            await self._serve(context, stream, peer)
        except (FrameError, Refused) as wrong:
            self._hub.refuse(who, str(wrong))
            retry = isinstance(wrong, Refused) and wrong.retry
            stream.end(make("goodbye", reason=str(wrong)[:300], retry=retry))
        except EOFError:
            pass  # the connection broke, or was closed
        except Exception:
            log.exception("%s: the connection ended", who)
        finally:
            stream.end()
            if peer is not None:
                self._hub.leave(peer, stream)

    def _login(self, frame: bytes, stream: LoopStream, identity: Identity) -> Peer:
        hello = parse(frame)
        if kind_of(hello) != "hello":
            raise FrameError("the first frame is no hello")
        return self._hub.admit(stream, hello, identity.client)

    async def _serve(self, context: Any, stream: LoopStream, peer: Peer) -> None:
        while True:
            frame = await _receive(context)
            peer.counters.received += len(frame)
            try:
                message = parse(frame)
                if (kind := kind_of(message)) == "goodbye":
                    self._hub.hear_goodbye(peer, message.reason)
                    return
                known = stream.confirmed
                if peer.needs_disk(message):
                    await self._loop.loop.run_in_executor(None, peer.receive, stream, message)
                else:
                    peer.receive(stream, message)
                if kind == "beat":
                    stream.answer_beat()
                if not known:
                    self._hub.confirm()
            except FrameError:
                peer.counters.malformed += 1
                raise


async def _receive(context: Any) -> bytes:
    """Return the next frame; raises `EOFError` at the end, and where the connection is cut."""
    try:
        frame = await context.read()
    except Exception:  # gRPC has no public class for it
        raise EOFError from None
    if frame is grpc.aio.EOF:
        raise EOFError
    return bytes(frame)


async def _send(context: Any, frame: bytes) -> None:
    """Send a frame, and wait until there was room; where the connection is cut, end its task."""
    try:
        await context.write(frame)
    except Exception:  # as above
        raise asyncio.CancelledError from None


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


async def _turn_away(context: Any, refused: Refused) -> None:
    """End a call with a reason, and wait for nobody: a status needs no room at the other side."""
    code = grpc.StatusCode.UNAVAILABLE if refused.retry else grpc.StatusCode.PERMISSION_DENIED
    told = (REFUSED, "later" if refused.retry else "for good")
    await context.abort(code, str(refused)[:300], trailing_metadata=(told,))
