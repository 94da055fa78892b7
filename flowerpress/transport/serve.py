"""`serve`: a ServerApp whose clients come over the link."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp

from flowerpress.protocol import as_json
from flowerpress.transport.grid import SERVER, GrpcGrid
from flowerpress.transport.hub import Hub
from flowerpress.transport.limits import Limits
from flowerpress.transport.server import LinkServer

log = logging.getLogger("flowerpress")
_SERVERS_OWN = ("out", "checkpoint", "resume")  # keys of the run config that are no client's
_STOPPED = "the server was stopped"
_FAREWELL = 5.0  # seconds for goodbyes to get through


class Service:
    """A server that listens for clients, and runs a ServerApp once.

    Parameters
    ----------
    bind : str
        ``HOST:PORT``; port 0: any that is free (see `port`).
    certs : tuple of bytes or None
        See `LinkServer`; None: plain text.
    clients : int
        How many clients to wait for before the ServerApp starts.
    run_config : mapping
        The run's config, which clients see too.
    run_id : int, optional
        Of an earlier start of the same run; clients keep their memory by it.
    limits : Limits, optional
        What a client may take.
    """

    def __init__(
        self,
        bind: str,
        certs: tuple[bytes, bytes, bytes] | None,
        clients: int,
        *,
        run_config: Mapping[str, Any] | None = None,
        run_id: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.run_id = secrets.randbits(62) if run_id is None else run_id
        self.clients, self._config = clients, dict(run_config or {})
        self.hub = Hub(
            self.run_id,
            {key: value for key, value in self._config.items() if key not in _SERVERS_OWN},
            clients=clients,
            limits=limits,
            proven=certs is not None,
        )
        self.grid = GrpcGrid(self.hub)
        self._server = LinkServer(self.hub, bind, certs)
        self.port = self._server.port
        self._begun = time.monotonic()

    def run(self, app: ServerApp) -> dict[str, Any]:
        """Wait for the clients, run the ServerApp, say goodbye, and return what went on.

        What the ServerApp raises is raised here, after the goodbye.
        """
        failure = _STOPPED
        with ExitStack() as stack:
            stack.callback(self._server.close, _FAREWELL)
            try:
                self._wait()
                context = Context(self.run_id, SERVER, {}, RecordDict(), self._config)
                app(self.grid, context)
                failure = ""
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
                raise
            finally:
                # Who stops a server by hand, or a service manager, may start it again.
                retry = failure == _STOPPED
                self.hub.close(done=not failure, reason=failure[:300], retry=retry)
        return self.report()

    def _wait(self) -> None:
        """Wait until as many clients are there as the run expects."""
        hub = self.hub
        with hub.changed:
            hub.changed.wait_for(
                lambda: sum(peer.connected for peer in hub.peers.values()) >= self.clients
            )

    def report(self) -> dict[str, Any]:
        """Return what goes into ``result.json``."""
        peers = sorted(self.hub.peers.items())
        return {
            "run_id": self.run_id,
            "seconds": time.monotonic() - self._begun,
            "refused": self.hub.refusals,
            "clients": {str(client): asdict(peer.counters) for client, peer in peers},
            "rounds": [asdict(record) for _, record in sorted(self.grid.rounds.items())],
            "exchanges": self.grid.exchanges,
        }


def run_id_of(folder: Path, *, resume: bool) -> int:
    """Return the number of the run in a folder when resuming, or else a new one."""
    path = folder / "run.json"
    if resume and path.exists():
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["run_id"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be read ({error}): remove it to begin anew") from None
    return secrets.randbits(62)


def keep_run_id(folder: Path, run_id: int) -> None:
    """Let `run_id_of` find the run's number when it is resumed."""
    _write_json(folder / "run.json", {"run_id": run_id})


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write ``result.json``."""
    return _write_json(folder / "result.json", result)


def _write_json(path: Path, data: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(as_json(data), indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    return path
