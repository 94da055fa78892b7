"""`join`: one client that works for a server, with the ClientApp in this process.

Model, data and memory stay loaded from one question to the next; the memory is also written to a
folder, so that a client that is killed goes on from its last answer.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from flowerpress.protocol import ensure_task_identity
from flowerpress.protocol.blob import Data
from flowerpress.transport.client import Farewell, LinkClient, UnfitError
from flowerpress.transport.codec import CodecError, decode, encode
from flowerpress.transport.frames import json_object
from flowerpress.transport.heads import names_short_heads, shorten
from flowerpress.transport.pipes import Incoming
from flowerpress.worker.node import check_folder
from flowerpress.worker.stores import state_folder

log = logging.getLogger("flowerpress")
_RAISED = 2  # Flower's code for a ClientApp that raised


class Node:
    """A ClientApp with its context; what the link calls for each question.

    Parameters
    ----------
    app : ClientApp
        Answers the messages.
    node_config : mapping
        Of this node; ``partition-id`` is the client's id and ``num-partitions`` what the server
        says, unless given.
    expected : mapping, optional
        What the run config must say, so that client and server run the same.
    """

    def __init__(
        self,
        app: ClientApp,
        node_config: Mapping[str, Any],
        expected: Mapping[str, Any] | None = None,
    ) -> None:
        self._app, self._config, self._expected = app, dict(node_config), dict(expected or {})
        self._context: Context | None = None
        self._known: tuple[int, int, str] | None = None
        self._failure = ""

    @property
    def unfit(self) -> str:
        """Why this client cannot take part, as its app has found; empty if it can."""
        return str(getattr(self._app, "unfit", ""))

    def enter(self, welcome: Any) -> None:
        """Look at the run that a server has, before the first question.

        Raises
        ------
        UnfitError
            This client cannot take part in it.
        """
        try:
            self._enter(welcome)
        except (ValueError, OSError, ImportError) as error:
            raise UnfitError(str(error)) from None

    def answer(self, welcome: Any, question: Incoming) -> list[Data]:
        """Return the answer to a question, as the link sends it."""
        answer = self._answer(welcome, question)
        return shorten(answer) if names_short_heads(welcome.capabilities) else answer

    def _answer(self, welcome: Any, question: Incoming) -> list[Data]:
        ensure_task_identity(int(welcome.run_id))
        node = int(welcome.node_id)
        try:
            head, content = decode(question.open(), question.size)
            given = content or RecordDict()
            message = Message(given, node, head.kind, ttl=head.ttl, group_id=head.group)
        except (CodecError, ValueError) as error:
            return encode(_error(Message(RecordDict(), node, "query"), error))
        try:
            return encode(self._app(message, self._enter(welcome)))
        except (Exception, SystemExit) as error:  # as Flower does: the server sees an error reply
            self._log(error)
            return encode(_error(message, error))

    def _log(self, error: BaseException) -> None:
        """Log what the ClientApp raised; the same only once."""
        what = f"{type(error).__name__}: {error}"
        if what != self._failure:
            log.error("the ClientApp failed: %s", what, exc_info=error)
        self._failure = what

    def _enter(self, welcome: Any) -> Context:
        """Return the context of the run that a server has; a new one for another run."""
        known = (welcome.run_id, welcome.clients, welcome.run_config)
        if self._context is not None and self._known == known:
            return self._context
        run_config = json_object(welcome.run_config, "run_config")
        for key, value in self._expected.items():
            if run_config.get(key) != value:
                raise ValueError(
                    f"this client's {key} is {value!r}, the server's {run_config.get(key)!r}: "
                    "join what the server serves"
                )
        config = {**self._parts(run_config, int(welcome.clients)), **self._config}
        if isinstance(self._app, Checked):
            self._app.check_run(config, run_config)
        self._context = Context(
            int(welcome.run_id), int(welcome.node_id), config, RecordDict(), run_config
        )
        self._known = known
        return self._context

    def _parts(self, run_config: Mapping[str, Any], clients: int) -> dict[str, int]:
        """Return what the node config lacks of ``num-partitions``."""
        if not clients or "num-partitions" in self._config:
            return {}
        if isinstance(self._app, Checked):
            clients = self._app.parts(run_config, int(self._config["partition-id"]), clients)
        return {"num-partitions": clients}


@runtime_checkable
class Checked(Protocol):
    """A ClientApp that finds mistakes before it is asked anything: flowerpress's own are."""

    @property
    def unfit(self) -> str:
        """Why this client cannot take part, as it said when it was last asked; or ""."""

    def check_config(self, node_config: Mapping[str, Any], task: str) -> None:
        """Raise `ValueError` for a node config that is wrong, whatever the run."""

    def check_run(self, node_config: Mapping[str, Any], run_config: Mapping[str, Any]) -> None:
        """Raise `ValueError` where this node cannot take part in a run."""

    def parts(self, run_config: Mapping[str, Any], partition: int, partitions: int) -> int:
        """Return in how many parts the data are for a node, where the server says `partitions`."""


def _error(message: Message, error: BaseException) -> Message:
    return Message(Error(_RAISED, f"{type(error).__name__}: {error}"[:1000]), reply_to=message)


def make_client(
    app: ClientApp,
    server: str,
    certs: tuple[bytes, bytes, bytes] | None,
    client: int,
    *,
    node_config: Mapping[str, Any] | None = None,
    expected: Mapping[str, Any] | None = None,
    state_dir: Path | None = None,
    patience: float = 600.0,
) -> LinkClient:
    """Return a client that is ready to `run`.

    Parameters
    ----------
    app : ClientApp
        Answers the server's messages; the same object as on any of Flower's engines.
    server : str
        ``HOST:PORT``.
    certs : tuple of bytes or None
        See `LinkClient`; None: plain text.
    client : int
        Its id; ``partition-id`` too, unless the node config has another.
    node_config : mapping, optional
        As for a SuperNode.
    expected : mapping, optional
        What the run config must say; questions of another run are answered with an error.
    state_dir : Path, optional
        Where its memory is kept; see `flowerpress.worker.stores.open_store`. The memory is not
        flushed to the disk at every answer: it survives the process, not a power cut, unless the
        node config says ``state-sync=true``.
    patience : float
        Seconds to go on trying without a connection.

    Raises
    ------
    ValueError, OSError, ImportError
        The address or the node config is wrong, memory cannot be kept, or something is missing that
        this client needs for its task: found before it connects.
    """
    config: dict[str, Any] = {"partition-id": client, "client-id": client, "state-store": "disk"}
    config["state-sync"] = False
    if state_dir is not None:
        config["state-dir"] = str(state_dir)
    config |= node_config or {}
    if isinstance(app, Checked):
        app.check_config(config, str((expected or {}).get("task", "")))
        if config["state-store"] == "disk":
            check_folder(state_folder(config))
    node = Node(app, config, expected)
    return LinkClient(
        server,
        certs,
        client,
        config,
        node.answer,
        patience=patience,
        enter=node.enter,
        unfit=lambda: node.unfit,
    )


def join(app: ClientApp, server: str, client: int, **options: Any) -> Farewell:
    """Work for a server until the run ends; `options` are those of `make_client`.

    Examples
    --------
    Another process, on another machine::

        join(client_app, "server.example:9400", 3, certs=read_certs("certs", "client-3"))
    """
    certs = options.pop("certs", None)
    if certs is None:
        sys.stderr.write("flowerpress: WARNING: plain text, and anybody may pose as the server\n")
    return make_client(app, server, certs, client, **options).run()
