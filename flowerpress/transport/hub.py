"""All clients of a server: who may log in, who is there, who is given up."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from flowerpress.protocol import printable
from flowerpress.transport.deadlines import Deadlines
from flowerpress.transport.frames import PROTOCOL, json_object, json_text, make
from flowerpress.transport.heads import SHORT_HEADS
from flowerpress.transport.limits import Limits, Lines
from flowerpress.transport.peer import Peer
from flowerpress.transport.stream import Stream

log = logging.getLogger("flowerpress")
_PER_SECOND = 25  # clients who give signs of life; of more, each does so more rarely
_BEATS = 3  # heartbeats without a sign of life after which the other side is taken for dead


class Refused(Exception):  # noqa: N818  (an answer more than an error)
    """A client may not log in. `retry` says whether it may be worth trying again later."""

    def __init__(self, reason: str, *, retry: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry


class Hub:
    """The clients of one run.

    Parameters
    ----------
    run_id : int
        The run's number; clients keep their memory by it.
    run_config : mapping
        What clients are told of the run.
    clients : int
        How many clients the run expects, for those who want to know in how many parts data are.
    limits : Limits
        What a client may take.
    proven : bool
        Whether clients prove who they are. If so, a second login ends the first, for it is the same
        client, and says so where it is another process; if not, it is refused as long as the first
        one is alive.
    """

    def __init__(
        self,
        run_id: int,
        run_config: Mapping[str, Any] | None = None,
        *,
        clients: int = 0,
        limits: Limits | None = None,
        proven: bool = True,
    ) -> None:
        self.run_id, self.limits, self.proven = run_id, limits or Limits(), proven
        self.epoch = secrets.token_hex(8)
        self.peers: dict[int, Peer] = {}
        self.changed = threading.Condition()
        self.refusals = 0
        self._lines = Lines()
        self._largest: int | None = None  # bytes of an answer, as the run says
        self._clients, self._config = clients, json_text(run_config or {})
        self._deadlines = Deadlines("link watch")

    def heartbeat(self) -> float:
        """Return the seconds between signs of life of a client that comes now.

        It grows with the clients that are there or expected, for each sign takes time here.
        """
        clients = max(len(self.peers), self._clients)
        return max(self.limits.heartbeat, clients / _PER_SECOND)

    def admit(self, stream: Stream, hello: Any, proven: int | None) -> Peer:
        """Log a client in.

        Parameters
        ----------
        hello : Hello frame
            What it says.
        proven : int or None
            The client that it has proven to be.

        Raises
        ------
        Refused
            It may not: says why.
        FrameError
            The hello is malformed.
        """
        if hello.protocol != PROTOCOL:
            raise Refused(f"protocol {hello.protocol}, this server speaks {PROTOCOL}")
        if proven is not None and hello.client != proven:
            raise Refused(f"client {proven}'s certificate, and client {hello.client}'s hello")
        if hello.client >= 2**31:
            raise Refused(f"client {hello.client}: ids are below 2**31")
        config = json_object(hello.node_config, "node_config")
        with self.changed:
            peer = self._peer(int(hello.client))
            if peer.connected and not self.proven and self._alive(peer):
                raise Refused(f"client {peer.client} is logged in already", retry=True)
            if not peer.logins.take():
                raise Refused(f"client {peer.client} logs in too often", retry=True)
            peer.config = config
            stream.heartbeat = self.heartbeat()
            welcome = partial(self._welcome, heartbeat=stream.heartbeat)
            peer.attach(stream, hello, welcome, self.epoch)
            self.changed.notify_all()
        self._watch(peer, stream)
        log.info("client %d is here (%s)", peer.client, printable(hello.versions)[:200])
        return peer

    def confirm(self) -> None:
        """Hear that a client has said something since it was let in: it stays."""
        with self.changed:
            self.changed.notify_all()

    def _peer(self, client: int) -> Peer:
        peer = self.peers.get(client)
        if peer is None:
            if len(self.peers) >= self.limits.clients:
                raise Refused(f"{len(self.peers)} clients are here, no more may be", retry=True)
            peer = self.peers[client] = Peer(client, self.limits)
            self._set_largest(peer)
        return peer

    def allow_answers(self, nbytes: int) -> None:
        """Hear how long an answer of this run may be; what `Limits.message` says goes before."""
        with self.changed:
            self._largest = nbytes
            for peer in self.peers.values():
                self._set_largest(peer)

    def _set_largest(self, peer: Peer) -> None:
        if self.limits.message is None and self._largest is not None:
            peer.largest = self._largest

    def _alive(self, peer: Peer) -> bool:
        return time.monotonic() < peer.heard_until(_BEATS)

    def _welcome(self, **fields: Any) -> bytes:
        return make(
            "welcome",
            protocol=PROTOCOL,
            epoch=self.epoch,
            run_id=self.run_id,
            clients=self._clients,
            run_config=self._config,
            capabilities=json.dumps([SHORT_HEADS]),
            **fields,
        )

    def hear_goodbye(self, peer: Peer, reason: str) -> None:
        """Hear why a client leaves for good; each reason is logged once.

        One that has answered questions has given the reason to whoever asked.
        """
        reason = printable(reason) or "it says no reason"
        if reason != peer.farewell:
            level = logging.INFO if peer.confirmed else logging.WARNING
            log.log(level, "client %d leaves: %s", peer.client, reason)
        peer.farewell = reason
        self._let_go(peer, reason)

    def dismiss(self, node: int, why: str) -> None:
        """Send a client away that cannot take part in this run."""
        for peer in list(self.peers.values()):
            if peer.node == node:
                peer.goodbye(make("goodbye", reason=printable(why), unfit=True))
                self._let_go(peer, why)

    def expel(self, stream: Stream, why: str) -> None:
        """Wait no more for whoever has this connection; it is ended elsewhere."""
        for peer in list(self.peers.values()):
            if peer.holds(stream):
                log.warning("client %d: %s: its connection is ended", peer.client, why)
                self._let_go(peer, why)

    def _let_go(self, peer: Peer, why: str) -> None:
        """Let a client be as one that has been away for long."""
        peer.forget()
        peer.give_up(why)
        with self.changed:
            self.changed.notify_all()

    def leave(self, peer: Peer, stream: Stream) -> None:
        """Hear that a connection has ended."""
        if peer.detach(stream):
            log.info("client %d has gone", peer.client)
            away = partial(self._give_up, peer, peer.gone_since)
            self._deadlines.at(time.monotonic() + self.limits.grace, away)
            with self.changed:
                self.changed.notify_all()

    def online(self) -> list[Peer]:
        """Return who is there, or has not been away for long."""
        with self.changed:
            return [
                peer
                for _, peer in sorted(self.peers.items())
                if peer.connected or not self._given_up(peer)
            ]

    def _given_up(self, peer: Peer) -> bool:
        since = peer.gone_since
        return since is None or time.monotonic() - since > self.limits.grace

    def _watch(self, peer: Peer, stream: Stream) -> None:
        """End a connection once nothing has come on it for three heartbeats."""
        if not peer.holds(stream):
            return
        if self._alive(peer):
            self._deadlines.at(peer.heard_until(_BEATS), partial(self._watch, peer, stream))
        else:
            log.warning("client %d gives no sign of life", peer.client)
            stream.hang_up()

    def _give_up(self, peer: Peer, since: float | None) -> None:
        """Ask a client no more that has been away since then."""
        if peer.gone_since == since:
            peer.give_up(f"client {peer.client} is away", absent=True)

    def refuse(self, who: str, why: str) -> None:
        """Count what was refused, and log it; not each of very many."""
        with self.changed:
            self.refusals += 1
        if line := self._lines.let(f"{who}: refused: {printable(why)}"):
            log.warning("%s", line)

    def close(self, *, done: bool, reason: str = "", retry: bool = False) -> None:
        """Say goodbye to all; with `retry`, they are told to come back."""
        self._deadlines.close()
        for peer in list(self.peers.values()):
            peer.give_up(reason or "the run has ended")
            peer.goodbye(make("goodbye", done=done, reason=reason, retry=retry))
