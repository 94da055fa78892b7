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
from typing import Any, NamedTuple

from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp

from flowerpress.protocol import as_json
from flowerpress.protocol.files import write_atomically
from flowerpress.transport.denied import DenyList
from flowerpress.transport.grid import SERVER, GrpcGrid, Saving, SetupError
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
    partitions : int, optional
        In how many parts the data are, as clients are told; by default `clients`.
    saving : Saving, optional
        Where the runs of flowerpress's strategies are saved, if the app does not say it.
    denied : Path, optional
        The list of revoked certificates, see `flowerpress.transport.denied`.

    Raises
    ------
    OSError
        The address cannot be listened on.
    ValueError
        The address or the list is malformed, or more clients are allowed than open files.
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
        partitions: int | None = None,
        saving: Saving | None = None,
        denied: Path | None = None,
    ) -> None:
        self.run_id = secrets.randbits(62) if run_id is None else run_id
        self.clients, self._config = clients, dict(run_config or {})
        self.hub = Hub(
            self.run_id,
            {key: value for key, value in self._config.items() if key not in _SERVERS_OWN},
            clients=clients if partitions is None else partitions,
            limits=limits,
            proven=certs is not None,
        )
        self.grid = GrpcGrid(self.hub, saving)
        shut_out = None if denied is None or certs is None else DenyList(denied)
        self._server = LinkServer(self.hub, bind, certs, shut_out)
        self.port = self._server.port
        self._begun = time.monotonic()

    @property
    def rounds(self) -> int:
        """How many rounds the run config says that there are; 0: it does not."""
        number = self._config.get("num-server-rounds")
        return number if type(number) is int else 0

    def run(self, app: ServerApp) -> dict[str, Any]:
        """Wait for the clients, run the ServerApp, say goodbye, and return what went on.

        What the ServerApp raises is raised here, after the goodbye.
        """
        failure, retry = _STOPPED, True  # who stops a server by hand may start it again
        with ExitStack() as stack:
            stack.callback(self._server.close, _FAREWELL)
            try:
                self._wait()
                context = Context(self.run_id, SERVER, {}, RecordDict(), self._config)
                app(self.grid, context)
                if self.grid.refused is not None:  # which an app may have passed over
                    raise self.grid.refused
                failure, retry = "", False
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
                retry = _is_servers(error)
                raise
            finally:
                self.hub.close(done=not failure, reason=failure[:300], retry=retry)
        return self.report()

    def _wait(self) -> None:
        """Wait until as many clients are there, and stay, as the run expects."""
        hub = self.hub
        with hub.changed:
            hub.changed.wait_for(
                lambda: (
                    len(hub.peers) >= self.clients
                    and sum(peer.confirmed for peer in hub.peers.values()) >= self.clients
                )
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


def _is_servers(error: Exception) -> bool:
    """Whether an error is mended on this side, as a full disk is, and the server started again."""
    from flowerpress.strategies import CheckpointError  # a checkpoint that is damaged, or another's

    return isinstance(error, OSError | MemoryError | SetupError | CheckpointError)


class RunFile(NamedTuple):
    """What is kept of a run for its next start, in ``run.json``.

    Parameters
    ----------
    run_id : int
        Clients keep their memory by it.
    clients : int
        How many it was started for; the data are in so many parts. 0: an older file does not say.
    saved : bool
        Whether strategies of flowerpress save it, or the app does.
    """

    run_id: int
    clients: int = 0
    saved: bool = True


def new_run(clients: int) -> RunFile:
    """Return a run that begins, with a number of its own."""
    return RunFile(secrets.randbits(62), clients)


def find_run(folder: Path) -> RunFile | None:
    """Return what is kept of the run in a folder, None where there is none.

    Raises
    ------
    ValueError
        The file is damaged: says what to do.
    """
    path = folder / "run.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        run = RunFile(found["run_id"], found.get("clients", 0), found.get("saved", True))
        if [type(each) for each in run] != [int, int, bool]:
            raise ValueError("expected whole numbers, and whether it is saved")
        if not (0 <= run.run_id < 2**63 and 0 <= run.clients < 2**31):
            raise ValueError("a number is out of range")
        return run
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}): remove it to begin anew") from None


def keep_run(folder: Path, run: RunFile) -> None:
    """Let `find_run` find it when it is resumed."""
    _write_json(folder / "run.json", run._asdict())


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write ``result.json``."""
    return _write_json(folder / "result.json", result)


def _write_json(path: Path, data: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(data), indent=1) + "\n"
    write_atomically(path, text.encode(), mode=0o644)
    return path
