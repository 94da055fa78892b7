"""The in-process engine: a Flower Grid that calls the ClientApp in a thread pool.

No daemon, no ports, starts at once. What crosses are bytes, in records that no two clients share,
and what the ledger counts is what was sent. The result does not depend on the number of threads:
strategies take replies in the order of the clients' ids.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from flowerpress.compressors.wire.recent import RECENT
from flowerpress.protocol import OneRunGrid, ensure_task_identity, name_message, name_reply
from flowerpress.protocol.content import ARRAYS, MESSAGE, MODEL, content_bytes, entries
from flowerpress.protocol.grids import Upload
from flowerpress.protocol.shared import share
from flowerpress.simulations.faults import Faults
from flowerpress.simulations.spilled import KEPT, spill
from flowerpress.worker.aside import Attic

NodeConfig = Mapping[str, int | float | str | bool]
_RAISED = 2  # Flower's error code for a ClientApp that raised
_FIRST_NODE = 2  # node 1 is the server
_UPLINK, _MBIT = "uplink", 1e6 / 8  # bytes a second
_WORTH_A_THREAD, _LAST = 0.01, 3  # seconds; messages


@dataclass
class _Node:
    """One simulated client: its context, and the process it lives in."""

    context: Context
    app: ClientApp
    heard: int = 0
    said: int = 0
    sent: int = 0  # bytes of its last answer
    busy: Lock = field(default_factory=Lock)


class InProcessGrid(OneRunGrid):
    """A Grid whose nodes are contexts in this process.

    Parameters
    ----------
    app : callable
        Returns a ClientApp. Called once for all nodes, and once more for each node that is killed.
    num_nodes : int
        At least 1. Node ``2 + i`` has ``partition-id`` i.
    threads : int, optional
        Clients computed at the same time; by default as many as there are CPUs, where the last
        replies took long enough to be worth a thread.
    node_config : mapping, optional
        Node config entries of every node; ``state-store`` is "live" unless given.
    node_configs : mapping of int to mapping, optional
        More entries for single nodes, by partition id.
    run_config : mapping, optional
        The run config of every context.
    faults : Faults, optional
        Messages to lose and clients to kill.
    run_id : int, optional
        Flower's number of the run; drawn at random unless given. Memory on disk goes by it.
    """

    def __init__(
        self,
        app: Callable[[], ClientApp],
        num_nodes: int,
        *,
        threads: int | None = None,
        node_config: NodeConfig | None = None,
        node_configs: Mapping[int, NodeConfig] | None = None,
        run_config: NodeConfig | None = None,
        faults: Faults | None = None,
        run_id: int | None = None,
    ) -> None:
        if num_nodes < 1:
            raise ValueError(f"a simulation needs at least 1 client, got {num_nodes}")
        self.run_id = secrets.randbits(62) if run_id is None else run_id
        ensure_task_identity(self.run_id)
        self._new_app, shared = app, app()
        self._faults = faults
        self._nodes: dict[int, _Node] = {}
        for i in range(num_nodes):
            config: dict[str, Any] = {"state-store": "live", **(node_config or {})}
            config |= {"partition-id": i, "num-partitions": num_nodes}
            config |= (node_configs or {}).get(i, {})
            node = _FIRST_NODE + i
            context = Context(self.run_id, node, config, RecordDict(), dict(run_config or {}))
            self._nodes[node] = _Node(context, shared)
        self._threads, self._crowd = threads, num_nodes > 1
        # Seconds that the last messages took: the least counts, for one may have waited its turn.
        self._took = deque([0.0], maxlen=_LAST)
        count = min(num_nodes, os.cpu_count() or 1) if threads is None else threads
        self._pool = ThreadPoolExecutor(max(1, count), thread_name_prefix="client")
        self._futures: dict[str, Future[Message | None]] = {}
        self._using = ExitStack()
        self._using.enter_context(RECENT.used())

    def measures_uploads(self) -> bool:
        """Return whether all clients have an `uplink` (Mbit/s) in their node config."""
        return all(_UPLINK in node.context.node_config for node in self._nodes.values())

    def last_upload(self, node: int) -> Upload | None:
        """Return how long a node's last answer would take on the uplink of its node config."""
        there = self._nodes[node]
        return Upload(there.sent, there.sent / (_MBIT * float(there.context.node_config[_UPLINK])))

    def close(self) -> None:
        """End the threads; what clients are at is finished first, what waits for them is not."""
        self._pool.shutdown(cancel_futures=True)
        self._using.close()

    @property
    def counts(self) -> dict[int, tuple[int, int]]:
        """How many messages each node has heard and said: what `Faults` go by."""
        return {i: (node.heard, node.said) for i, node in self._nodes.items()}

    @counts.setter
    def counts(self, counts: Mapping[int, tuple[int, int]]) -> None:
        for i, (heard, said) in counts.items():
            self._nodes[i].heard, self._nodes[i].said = heard, said

    def __enter__(self) -> InProcessGrid:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Flower's Grid interface -------------------------------------------------------------------

    def get_node_ids(self) -> list[int]:
        """Return all nodes."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Start computing the replies to `messages`; returns their ids."""
        ids: list[str] = []
        seen: set[int] = set()
        attic = Attic(KEPT)
        for message in messages:
            ids.append(name_message(message))
            self._futures[ids[-1]] = self._start(_own_content(message, seen, self._crowd), attic)
        return ids

    def _start(self, message: Message, attic: Attic) -> Future[Message | None]:
        """Compute a reply in a thread, or at once where threads would only wait for each other.

        Small tasks spend their time in Python, one thread at a time: ten clients of a softmax
        regression took 12 ms a round one after the other, and 16 ms in two threads.
        """
        if self._threads is not None or min(self._took) > _WORTH_A_THREAD:
            return self._pool.submit(self._answer, message, attic)
        future: Future[Message | None] = Future()
        future.set_result(self._answer(message, attic))
        return future

    def _pull(self, ids: list[str] | None) -> list[Message]:
        replies = []
        for key in list(self._futures) if ids is None else ids:
            if key in self._futures and self._futures[key].done():
                reply = self._futures.pop(key).result()
                if reply is not None:
                    replies.append(name_reply(reply, key))
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send `messages` and return the replies that come within `timeout` seconds."""
        ids = self.push_messages(messages)
        wait([self._futures[key] for key in ids], timeout=timeout)
        replies = self.pull_messages(ids)
        for key in ids:  # late replies are never read, as with Flower's own strategies
            self._futures.pop(key, None)
        return replies

    # One message -------------------------------------------------------------------------------

    def _answer(self, message: Message, attic: Attic) -> Message | None:
        """Take one message to its node; the reply waits in memory or in a file."""
        reply = self._deliver(message)
        if reply is not None and not reply.has_error():
            spill(reply, attic)
        return reply

    def _deliver(self, message: Message) -> Message | None:
        """Take one message to its node and the reply back; None where one of them is lost."""
        node = self._nodes[message.metadata.dst_node_id]
        with node.busy:  # one message at a time, also after a timeout
            return self._to_and_fro(node, message)

    def _to_and_fro(self, node: _Node, message: Message) -> Message | None:
        client = int(node.context.node_config["partition-id"])
        node.heard += 1
        faults = self._faults
        if faults is not None and faults.loses("down", client, node.heard):
            return None
        reply = self._call(node, message)
        node.said += 1
        if _UPLINK in node.context.node_config and reply.has_content():
            node.sent = content_bytes(reply.content)
        if faults is not None and faults.kills(client, node.said):
            node.app = self._new_app()
        lost = faults is not None and faults.loses("up", client, node.said)
        return None if lost else reply

    def _call(self, node: _Node, message: Message) -> Message:
        if "torch" in sys.modules:  # a task has loaded it
            _one_torch_thread()
        start = time.perf_counter()
        try:
            return node.app(message, node.context)
        except Exception as error:  # as Flower does: the server sees an error reply
            return Message(Error(_RAISED, f"{type(error).__name__}: {error}"), reply_to=message)
        finally:
            if message.metadata.message_type == "train":
                self._took.append(time.perf_counter() - start)


def _one_torch_thread() -> None:
    """Keep torch to one thread per client.

    Clients already fill the cores, and sums by several threads would depend on their number.
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads") and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def _own_content(message: Message, seen: set[int], crowd: bool) -> Message:
    """Give a message records of its own, unless it is flowerpress's and its content not `seen`.

    Those of Flower's strategies share theirs, with one another and with the strategy. The arrays
    stay the same objects: their data are bytes, which cannot be changed. So the model of a `crowd`
    is decoded once for all.
    """
    # Not by `array_records`: it makes a cycle, which keeps the message until it is collected.
    sent = message.content
    record = entries(sent).get(ARRAYS)
    arrays = entries(record) if isinstance(record, ArrayRecord) else {}
    if MESSAGE in arrays and id(sent) not in seen:
        seen.add(id(sent))
        if crowd and MODEL in arrays:
            share(arrays[MODEL])
        return message
    content = RecordDict()
    for key, record in sent.items():
        fields: Any = type(record)()
        fields.update(record)
        content[key] = fields
    metadata = message.metadata
    own = Message(content, metadata.dst_node_id, metadata.message_type)
    own.metadata.__dict__.update(metadata.__dict__)  # its id, its time to live, its group
    return own
