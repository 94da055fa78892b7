"""`join`: one client that works for a server, with the ClientApp in this process.

Model, data and memory stay loaded from one question to the next; the memory is also written to a
folder, so that a client that is killed goes on from its last answer.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from flowerpress.protocol import ensure_task_identity
from flowerpress.transport.client import Farewell, LinkClient
from flowerpress.transport.codec import CodecError, decode, encode
from flowerpress.transport.frames import json_object
from flowerpress.transport.pipes import Incoming

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

    def answer(self, welcome: Any, question: Incoming) -> list[bytes]:
        """Return the answer to a question, as the link sends it."""
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
            log.exception("the ClientApp failed")
            return encode(_error(message, error))

    def _enter(self, welcome: Any) -> Context:
        """Return the context of the run that a server has; a new one for another run."""
        known = (welcome.run_id, welcome.clients, welcome.run_config)
        if self._context is None or self._known != known:
            defaults = {"num-partitions": int(welcome.clients)} if welcome.clients else {}
            run_config = json_object(welcome.run_config, "run_config")
            for key, value in self._expected.items():
                if run_config.get(key) != value:
                    raise ValueError(
                        f"this client's {key} is {value!r}, the server's {run_config.get(key)!r}"
                    )
            self._context = Context(
                int(welcome.run_id),
                int(welcome.node_id),
                {**defaults, **self._config},
                RecordDict(),
                run_config,
            )
            self._known = known
        return self._context


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
        Where its memory is kept; see `flowerpress.clients.stores.open_store`. The memory is not
        flushed to the disk at every answer: it survives the process, not a power cut, unless the
        node config says ``state-sync=true``.
    patience : float
        Seconds to go on trying without a connection.
    """
    config: dict[str, Any] = {"partition-id": client, "client-id": client, "state-store": "disk"}
    config["state-sync"] = False
    if state_dir is not None:
        config["state-dir"] = str(state_dir)
    config |= node_config or {}
    node = Node(app, config, expected)
    return LinkClient(server, certs, client, config, node.answer, patience=patience)


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
