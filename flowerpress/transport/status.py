"""What a server and a client say of themselves while they work: a line, and Prometheus metrics."""

from __future__ import annotations

import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import TCPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from flowerpress.extras import import_failure
from flowerpress.transport.client import LinkClient
from flowerpress.transport.serve import Service

_LIVE, _LOG = 0.5, 30.0  # seconds between lines on a terminal, and in a log


@contextmanager
def status_line(describe: Callable[[], str]) -> Iterator[None]:
    """Show what `describe` says, on one line of a terminal, or from time to time in a log."""
    out, live = sys.stderr, sys.stderr.isatty()
    stop = threading.Event()

    def show() -> None:
        last = ""
        while not stop.wait(_LIVE if live else _LOG):
            text = describe()
            if live:
                columns = shutil.get_terminal_size().columns - 1
                out.write(f"\r\x1b[2K{text[:columns]}")
            elif text != last:
                out.write(text + "\n")
            last = text
            out.flush()

    thread = threading.Thread(target=show, name="status", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        out.write(("\r\x1b[2K" if live else "") + describe() + "\n")
        out.flush()


def describe_server(service: Service) -> str:
    """Return a server's status.

    Examples
    --------
    ``7 of 8 clients · round 12 of 30 · loss 0.21, accuracy 0.94 · 14 ms an exchange · since
    this start down 3.2 MB, up 0.1 MB``
    """
    hub, grid = service.hub, service.grid
    here = sum(peer.connected for peer in list(hub.peers.values()))
    parts = [f"{here} of {max(service.clients, len(hub.peers))} clients"]
    if grid.waiting is not None:
        parts.append("a round waits: {} of {} are there".format(*grid.waiting))
    if grid.rounds:
        last, of = max(grid.rounds), service.rounds
        parts.append(f"round {last} of {of}" if of else f"round {last}")
        parts += _metrics([grid.rounds[number] for number in sorted(grid.rounds)])
    if grid.exchanges:
        parts.append(f"{1e3 * grid.exchanges[-1]['seconds']:.0f} ms an exchange")
    down, up = grid.total_bytes()
    # The log's last line and results.json have all of a run: a server that was resumed has less.
    parts.append(f"since this start down {_size(down)}, up {_size(up)}")
    if hub.refusals:
        parts.append(f"{hub.refusals} refused")
    return " · ".join(parts)


def _metrics(rounds: list[Any]) -> list[str]:
    """Return what the last round that was evaluated came to, at most three numbers of it."""
    for record in reversed(rounds):
        found = getattr(record, "metrics", None) or getattr(record, "evaluate", None) or {}
        numbers = [(k, v) for k, v in found.items() if isinstance(v, int | float)]
        if numbers:
            return [", ".join(f"{name} {value:.4g}" for name, value in numbers[:3])]
    return []


def describe_client(client: LinkClient, number: int) -> str:
    """Return a client's status.

    Examples
    --------
    ``client 3 · connected · 12 answers``
    """
    return f"client {number} · {client.state} · {client.answered} answers"


def _size(count: int) -> str:
    """Return a number of bytes, short.

    Examples
    --------
    >>> _size(999), _size(123456), _size(5 * 10**9)
    ('999 B', '123.5 kB', '5.0 GB')
    """
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000 or unit == "GB":
            break
    return f"{size:.1f} {unit}"


# --- Prometheus -----------------------------------------------------------------------------------


def serve_metrics(host: str, port: int, collect: Callable[[], dict[str, tuple[str, float]]]) -> int:
    """Serve gauges at ``http://host:port/metrics``, to anybody; returns the port.

    One request is served at a time, and has two seconds for each step: whoever connects and says
    nothing takes one open file and one thread, and no more.

    Parameters
    ----------
    host : str
        The address to listen on.
    port : int
        0: any that is free.
    collect : callable
        Returns what each gauge means, and its value.

    Raises
    ------
    ImportError
        prometheus-client is not installed: says how to.
    ValueError
        The address cannot be listened on.
    """
    try:
        from prometheus_client import CollectorRegistry, make_wsgi_app
        from prometheus_client.core import GaugeMetricFamily
    except ImportError as error:
        what, package = "--metrics-port", "prometheus-client"
        raise import_failure(error, what, package, "prometheus_client") from error

    class Gauges:
        def collect(self) -> Iterator[Any]:
            for name, (meaning, value) in collect().items():
                yield GaugeMetricFamily(f"flowerpress_{name}", meaning, value=value)

    registry = CollectorRegistry()
    registry.register(Gauges())
    try:
        server = _MetricsServer((host, port), _Quiet)
    except OSError as error:
        raise ValueError(
            f"--metrics-port: cannot listen on {host}, port {port}: {error.strerror or error}"
        ) from None
    server.set_app(make_wsgi_app(registry))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_address[1])


class _Quiet(WSGIRequestHandler):
    timeout = 2  # seconds that a read or a write may take

    def log_message(self, *_: object) -> None:
        """Log no requests."""


class _MetricsServer(WSGIServer):
    def __init__(self, address: tuple[str, int], handler: type[_Quiet]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Listen; without a look-up of this host's name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, *_: object) -> None:
        """Say nothing of a request that broke off."""


def server_gauges(service: Service) -> dict[str, tuple[str, float]]:
    """Return a server's gauges."""
    hub, grid = service.hub, service.grid
    peers = list(hub.peers.values())
    down, up = grid.total_bytes()
    last = grid.exchanges[-1]["seconds"] if grid.exchanges else 0.0
    return {
        "clients_connected": ("Clients with a connection", sum(p.connected for p in peers)),
        "clients_known": ("Clients that have logged in", len(peers)),
        "logins": ("Logins of all clients", sum(p.counters.logins for p in peers)),
        "rounds": ("Rounds that have ended", max(grid.rounds, default=0)),
        "exchanges": ("Messages sent to a cohort and answered", len(grid.exchanges)),
        "exchange_seconds": ("Duration of the last exchange", last),
        "sent_bytes": ("Bytes of frames sent", down),
        "received_bytes": ("Bytes of frames received", up),
        "late_answers": ("Answers too late or twice", sum(p.counters.late for p in peers)),
        "refused": ("Connections ended for what they sent", hub.refusals),
    }


def client_gauges(client: LinkClient) -> dict[str, tuple[str, float]]:
    """Return a client's gauges."""
    return {
        "connected": ("Whether there is a connection", float(client.state == "connected")),
        "logins": ("Connections so far", client.logins),
        "answers": ("Questions answered", client.answered),
    }
