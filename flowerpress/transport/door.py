"""Who comes in: what a certificate says, and which connections have to go.

Whoever reaches the port may open connections and say nothing, take nothing, or open many. None of
that may cost the server a thread for long, or keep others out: a connection has so many seconds for
each step, and what is refused is not waited for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from cryptography import x509

from flowerpress.protocol import printable
from flowerpress.transport.denied import DenyList, key_digest
from flowerpress.transport.frames import BEAT, make
from flowerpress.transport.hub import Hub, Refused
from flowerpress.transport.loop import LoopStream
from flowerpress.transport.stream import LAST_WORDS

log = logging.getLogger("flowerpress")
CLIENT_NAME = "client-"
STREAMS = 4  # that a client may have, while older ones are being ended
REVOKED = "the certificate of client {} has been revoked"
_PAUSE = 0.25  # seconds between looks at the list of those who are shut out
_LATE = 1.5  # heartbeats after which a beat is sent that answers none
_BEATS = 3  # heartbeats without a sign of life after which the other side is taken for dead


class Identity(NamedTuple):
    """Who the other side of a connection is.

    Parameters
    ----------
    client : int or None
        The client that its certificate names; None without TLS.
    address : str
        Where it connects from.
    key : str
        Digest of the public key in its certificate, see `key_digest`; empty without TLS.
    """

    client: int | None
    address: str
    key: str = ""


def identity_of(context: Any, *, secure: bool) -> Identity:
    """Return who a certificate names; raises `Refused` for one that names no client."""
    address = str(context.peer())
    if not secure:
        return Identity(None, address)
    found = context.auth_context()
    names = found.get("x509_common_name", [])
    name = names[0].decode("utf-8", "replace") if len(names) == 1 else ""
    number = name.removeprefix(CLIENT_NAME)
    if not (name.startswith(CLIENT_NAME) and number.isascii() and number.isdigit()):
        raise Refused(f"a certificate of {printable(name)!r:.80}, which is no client")
    certificate = x509.load_pem_x509_certificate(found["x509_pem_cert"][0])
    return Identity(int(number), address, key_digest(certificate))


class Door:
    """The connections of a server, from their first message to their end.

    All of it happens on the loop's thread.

    Parameters
    ----------
    hub : Hub
        Is told of what is refused; its limits hold here.
    denied : DenyList, optional
        Certificates that are shut out.
    """

    def __init__(self, hub: Hub, denied: DenyList | None = None) -> None:
        self._hub, self._limits, self._denied = hub, hub.limits, denied
        self._loop = asyncio.get_running_loop()
        self._open: dict[LoopStream, Identity] = {}  # in the order in which they came
        self._unknown: dict[LoopStream, None] = {}  # who may be, of these
        self._timers: dict[LoopStream, asyncio.TimerHandle] = {}
        self._of_client = Counter[int]()
        self._reader = None if denied is None else self._loop.create_task(self._watch(denied))

    def close(self) -> None:
        """Read the list of those who are shut out no more."""
        if self._reader is not None:
            self._reader.cancel()

    @contextmanager
    def hold(self, stream: LoopStream, identity: Identity) -> Iterator[None]:
        """Keep a connection for as long as this lasts; raises `Refused` where there are too many.

        A client that has proven who it is may have `STREAMS`. Of those who have not, and say no
        hello, the oldest makes room: who means well says it at once.
        """
        client = identity.client
        self._check(identity)
        if client is not None:
            if self._of_client[client] >= STREAMS:
                raise Refused(f"client {client} has {STREAMS} connections", retry=True)
            self._of_client[client] += 1
        self._open[stream] = identity
        if client is None:
            self._unknown[stream] = None
            self._make_room()
        stream.on_change = partial(self._look_at, stream, identity)
        self._look_at(stream, identity)
        try:
            yield
        finally:
            stream.on_change = _nothing
            self._timers.pop(stream).cancel()
            self._unknown.pop(stream, None)
            del self._open[stream]
            if client is not None:
                self._of_client[client] -= 1
                if not self._of_client[client]:
                    del self._of_client[client]

    def _make_room(self) -> None:
        """End the oldest of those who are unknown, where there are too many."""
        for each in [each for each in self._unknown if each.admitted or each.ending]:
            del self._unknown[each]
        for each in list(self._unknown)[: max(0, len(self._unknown) - self._limits.unknown)]:
            each.end()
            each.hang_up()

    def _check(self, identity: Identity) -> None:
        """Raise `Refused` for a certificate that is shut out."""
        if self._denied is not None and identity.key in self._denied:
            raise Refused(REVOKED.format(identity.client))

    async def _watch(self, denied: DenyList) -> None:
        """Read the list again and again, and end the connections of those who are new on it."""
        while True:
            await asyncio.sleep(_PAUSE)
            if not await self._loop.run_in_executor(None, denied.look):
                continue
            for stream, identity in list(self._open.items()):
                if identity.key in denied:
                    self._hub.expel(stream, REVOKED.format(identity.client))
                    stream.end(make("goodbye", reason=REVOKED.format(identity.client)))

    def _look_at(self, stream: LoopStream, identity: Identity) -> None:
        """End a connection that has had its time for what it is at; else look again after it."""
        if (timer := self._timers.get(stream)) is not None:
            timer.cancel()
        left = self._seconds_left(stream, identity)
        again = partial(self._look_at, stream, identity)
        self._timers[stream] = self._loop.call_later(left, again)

    def _seconds_left(self, stream: LoopStream, identity: Identity) -> float:
        """Return the seconds for what a connection is at; with none left, do what is due."""
        now = time.monotonic()
        if stream.ending:
            if (left := stream.ending + LAST_WORDS - now) > 0:
                return left
            stream.hang_up()
            return LAST_WORDS
        if not stream.admitted:
            if (left := stream.opened + self._limits.hello - now) > 0:
                return left
            self._hub.refuse(identity.address, "no hello came")
            stream.end(make("goodbye", reason="no hello came", retry=True))
            return LAST_WORDS
        if stalled := stream.stalled(now):
            if (left := _BEATS * stream.heartbeat - stalled) > 0:
                return left
            who = identity.address if identity.client is None else f"client {identity.client}"
            self._hub.refuse(who, "it does not take what it is sent")
            stream.end()
            stream.hang_up()
            return LAST_WORDS
        if (left := stream.last_sent + _LATE * stream.heartbeat - now) > 0:
            return left
        stream.write(BEAT)
        return _LATE * stream.heartbeat


def _nothing() -> None:
    """Do nothing, for a connection that is over."""
