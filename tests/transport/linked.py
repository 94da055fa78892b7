"""A server and clients over the link, all in this process, each client in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from flowerpress.transport import Limits, Service
from flowerpress.transport.client import Farewell, LinkClient
from flowerpress.transport.join import make_client

QUICK = Limits(heartbeat=1.0, grace=3.0, hello=2.0)
LIVE = {"state-store": "live"}


def wait_for(ready: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is so; fails where it is not within so many seconds."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.01)


def run_in_thread(work: Callable[[], Any]) -> Future[Any]:
    """Start `work` in a thread; returns what becomes of it."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def start_client(
    port: int, app: ClientApp, i: int, **config: Any
) -> tuple[LinkClient, Future[Any]]:
    """Start client i; returns it, and the future of its `Farewell`."""
    client = make_client(
        app, f"127.0.0.1:{port}", None, i, node_config={**LIVE, **config}, patience=20.0
    )
    return client, run_in_thread(client.run)


def start_server(main: Callable[[Grid, Context], Any], clients: int, **options: Any) -> Any:
    """Start a server; returns it, and the future of its report."""
    certs = options.pop("certs", None)
    service = Service("127.0.0.1:0", certs, clients, **{"limits": QUICK, **options})
    app = ServerApp()
    app.main()(main)
    return service, run_in_thread(lambda: service.run(app))


@contextmanager
def connected(app: ClientApp, clients: int, **options: Any) -> Any:
    """Have a grid with so many clients; says goodbye at the end, and checks that all heard it."""
    ready: Future[Grid] = Future()
    over = threading.Event()

    def main(grid: Grid, context: Context) -> None:
        ready.set_result(grid)
        over.wait(60)

    service, report = start_server(main, clients, **options)
    with ExitStack() as stack:
        stack.callback(report.result, 30)
        stack.callback(over.set)
        started = [start_client(service.port, app, i) for i in range(clients)]
        grid = ready.result(30)
        yield service, grid, [client for client, _ in started]
        over.set()
        for _, farewell in started:
            assert farewell.result(30) == Farewell(True, "")


def echo_app() -> ClientApp:
    """Return a ClientApp that answers with what it was sent."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(message.content, reply_to=message)

    return app


def ask_all(grid: Grid, nodes: tuple[int, ...], timeout: float) -> dict[int, Message]:
    """Send each of these nodes an empty message; returns what they answer."""
    sent = [Message(RecordDict(), node, "train", group_id="g") for node in nodes]
    return {r.metadata.src_node_id: r for r in grid.send_and_receive(sent, timeout=timeout)}
