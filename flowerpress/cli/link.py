"""`flowerpress certs`, `flowerpress serve` and `flowerpress join`: training over a network."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowerpress.cli.errors import complain

if TYPE_CHECKING:
    from flowerpress.transport.apps import App

FAILED = 1
SERVE_HELP = """
Run the server of APP: wait for its clients, train, write DIR/result.json, and end.

APP is a shipped task (`flowerpress list tasks`), a directory with a Flower `pyproject.toml`, or a
Python file or module with `server_app` and `client_app`, or with a task function `task_fn`.

**Example**

- `flowerpress certs certs --clients 2 --host server.example`
- `flowerpress serve digits --bind 0.0.0.0:9400 --certs certs --min-clients 2 --out results \\
  --run-config 'strategy="ef21" compressor="topk:0.05" lr=0.5'`
- on each client's machine, with `ca.pem` and its own two files in `certs`:
  `flowerpress join digits --server server.example:9400 --certs certs --client 0`
"""
JOIN_HELP = """
Work as client I for a server until its run ends; exit code 0 if it ended well.

Connections are made again when they break, and a client that is started again goes on where it was
killed. APP is what the server runs, see `flowerpress serve --help`.
"""
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Plain text, nobody proves who they are: trials only.")
]
Certs = Annotated[
    Path | None, typer.Option(help="Folder with ca.pem and this side's .pem and .key.")
]
Metrics = Annotated[int | None, typer.Option(help="Port for Prometheus, 0: any.")]
MetricsHost = Annotated[str, typer.Option(help="Address that Prometheus finds that port at.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("certs")(certs_command)
    app.command("serve", help=SERVE_HELP)(serve_command)
    app.command("join", help=JOIN_HELP)(join_command)


def certs_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    clients: Annotated[int, typer.Option(help="Clients 0 to N-1 get a certificate each.")],
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address of the server; may be repeated.")
    ] = None,
    days: Annotated[int, typer.Option(help="Days until they expire.")] = 365,
) -> None:
    """Make a CA, and certificates of the server and the clients.

    Give each client ca.pem and its own client-I.pem and client-I.key, and nobody ca.key: whoever
    has that can pose as any of them. Called again for more clients, it keeps what is there.
    """
    from flowerpress.transport.certs import make_certs

    hosts = ("localhost", "127.0.0.1", *(host or ()))
    made = make_certs(folder, clients, hosts=hosts, days=days)
    sys.stdout.write(f"{len(made)} files made in {folder}\n")


def serve_command(
    app: str,
    bind: Annotated[str, typer.Option(help="HOST:PORT to listen on; port 0: any.")],
    min_clients: Annotated[int, typer.Option(min=1, help="Clients to wait for.")],
    certs: Certs = None,
    insecure: Insecure = False,
    run_config: Annotated[str, typer.Option(help="'key=value key=\"text\" ...'")] = "",
    out: Annotated[Path, typer.Option(help="Folder for result.json and all else.")] = Path("out"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, if there is one.")
    ] = False,
    metrics_port: Metrics = None,
    metrics_host: MetricsHost = "127.0.0.1",
    max_clients: Annotated[int, typer.Option(help="Clients that may log in.")] = 256,
    max_answer: Annotated[float, typer.Option(min=0.001, help="Largest answer, in MB.")] = 4096,
    grace: Annotated[
        float, typer.Option(min=0.1, help="Seconds a client may be away before it is absent.")
    ] = 30,
) -> None:
    """Run the server of an app."""
    # Set but empty, gRPC logs failed handshakes, and does not complain of its log level.
    os.environ.setdefault("GRPC_VERBOSITY", "")
    from flowerpress.transport import status
    from flowerpress.transport.apps import parse_config
    from flowerpress.transport.limits import Limits
    from flowerpress.transport.serve import Service, keep_run_id, run_id_of, write_result

    found = resolve(app)
    config = server_config(found, parse_config(run_config), min_clients, out, resume=resume)
    if min_clients > max_clients:
        raise ValueError(f"--min-clients {min_clients} is more than --max-clients {max_clients}")
    refuse_another_run(config, resume=resume)
    server_app = found.load("server")
    stop_on_sigterm()
    limits = Limits(clients=max_clients, message=int(1e6 * max_answer), grace=grace)
    log_to_stderr()
    run_id, services = run_id_of(out, resume=resume), list[Service]()
    if metrics_port is not None:  # before the server listens: what fails here must end the process
        gauges = lambda: status.server_gauges(services[0]) if services else {}  # noqa: E731
        say(f"metrics on port {status.serve_metrics(metrics_host, metrics_port, gauges)}")
    service = Service(
        bind,
        credentials(certs, "server", insecure=insecure),
        min_clients,
        run_config=config,
        run_id=run_id,
        limits=limits,
    )
    services.append(service)
    say(f"listening on port {service.port} for {min_clients} clients")
    with ExitStack() as stack:
        stack.enter_context(status.status_line(lambda: status.describe_server(service)))
        result = {"app": app, "run_config": config}
        try:
            keep_run_id(out, run_id)
            result |= service.run(server_app) | {"status": "done"}
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            result |= service.report() | {"status": "failed", "reason": reason}
            raise
        finally:
            path = write_result(out, result)
    say(f"result in {path}")


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
        float, typer.Option(help="Seconds to go on trying without a connection.")
    ] = 600,
) -> None:
    """Work for a server until its run ends."""
    from flowerpress.transport import status
    from flowerpress.transport.apps import parse_config
    from flowerpress.transport.join import make_client

    if ":" not in server:
        raise ValueError(f"--server {server!r} is not HOST:PORT")
    found = resolve(app)
    log_to_stderr()
    stop_on_sigterm()
    link = make_client(
        found.load("client"),
        server,
        credentials(certs, f"client-{client}", insecure=insecure),
        client,
        node_config=parse_config(node_config),
        expected={"task": found.run_config["task"]} if is_shipped(app) else {},
        state_dir=state_dir,
        patience=patience,
    )
    if metrics_port is not None:
        gauges = lambda: status.client_gauges(link)  # noqa: E731
        say(f"metrics on port {status.serve_metrics(metrics_host, metrics_port, gauges)}")
    with status.status_line(lambda: status.describe_client(link, client)):
        farewell = link.run()
    if not farewell.done:
        complain(farewell.reason)
        raise typer.Exit(FAILED)


def is_shipped(name: str) -> bool:
    """Return whether an app is a shipped task."""
    from flowerpress.simulations.tasks import task_names

    return name in task_names()


def resolve(name: str) -> App:
    """Return the app of a name: a shipped or an own task's, or what `find_app` finds."""
    from flowerpress.cli.own_apps import own_task_app
    from flowerpress.simulations.run_config import DEFAULTS
    from flowerpress.transport.apps import App, find_app

    if is_shipped(name):
        module = "flowerpress.simulations.flower_app"
        return App(f"{module}:server_app", f"{module}:client_app", {**DEFAULTS, "task": name})
    return own_task_app(name) or find_app(name)


def server_config(
    found: App, given: dict[str, Any], clients: int, out: Path, *, resume: bool = False
) -> dict[str, Any]:
    """Return the run config: the app's, with what the command line says where it has the keys."""
    said = {"out": str(out), "checkpoint": str(out / "checkpoints"), "resume": resume}
    config = found.run_config | {k: v for k, v in said.items() if k in found.run_config}
    if found.server.startswith("flowerpress.simulations.flower_app"):
        config |= {"min-available-nodes": clients, "min-train-nodes": min(2, clients)}
    return config | given


def refuse_another_run(config: dict[str, Any], *, resume: bool) -> None:
    """Raise `ValueError` where there are checkpoints of a run that is not to be resumed."""
    folder = Path(str(config.get("checkpoint") or "."))
    if config.get("checkpoint") and not resume and any(folder.glob("round-*.safetensors")):
        raise ValueError(f"{folder} holds a run: --resume goes on with it, or give another --out")


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


def log_to_stderr() -> None:
    """Let flowerpress's log go to stderr, with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("flowerpress")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logging.getLogger("flwr").setLevel(logging.WARNING)


def say(line: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"flowerpress: {line}\n")
    sys.stderr.flush()
