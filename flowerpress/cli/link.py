"""`flowerpress certs` and `flowerpress join`, and what they share with `flowerpress serve`."""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowerpress.cli.errors import FAILED, WRONG, complain

if TYPE_CHECKING:
    from flowerpress.transport.apps import App

SHIPPED = "flowerpress.simulations.flower_app"
CHECKPOINTS = "checkpoints"  # folder in --out
JOIN_HELP = """
Work as client I for a server until its run ends; exit code 0 if it ended well, 2 if this client
cannot take part until somebody changes something, 1 if all else has failed.

Connections are made again when they break, and a client that is started again goes on where it was
killed. APP is what the server runs, see `flowerpress serve --help`.
"""
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Plain text, nobody proves who they are: trials only.")
]
Certs = Annotated[
    Path | None, typer.Option(help="Folder with ca.pem and this side's .pem and .key.")
]
Metrics = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Port for Prometheus, 0: any.")
]
MetricsHost = Annotated[str, typer.Option(help="Address that Prometheus finds that port at.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands `certs` and `join`."""
    app.command("certs")(certs_command)
    app.command("join", help=JOIN_HELP)(join_command)


def certs_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    clients: Annotated[
        int | None, typer.Option(help="Clients 0 to N-1 get a certificate each.")
    ] = None,
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address of the server; may be repeated.")
    ] = None,
    days: Annotated[int, typer.Option(help="Days until they expire.")] = 365,
    revoke: Annotated[
        list[str] | None,
        typer.Option(metavar="client-I", help="Shut this certificate out; may be repeated."),
    ] = None,
) -> None:
    """Make a CA, and certificates of the server and the clients.

    Give each client ca.pem and its own client-I.pem and client-I.key, and nobody ca.key: whoever
    has that can pose as any of them. Called again for more clients, it keeps what is there.

    With --revoke client-I it notes in DIR/revoked.txt that this certificate is shut out. A server
    whose --certs is DIR, or whose --deny is that file, reads it while it serves. Called with
    --clients once more, it makes another certificate, with a new key.
    """
    from flowerpress.transport.certs import make_certs, revoke_certificate
    from flowerpress.transport.denied import DENY_LIST

    if clients is None and not revoke:
        raise ValueError("give --clients N to make certificates, or --revoke client-I")
    for name in revoke or ():
        new = revoke_certificate(folder, name)
        word = "is revoked" if new else "was revoked already"
        sys.stdout.write(f"{name} {word}: {folder / DENY_LIST}\n")
    if clients is not None:
        hosts = ("localhost", "127.0.0.1", *(host or ()))
        made = make_certs(folder, clients, hosts=hosts, days=days)
        sys.stdout.write(f"{len(made)} files made in {folder}\n")


def join_command(
    app: str,
    server: Annotated[str, typer.Option(help="HOST:PORT.")],
    client: Annotated[int, typer.Option(min=0, help="This client's number, from 0.")],
    certs: Certs = None,
    insecure: Insecure = False,
    node_config: Annotated[str, typer.Option(help="'key=value key=\"text\" ...'")] = "",
    state_dir: Annotated[
        Path | None, typer.Option(help="Memory between rounds; ~/.local/state/flowerpress.")
    ] = None,
    metrics_port: Metrics = None,
    metrics_host: MetricsHost = "127.0.0.1",
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to go on trying without a connection.")
    ] = 600,
) -> None:
    """Work for a server until its run ends."""
    from flowerpress.protocol.heap import give_back_large_memory
    from flowerpress.transport import status
    from flowerpress.transport.address import parse_address
    from flowerpress.transport.apps import parse_config
    from flowerpress.transport.join import make_client

    give_back_large_memory()
    parse_address(server, "--server")
    require_number("--patience", patience)
    found = resolve(app)
    with log_to_stderr():
        stop_on_sigterm()
        link = make_client(
            found.load("client"),
            server,
            credentials(certs, f"client-{client}", insecure=insecure),
            client,
            node_config=parse_config(node_config),
            expected={"task": found.run_config["task"]} if is_registered(app) else {},
            state_dir=state_dir,
            patience=patience,
        )
        if metrics_port is not None:
            gauges = lambda: status.client_gauges(link)  # noqa: E731
            say(f"metrics on port {status.serve_metrics(metrics_host, metrics_port, gauges)}")
        with ended_threads(), status.status_line(lambda: status.describe_client(link, client)):
            farewell = link.run()
    if not farewell.done:
        complain(farewell.reason)
        raise typer.Exit(WRONG if link.mistaken else FAILED)


@contextmanager
def ended_threads() -> Iterator[None]:
    """Wait at the end until threads have ended that began inside, for five seconds at most.

    They are the worker's, a connection's and gRPC's. A process that ends while one of them is in
    the library of gRPC or torch may be aborted by C++ ("terminate called without an active
    exception"), whatever its exit code was to be.
    """
    others = set(threading.enumerate())
    try:
        yield
    finally:
        end = time.monotonic() + 5.0
        for thread in set(threading.enumerate()) - others:
            thread.join(max(0.0, end - time.monotonic()))


def require_number(option: str, value: float | None, most: float = math.inf) -> None:
    """Raise `ValueError` for what is no number, or above `most`; None is not given."""
    if value is not None and not value <= most:
        wanted = "a number" if math.isinf(most) else f"at most {most:g}"
        raise ValueError(f"{option} is {value}: expected {wanted}")


def is_registered(name: str) -> bool:
    """Return whether an app is a task by name: a shipped one, or another package's."""
    from flowerpress.simulations.own_task import all_task_names

    return name in all_task_names()


def resolve(name: str) -> App:
    """Return the app of a name: a shipped or an own task's, or what `find_app` finds."""
    from flowerpress.cli.own_apps import own_task_app
    from flowerpress.simulations.run_config import DEFAULTS
    from flowerpress.transport.apps import App, find_app

    if is_registered(name):
        return App(f"{SHIPPED}:server_app", f"{SHIPPED}:client_app", {**DEFAULTS, "task": name})
    return own_task_app(name) or find_app(name)


def saves_itself(app: App) -> bool:
    """Return whether an app declares in its run config that it makes checkpoints and resumes."""
    return {"checkpoint", "resume"} <= app.run_config.keys()


def server_config(
    found: App, given: dict[str, Any], clients: int, out: Path, *, resume: bool = False
) -> dict[str, Any]:
    """Return the run config: the app's, with what the command line says of its files.

    Only where it makes checkpoints and resumes, as flowerpress's apps do: else `out` may be a file.
    """
    said = {"out": str(out), "checkpoint": str(out / CHECKPOINTS), "resume": resume}
    told = saves_itself(found)
    config = found.run_config | {k: v for k, v in said.items() if told and k in found.run_config}
    if found.server.startswith(SHIPPED):
        config |= {"min-available-nodes": clients, "min-train-nodes": min(2, clients)}
    return config | given


def stop_on_sigterm() -> None:
    """Let a service manager's signal end this process as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def credentials(
    certs: Path | None, name: str, *, insecure: bool
) -> tuple[bytes, bytes, bytes] | None:
    """Read this side's certificates; None, with a warning, for plain text."""
    from flowerpress.transport.certs import read_certs

    if insecure == (certs is not None):
        raise ValueError(
            "give --certs DIR (see `flowerpress certs --help`), or --insecure for a trial"
        )
    if certs is None:
        say("WARNING: --insecure: plain text, and anybody may pose as anybody")
        return None
    return read_certs(certs, name)


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Let flowerpress's log go to stderr inside the block, with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger, flower = logging.getLogger("flowerpress"), logging.getLogger("flwr")
    before = logger.level, flower.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    flower.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before[0])
        flower.setLevel(before[1])
        logger.removeHandler(handler)


def say(line: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"flowerpress: {line}\n")
    sys.stderr.flush()
