"""`flowerpress serve`: the server of a training run over a network."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowerpress.cli.errors import FAILED, complain
from flowerpress.cli.link import (
    CHECKPOINTS,
    SHIPPED,
    Certs,
    Insecure,
    Metrics,
    MetricsHost,
    credentials,
    log_to_stderr,
    require_number,
    resolve,
    saves_itself,
    say,
    server_config,
    stop_on_sigterm,
)

if TYPE_CHECKING:
    from flowerpress.transport.apps import App
    from flowerpress.transport.limits import Limits
    from flowerpress.transport.serve import RunFile, Service

MOST_MB = 1e9  # that one can ask for
SERVE_HELP = """
Run the server of APP: wait for its clients, train, write what has come of it to --out, and end.

APP is a shipped task (`flowerpress list tasks`), a directory with a Flower `pyproject.toml`, or a
Python file or module with `server_app` and `client_app`, or with a task function `task_fn`.

**Example**

- `flowerpress certs certs --clients 2 --host server.example`
- `flowerpress serve digits --bind 0.0.0.0:9400 --certs certs --min-clients 2 --out results \\
  --run-config 'strategy="ef21" compressor="topk:0.05" lr=0.5'`
- on each client's machine, with `ca.pem` and its own two files in `certs`:
  `flowerpress join digits --server server.example:9400 --certs certs --client 0`
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve", help=SERVE_HELP)(serve_command)


def serve_command(
    app: str,
    bind: Annotated[
        str, typer.Option(help="HOST:PORT to listen on; port 0: any; IPv6 as [::]:PORT.")
    ],
    min_clients: Annotated[int, typer.Option(min=1, help="Clients to wait for.")],
    certs: Certs = None,
    insecure: Insecure = False,
    run_config: Annotated[str, typer.Option(help="'key=value key=\"text\" ...'")] = "",
    out: Annotated[Path, typer.Option(help="Folder of this run: result.json and all else.")] = Path(
        "out"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, if there is one.")
    ] = False,
    checkpoint_every: Annotated[
        int,
        typer.Option(min=0, help="Rounds between checkpoints of an app that makes none; 0: never."),
    ] = 1,
    deny: Annotated[
        Path | None, typer.Option(help="List of revoked certificates; revoked.txt in --certs.")
    ] = None,
    metrics_port: Metrics = None,
    metrics_host: MetricsHost = "127.0.0.1",
    max_clients: Annotated[
        int | None,
        typer.Option(min=1, help="Clients that may log in; 2048, or what open files allow."),
    ] = None,
    max_answer: Annotated[
        float | None,
        typer.Option(min=0.001, help="Largest answer, in MB; as the model allows, unless given."),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0.1, help="Seconds a client may be away before it is absent.")
    ] = 30,
) -> None:
    """Run the server of an app."""
    # Set but empty, gRPC logs failed handshakes, and does not complain of its log level.
    os.environ.setdefault("GRPC_VERBOSITY", "")
    from flowerpress.protocol.heap import give_back_large_memory
    from flowerpress.transport.address import parse_address
    from flowerpress.transport.grpc_log import limited_stderr
    from flowerpress.transport.limits import Limits

    give_back_large_memory()

    parse_address(bind, "--bind", listens=True)
    require_number("--grace", grace)
    require_number("--max-answer", max_answer, MOST_MB)
    most = clients_allowed(min_clients, max_clients)
    plan = prepare(resolve(app), run_config, min_clients, out, checkpoint_every, resume=resume)
    server_app = plan.app.load("server")
    stop_on_sigterm()
    message = None if max_answer is None else int(1e6 * max_answer)
    limits = Limits(clients=most, message=message, grace=grace)
    pair, denied = credentials(certs, "server", insecure=insecure), deny_list(certs, deny)
    services = list[Any]()
    with ExitStack() as stack:
        stack.enter_context(limited_stderr())
        stack.enter_context(log_to_stderr())
        if metrics_port is not None:  # before the server listens: what fails here must end it
            show_metrics(services, metrics_host, metrics_port)
        service = plan.listen(bind, pair, limits, denied)
        services.append(service)
        say(f"listening on port {service.port} for {min_clients} clients")
        run(service, server_app, {"app": app, "run_config": plan.config}, plan)


def run(service: Service, server_app: Any, about: dict[str, Any], plan: Plan) -> None:
    """Run the app, and write what has come of it, however it ends."""
    from flowerpress.transport import status

    result = dict(about)
    try:
        with status.status_line(lambda: status.describe_server(service)):
            plan.keep()
            result |= service.run(server_app) | {"status": "done"}
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        keep_result(plan.out, result | service.report() | {"status": "failed", "reason": reason})
        if isinstance(error, OSError):  # the machine's, and no mistake in the command
            complain(f"{reason}; start it again with --resume once that is mended")
            raise typer.Exit(FAILED) from None
        raise
    if not keep_result(plan.out, result):
        raise typer.Exit(FAILED)


def keep_result(out: Path, result: dict[str, Any]) -> bool:
    """Write result.json; returns whether that went well."""
    from flowerpress.transport.serve import write_result

    try:
        say(f"result in {write_result(out, result)}")
    except OSError as error:
        complain(f"result.json cannot be written: {error}")
        return False
    return True


@dataclass(frozen=True)
class Plan:
    """What is to be served, checked before anybody connects.

    Parameters
    ----------
    app : App
        What is run.
    config : dict
        The run config.
    run : RunFile
        Its number, and for how many clients it was started first.
    clients : int
        How many to wait for.
    out : Path
        Where all files go.
    every : int
        Rounds between checkpoints, where the app makes none; 0: never.
    resume : bool
        Whether to go on with what is there.
    """

    app: App
    config: dict[str, Any]
    run: RunFile
    clients: int
    out: Path
    every: int
    resume: bool

    def check_files(self) -> None:
        """Raise `ValueError` for a folder that cannot be written, and for damaged checkpoints."""
        from flowerpress.strategies import Checkpoints
        from flowerpress.worker.node import check_folder

        results, checkpoints = self.out, self.out / CHECKPOINTS
        if self.app.server.startswith(SHIPPED):
            results, checkpoints = (
                Path(str(self.config.get(key) or usual))
                for key, usual in (("out", results), ("checkpoint", checkpoints))
            )
        for folder in (self.out, results, checkpoints):
            there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
            check_folder(there, "results", "folder (--out)")
        if self.resume and (self.app.server.startswith(SHIPPED) or not saves_itself(self.app)):
            Checkpoints(checkpoints).check()

    def keep(self, saved: bool = True) -> None:
        """Note the run for its next start; `saved`: whether it can go on then."""
        from flowerpress.transport.serve import keep_run

        keep_run(self.out, self.run._replace(saved=saved))

    def listen(
        self,
        bind: str,
        pair: tuple[bytes, bytes, bytes] | None,
        limits: Limits,
        denied: Path | None,
    ) -> Service:
        """Begin to listen for clients."""
        from flowerpress.transport.grid import Saving
        from flowerpress.transport.serve import Service

        saving = None
        if not saves_itself(self.app):
            saving = Saving(self.out / CHECKPOINTS, self.every, self.resume, self.keep)
        return Service(
            bind,
            pair,
            self.clients,
            run_config=self.config,
            run_id=self.run.run_id,
            limits=limits,
            partitions=self.run.clients,
            saving=saving,
            denied=denied,
        )


def prepare(app: App, given: str, clients: int, out: Path, every: int, *, resume: bool) -> Plan:
    """Check all that can be known of a run before anybody connects.

    Raises
    ------
    ValueError, OSError, ImportError
        What was given is wrong, cannot go on, or lacks something: one line.
    """
    from flowerpress.transport.apps import check_given, parse_config

    said = parse_config(given)
    if not app.server.startswith(SHIPPED):
        check_given(said, app.run_config)
    config = server_config(app, said, clients, out, resume=resume)
    run_file = earlier_or_new(app, clients, out, resume=resume)
    refuse_another_run(config, out, resume=resume)
    if app.server.startswith(SHIPPED):
        from flowerpress.simulations.flower_app import check_run

        check_run(config, run_file.clients)
    plan = Plan(app, config, run_file, clients, out, every, resume)
    plan.check_files()
    return plan


def earlier_or_new(app: App, clients: int, out: Path, *, resume: bool) -> RunFile:
    """Return the run that is there and goes on, or a new one.

    Raises
    ------
    ValueError
        It cannot go on, or not with so many clients.
    """
    from flowerpress.transport.serve import RunFile, find_run, new_run

    found = find_run(out) if resume else None
    if found is None:
        return new_run(clients)
    if not found.saved and not saves_itself(app):
        raise ValueError(
            f"--resume: of the run in {out} nothing was saved, since its strategy is none of "
            "flowerpress's: begin anew without --resume, or let the app declare `checkpoint` and "
            "`resume` in its run config and save the run itself"
        )
    before = found.clients or clients
    if clients > before:
        raise ValueError(
            f"--min-clients {clients}: the run in {out} was started with {before} clients, and its "
            f"data are in {before} parts: resume it with --min-clients {before} or fewer, or name "
            "another --out for a new run"
        )
    if clients < before:
        say(
            f"WARNING: the run was started with {before} clients, and goes on with {clients}: the "
            f"data stay in {before} parts, and the parts of clients who are away are not seen"
        )
    return RunFile(found.run_id, before)


def refuse_another_run(config: dict[str, Any], out: Path, *, resume: bool) -> None:
    """Raise `ValueError` where there are checkpoints of a run that is not to be resumed."""
    if resume:
        return
    for folder in {Path(str(config.get("checkpoint") or out / CHECKPOINTS)), out / CHECKPOINTS}:
        if any(folder.glob("round-*.safetensors")):
            raise ValueError(
                f"{folder} holds a run: --resume goes on with it, or give another --out"
            )


def clients_allowed(wanted: int, said: int | None) -> int:
    """Return how many clients may log in where so many are waited for.

    Raises
    ------
    ValueError
        Fewer were said.
    """
    from flowerpress.transport.descriptors import clients_that_fit
    from flowerpress.transport.limits import CLIENTS

    if said is None:
        most = max(wanted, CLIENTS)
        fitting = clients_that_fit(most)
        if fitting < most:
            most = max(wanted, fitting)  # where not even those fit, listening says so
            say(f"room for {most} clients: for more, raise the hard limit of open files")
        return most
    if wanted > said:
        raise ValueError(f"--min-clients {wanted} is more than --max-clients {said}")
    return said


def deny_list(certs: Path | None, given: Path | None) -> Path | None:
    """Return the list of revoked certificates; one that is named must be there."""
    from flowerpress.transport.denied import DENY_LIST

    if given is None:
        return None if certs is None else certs / DENY_LIST
    if certs is None:
        raise ValueError("--deny needs --certs: with --insecure nobody has a certificate")
    if not given.is_file():
        raise ValueError(f"--deny: no file {given}; an empty one revokes nothing")
    return given


def show_metrics(services: list[Service], host: str, port: int) -> None:
    """Serve the metrics of the service that the list has, once it has one."""
    from flowerpress.transport import status

    def gauges() -> dict[str, tuple[str, float]]:
        return status.server_gauges(services[0]) if services else {}

    say(f"metrics on port {status.serve_metrics(host, port, gauges)}")
