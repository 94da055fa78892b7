"""A TCP proxy on the loopback interface that counts bytes, and cuts connections when told to."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any


class Proxy:
    """Forwards connections to `port`; counts what passes each way.

    Parameters
    ----------
    port : int
        Where to.
    cut_after : list of int
        Bytes (both ways) after which the first, the second, ... connection is cut.
    delay : float
        Seconds that each piece is held back.
    """

    def __init__(self, port: int, cut_after: list[int] | None = None, delay: float = 0.0) -> None:
        self._to, self._cuts, self.delay = port, list(cut_after or []), delay
        self.up = self.down = self.connections = self.cut = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._swallowed: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._closed = False
        self.said: list[bytes] = []  # by clients, in order
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed = True
        self._listener.close()
        self.cut_all()

    def swallow(self) -> None:
        """Let nothing more through on the connections that are open now."""
        with self._lock:
            self._swallowed |= set(self._open)

    def cut_all(self) -> None:
        """Cut all connections that are open now."""
        with self._lock:
            sockets, self._open = self._open, []
        for each in sockets:
            _cut(each)

    def cut_some(self, rng: Any) -> None:
        """Cut some of the connections that are open now."""
        with self._lock:
            chosen = [each for each in self._open if rng.random() < 0.3]
            self._open = [each for each in self._open if each not in chosen]
            self.cut += len(chosen)
        for each in chosen:
            _cut(each)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                if self._closed:
                    return
                client.close()  # nobody listens there now
                continue
            with self._lock:
                limit = self._cuts.pop(0) if self._cuts else 0
                self.connections += 1
                self._open += [client, server]
            left = [limit]
            for one, other, way in ((client, server, "up"), (server, client, "down")):
                threading.Thread(
                    target=self._pump, args=(one, other, way, left), daemon=True
                ).start()

    def _pump(self, one: socket.socket, other: socket.socket, way: str, left: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(2**16):
                if one in self._swallowed:
                    continue
                if self.delay:
                    time.sleep(self.delay)
                with self._lock:
                    if way == "up":
                        self.said.append(data)
                    setattr(self, way, getattr(self, way) + len(data))
                    cut = 0 < left[0] <= len(data)
                    left[0] = max(0, left[0] - len(data))
                    self.cut += cut
                if cut:
                    break
                other.sendall(data)
        _cut(one)
        _cut(other)


def _cut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
