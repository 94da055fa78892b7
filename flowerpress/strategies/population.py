"""The workers a strategy knows: who they are, which are reachable, and who takes part in a round.

A worker is known by its own stable id, not by Flower's node id, which changes when a node restarts.
Each new node is asked once who it is; its weight and layout are fixed from then on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from flowerpress.compressors.feedback import Receiver
from flowerpress.protocol import (
    Hello,
    Ledger,
    LedgerRow,
    ProtocolError,
    Reply,
    content_bytes,
    question,
)

log = logging.getLogger("flowerpress")
_SAMPLING_STREAM = 0x5A


@dataclass
class Client:
    """One worker as the server sees it.

    Parameters
    ----------
    id, node : int
        Its stable id, and the Flower node it was last heard from.
    examples : int
        Its number of training examples.
    receiver : Receiver
        Which of its packets was applied last, and the question that is open.
    held : int
        The model version it holds; -1 for none.
    """

    id: int
    node: int
    examples: int
    receiver: Receiver = field(default_factory=Receiver)
    held: int = -1


@dataclass
class Population:
    """All workers met so far.

    Parameters
    ----------
    weights : {"num-examples", "uniform"}
        What a worker counts for.
    patience : float
        Seconds to wait for a new node's answer; it is asked again in later rounds.
    """

    weights: str = "num-examples"
    patience: float = 60.0
    clients: dict[int, Client] = field(default_factory=dict)
    _nodes: dict[int, int] = field(default_factory=dict)  # node id -> client id
    _ask_again: dict[int, tuple[int, int]] = field(default_factory=dict)  # node -> (round, wait)
    _refusals: dict[int, str] = field(default_factory=dict)  # node -> why

    def mass(self, client: Client) -> float:
        """Return what `client` counts for, before it is divided by the total."""
        return float(client.examples) if self.weights == "num-examples" else 1.0

    @property
    def total(self) -> float:
        """The whole population's mass: absent workers count."""
        return sum(map(self.mass, self.clients.values()))

    def id_of(self, node: int) -> int | None:
        """Return the id of the worker at `node`, None if it is not known."""
        return self._nodes.get(node)

    def meet(
        self,
        grid: Grid,
        server_round: int,
        admit: Callable[[Hello], None],
        ledger: Ledger,
        *,
        needed: int = 0,
    ) -> int:
        """Ask every new node who it is, and return how many known workers are reachable.

        `admit` raises `ValueError` for a worker that cannot take part. A node that does not answer,
        or is refused, is asked again after 1, 2, 4, ... rounds; at once while fewer than `needed`
        workers are there.

        Raises
        ------
        RuntimeError
            `needed` nodes are there, but so many of them are refused that the rest do not suffice.
        """
        nodes = set(grid.get_node_ids())
        short = len(self.online(grid)) < needed
        new = [
            node
            for node in sorted(nodes - set(self._nodes))
            if short or self._ask_again.get(node, (0, 0))[0] <= server_round
        ]
        if new:
            messages = [Message(question(), node, "query") for node in new]
            replies = grid.send_and_receive(messages, timeout=self.patience)
            for reply in sorted(replies, key=lambda r: r.metadata.src_node_id):
                self._introduce(reply, server_round, admit, ledger, grid)
        for node in set(new) - set(self._nodes):
            wait = 2 * self._ask_again.get(node, (0, 0))[1] or 1
            self._ask_again[node] = (server_round + wait, wait)
        refused = {node: why for node, why in self._refusals.items() if node in nodes}
        if len(nodes) >= needed > len(nodes) - len(refused):
            raise RuntimeError(
                f"{len(refused)} of {len(nodes)} clients cannot take part: "
                f"{next(iter(refused.values()))}"
            )
        return len(self.online(grid))

    def _introduce(
        self,
        message: Message,
        server_round: int,
        admit: Callable[[Hello], None],
        ledger: Ledger,
        grid: Grid,
    ) -> None:
        node = message.metadata.src_node_id
        if message.has_error():
            log.warning("node %d: %s", node, message.error.reason)
            return
        try:
            hello = Hello.decode(message.content)
            admit(hello)
        except ValueError as error:
            self._refusals[node] = _reason(message) or str(error)
            log.warning("node %d cannot take part: %s", node, self._refusals[node])
            return
        self._refusals.pop(node, None)
        size = content_bytes(message.content)
        ledger.add(LedgerRow(server_round, hello.client, "up", 0, size, "hello"))
        known = self.clients.get(hello.client)
        if known is None:
            self.clients[hello.client] = Client(hello.client, node, hello.examples)
        elif known.node != node and known.node in set(grid.get_node_ids()):
            log.warning(
                "node %d says it is client %d, which node %d is already: ignored; "
                "give each client its own partition-id or client-id",
                node,
                hello.client,
                known.node,
            )
            return
        else:
            self._nodes.pop(known.node, None)
            known.node = node
        self._nodes[node] = hello.client
        self.clients[hello.client].held = hello.held

    def online(self, grid: Grid) -> list[Client]:
        """Return the known workers that are reachable now, by id."""
        nodes = set(grid.get_node_ids())
        return [c for _, c in sorted(self.clients.items()) if c.node in nodes]

    def sample(
        self, available: Iterable[Client], count: int, seed: int, server_round: int
    ) -> list[Client]:
        """Draw `count` of `available` without replacement, in order of their ids."""
        pool = sorted(available, key=lambda client: client.id)
        if count >= len(pool):
            return pool
        rng = np.random.default_rng([seed, server_round, _SAMPLING_STREAM])
        return [pool[i] for i in sorted(rng.choice(len(pool), size=count, replace=False))]


def wait_for(ready: Callable[[], int], needed: int, deadline: float) -> None:
    """Wait until `ready()` is at least `needed`.

    Raises
    ------
    RuntimeError
        It is not within `deadline` seconds: says how many there are and what to do.
    """
    end, pause = time.monotonic() + deadline, 0.05
    while (count := ready()) < needed:
        if time.monotonic() >= end:
            raise RuntimeError(
                f"{count} of {needed} clients available after {deadline:g} s: start more "
                "clients, lower min-available-nodes, or raise available-timeout"
            )
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def _reason(message: Message) -> str:
    """Return the reason in a worker's reply that is not a hello, if it gives one."""
    try:
        return Reply.decode(message.content).reason
    except ProtocolError:
        return ""
