"""Who comes in: what a certificate says, and which connections have to go.

Whoever reaches the port may open connections and say nothing, take nothing, or open many. None of
that may cost the server a thread for long, or keep others out: a connection has so many seconds for
each step, and what is refused is not waited for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from cryptography import x509

from flowerpress.protocol import printable
from flowerpress.transport.denied import DenyList, key_digest
from flowerpress.transport.frames import make
from flowerpress.transport.hub import Hub, Refused
from flowerpress.transport.stream import LAST_WORDS, Stream

log = logging.getLogger("flowerpress")
CLIENT_NAME = "client-"
STREAMS = 4  # that a client may have, while older ones are being ended
REVOKED = "the certificate of client {} has been revoked"
_PAUSE = 0.25  # seconds between looks at all connections
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

    Parameters
    ----------
    hub : Hub
        Is told of what is refused; its limits hold here.
    denied : DenyList, optional
        Certificates that are shut out.
    """

    def __init__(self, hub: Hub, denied: DenyList | None = None) -> None:
        self._hub, self._limits, self._denied = hub, hub.limits, denied
        self._lock = threading.Lock()
        self._open: dict[Stream, Identity] = {}  # in the order in which they came
        self._of_client = Counter[int]()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="link door", daemon=True).start()

    def close(self) -> None:
        """Look after connections no more."""
        self._closed.set()

    @contextmanager
    def hold(self, stream: Stream, identity: Identity) -> Iterator[None]:
        """Keep a connection for as long as this lasts; raises `Refused` where there are too many.

        A client that has proven who it is may have `STREAMS`. Of those who have not, and say no
        hello, the oldest makes room: who means well says it at once.
        """
        client = identity.client
        self._check(identity)
        with self._lock:
            if client is not None:
                if self._of_client[client] >= STREAMS:
                    raise Refused(f"client {client} has {STREAMS} connections", retry=True)
                self._of_client[client] += 1
            self._open[stream] = identity
            waiting = [each for each, who in self._open.items() if _is_unknown(each, who)]
        for each in waiting[: max(0, len(waiting) - self._limits.unknown)]:
            each.end()
            each.hang_up()
        try:
            yield
        finally:
            with self._lock:
                del self._open[stream]
                if client is not None:
                    self._of_client[client] -= 1
                    if not self._of_client[client]:
                        del self._of_client[client]

    def _check(self, identity: Identity) -> None:
        """Raise `Refused` for a certificate that is shut out."""
        if self._denied is not None and identity.key in self._denied:
            raise Refused(REVOKED.format(identity.client))

    def connections(self) -> list[tuple[Stream, Identity]]:
        """Return all that are open."""
        with self._lock:
            return list(self._open.items())

    def _watch(self) -> None:
        while not self._closed.wait(_PAUSE):
            now = time.monotonic()
            if self._denied is not None and self._denied.look():
                self._shut_out(self._denied)
            for stream, identity in self.connections():
                self._look_at(stream, identity, now)

    def _shut_out(self, denied: DenyList) -> None:
        """End the connections of certificates that have been revoked."""
        for stream, identity in self.connections():
            if identity.key in denied:
                self._hub.expel(stream, REVOKED.format(identity.client))
                stream.end(make("goodbye", reason=REVOKED.format(identity.client)))

    def _look_at(self, stream: Stream, identity: Identity, now: float) -> None:
        """End a connection that has had its time for what it is at."""
        if stream.ending:
            if now - stream.ending > LAST_WORDS:
                stream.hang_up()
        elif not stream.admitted.is_set():
            if now - stream.opened > self._limits.hello:
                self._hub.refuse(identity.address, "no hello came")
                stream.end(make("goodbye", reason="no hello came", retry=True))
        elif stream.stalled(now) > _BEATS * self._limits.heartbeat:
            who = identity.address if identity.client is None else f"client {identity.client}"
            self._hub.refuse(who, "it does not take what it is sent")
            stream.end()
            stream.hang_up()


def _is_unknown(stream: Stream, identity: Identity) -> bool:
    return identity.client is None and not (stream.admitted.is_set() or stream.ending)
