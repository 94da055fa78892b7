"""The workers a strategy knows: who they are, which are reachable, and who takes part in a round.

A worker is known by its own stable id, not by Flower's node id, which changes when a node restarts.
Each new node is asked once who it is; its weight and layout are fixed from then on.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from operator import attrgetter

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from flowerpress.protocol import (
    Hello,
    Ledger,
    LedgerRow,
    ProtocolError,
    Reply,
    content_bytes,
    printable,
    question,
)
from flowerpress.protocol.grids import dismiss, has_strangers, proven_client
from flowerpress.server.client import Client
from flowerpress.server.errors import RoundError
from flowerpress.server.newcomers import Newcomers
from flowerpress.server.tree import Tree

log = logging.getLogger("flowerpress")
_SAMPLING_STREAM = 0x5A
_SETTLED = 3  # workers whose median none of them can set alone
_FIRST_TOLD, _MOST_UNTOLD = 5.0, 300.0  # seconds that a wait for workers is not mentioned
UNKNOWN = -1  # a client in the ledger that has not said who it is


@dataclass
class Population:
    """All workers met so far.

    Parameters
    ----------
    weights : {"num-examples", "uniform"}
        What a worker counts for. A number of examples is the worker's own word, so it counts up to
        `max_weight` times the median of all that were stated when it was met (of two in the middle
        the smaller). It is settled then, once and for all; but those met while there were fewer
        than three are settled anew when the third is met, for two have no median.
    max_weight : float
        0: whatever a worker states.
    patience : float
        Seconds to wait for a new node's answer; it is asked again in later rounds.
    """

    weights: str = "num-examples"
    patience: float = 60.0
    max_weight: float = 0.0
    clients: dict[int, Client] = field(default_factory=dict)
    _nodes: dict[int, int] = field(default_factory=dict)  # node id -> client id
    _ask_again: dict[int, tuple[int, int]] = field(default_factory=dict)  # node -> (round, wait)
    _refusals: dict[int, str] = field(default_factory=dict)  # node -> why
    _told: dict[int, str] = field(default_factory=dict)  # node -> what was logged of it
    _newcomers: Newcomers = field(init=False)

    def __post_init__(self) -> None:
        self._newcomers = Newcomers(self.patience)

    def state(self) -> Tree:
        """Return what a checkpoint needs of it."""
        clients = [asdict(client) for client in self.clients.values()]
        return [clients, self._nodes, self._ask_again, self._refusals]

    def restore(self, state: Tree) -> None:
        """Take what `state` returned."""
        clients, self._nodes, self._ask_again, self._refusals = state
        self.clients |= {each["id"]: Client.of_fields(each) for each in clients}

    def mass(self, client: Client) -> float:
        """Return what `client` counts for, before it is divided by the total."""
        return client.mass or float(client.examples) if self.weights == "num-examples" else 1.0

    def weigh(self) -> bool:
        """Settle what new workers count for; whether that changed for one that is not new."""
        if self.weights != "num-examples":
            return False
        clients = list(map(self.clients.__getitem__, sorted(self.clients)))
        weighed = sum(map(bool, map(attrgetter("mass"), clients)))
        settled = weighed >= _SETTLED
        if settled and weighed == len(clients):
            return False
        stated = sorted(map(attrgetter("examples"), clients))
        usual = stated[(len(stated) - 1) // 2] if stated else 0
        changed = False
        for client in clients:
            if settled and client.mass:
                continue
            before = client.mass
            client.mass = min(float(client.examples), self.max_weight * usual or math.inf)
            changed |= before not in (0, client.mass)
            if before != client.mass < client.examples:
                log.warning(
                    "client %d says it has %d examples, the median is %d: it counts for %d "
                    "(max_weight=%g; 0: no limit)",
                    client.id,
                    client.examples,
                    usual,
                    client.mass,
                    self.max_weight,
                )
        return changed

    @property
    def total(self) -> float:
        """The whole population's mass: absent workers count."""
        return sum(map(self.mass, self.clients.values()))

    def strangers(self, nodes: Iterable[int]) -> dict[int, str]:
        """Return those of the nodes that were never admitted, with the reason."""
        unheard = "it did not say who it is, or came after the last round had begun"
        new = [node for node in sorted(nodes) if node not in self._nodes]
        return {node: self._refusals.get(node, unheard) for node in new}

    def meet(
        self,
        grid: Grid,
        server_round: int,
        admit: Callable[[Hello], None],
        ledger: Ledger,
        *,
        needed: int = 0,
    ) -> list[Client]:
        """Ask every new node who it is, and return the known workers that are reachable, by id.

        `admit` raises `ValueError` for a worker that cannot take part. A node that does not answer,
        or is refused, is asked again after 1, 2, 4, ... rounds; at once while fewer than `needed`
        workers are there.

        Raises
        ------
        RoundError
            `needed` nodes are there, but so many of them are refused that the rest do not suffice.
        """
        nodes = set(grid.get_node_ids())
        online = self._online(nodes)
        lacking = needed - len(online)
        waited_for = self._newcomers.asked
        unknown = nodes - set(self._nodes)
        if not unknown and not waited_for and not self._refusals:
            return online
        new = [
            node
            for node in sorted(unknown - waited_for)
            if lacking > 0 or self._ask_again.get(node, (0, 0))[0] <= server_round
        ]
        if new or waited_for:
            hellos = self._ask(grid, new, server_round, ledger, lacking)
            for node, hello in most_common_layout_first(hellos):
                self._introduce(grid, node, hello, admit)
        for node in set(new) - set(self._nodes):
            wait = 2 * self._ask_again.get(node, (0, 0))[1] or 1
            self._ask_again[node] = (server_round + wait, wait)
        refused = {node: why for node, why in self._refusals.items() if node in nodes}
        # Strangers who cannot take part are sent away, and others may come in their place.
        if not has_strangers(grid) and len(nodes) >= needed > len(nodes) - len(refused):
            raise RoundError(
                f"{len(refused)} of {len(nodes)} clients cannot take part: "
                f"{next(iter(refused.values()))}"
            )
        return self._online(nodes)

    def _ask(
        self, grid: Grid, nodes: list[int], server_round: int, ledger: Ledger, lacking: int
    ) -> list[tuple[int, Hello]]:
        """Ask nodes who they are; returns what could be read, of earlier questions too."""
        asked = self._newcomers.asked | set(nodes)
        size = content_bytes(question())
        for _ in nodes:
            ledger.add(LedgerRow(server_round, UNKNOWN, "down", 0, size, "hello"))
        hellos = []
        first = not self.clients
        for reply in self._newcomers.ask(grid, nodes, needed=lacking, first=first):
            node = reply.metadata.src_node_id
            if reply.has_error():
                self._tell(node, "node %d: %s", printable(str(reply.error.reason)))
                continue
            size = content_bytes(reply.content)
            try:
                hello = Hello.decode(reply.content)
            except ProtocolError as error:
                ledger.add(LedgerRow(server_round, UNKNOWN, "up", 0, size, "hello"))
                self._refuse(grid, node, _reason(reply) or str(error), for_good=False)
                continue
            ledger.add(LedgerRow(server_round, hello.client, "up", 0, size, "hello"))
            if node in asked:
                hellos.append((node, hello))
        return hellos

    def _introduce(
        self, grid: Grid, node: int, hello: Hello, admit: Callable[[Hello], None]
    ) -> None:
        """Enter a worker, or the new node of one that is known."""
        try:
            proven = proven_client(grid, node)
            if proven not in (None, hello.client):
                raise ValueError(
                    f"client {proven} by its certificate says it is client {hello.client}"
                )
            admit(hello)
        except ValueError as error:
            self._refuse(grid, node, str(error), for_good=True)
            return
        self._refusals.pop(node, None)
        client = self.clients.get(hello.client)
        if client is None:
            # What it holds is of an earlier run.
            client = Client(hello.client, node, hello.examples, session=hello.session + 1)
            self.clients[client.id] = client
        elif client.node != node and client.node in set(grid.get_node_ids()):
            log.warning(
                "node %d says it is client %d, which node %d is already: ignored; "
                "give each client its own partition-id or client-id",
                node,
                client.id,
                client.node,
            )
            return
        self._nodes.pop(client.node, None)
        same = hello.session == client.session
        client.node, client.held = node, hello.held if same else -1
        client.compressor = hello.compressor
        self._nodes[node] = client.id

    def _refuse(self, grid: Grid, node: int, why: str, *, for_good: bool) -> None:
        """Note why a node cannot take part; where no answer of its can change that, it hears so."""
        self._refusals[node] = printable(why)
        self._tell(node, "node %d cannot take part: %s", self._refusals[node])
        if for_good:
            dismiss(grid, node, self._refusals[node])

    def _tell(self, node: int, line: str, why: str) -> None:
        """Log what is wrong with a node, each time that it is something else."""
        if self._told.get(node) != why:
            log.warning(line, node, why)
        self._told[node] = why

    def _online(self, nodes: set[int]) -> list[Client]:
        return [client for _, client in sorted(self.clients.items()) if client.node in nodes]

    def sample(
        self, available: Iterable[Client], count: int, seed: int, server_round: int
    ) -> list[Client]:
        """Draw `count` of `available` without replacement, in order of their ids."""
        pool = sorted(available, key=attrgetter("id"))
        if count >= len(pool):
            return pool
        rng = np.random.default_rng([seed, server_round, _SAMPLING_STREAM])
        return [pool[i] for i in sorted(rng.choice(len(pool), size=count, replace=False))]


def wait_for(
    ready: Callable[[], list[Client]],
    needed: int,
    deadline: float,
    note: Callable[[tuple[int, int] | None], None] = lambda _: None,
) -> list[Client]:
    """Wait until `ready()` has at least `needed` workers, and return them.

    How many are there of how many is logged from time to time, and said to `note` whenever it was
    looked at; None once the wait is over. Nothing is said where there is no wait.

    Raises
    ------
    RoundError
        It has not within `deadline` seconds: says how many there are and what to do.
    """
    if len(found := ready()) >= needed:
        return found
    begun, pause, told = time.monotonic(), 0.05, _FIRST_TOLD
    try:
        while len(found) < needed:
            note((len(found), needed))
            waited = time.monotonic() - begun
            if waited >= deadline:
                raise RoundError(
                    f"{len(found)} of {needed} clients available after {deadline:g} s: start more "
                    "clients, lower min-available-nodes and min-train-nodes, or raise "
                    "available-timeout"
                )
            if waited >= told:
                told = min(2 * told, told + _MOST_UNTOLD)
                log.warning(
                    "a round waits for %d clients, and %d are there: it needs min-available-nodes "
                    "and min-train-nodes (min-evaluate-nodes where it evaluates)",
                    needed,
                    len(found),
                )
            time.sleep(pause)
            pause, found = min(2 * pause, 1.0), ready()
    finally:
        note(None)
    return found


def most_common_layout_first(hellos: Iterable[tuple[int, Hello]]) -> list[tuple[int, Hello]]:
    """Order hellos so that the layout most of them have comes first, then by client id.

    The first worker admitted decides which arrays are trained: let it be one of the majority.
    """
    hellos = list(hellos)
    counts = Counter(hello.layout.digest for _, hello in hellos)
    return sorted(hellos, key=lambda pair: (-counts[pair[1].layout.digest], pair[1].client))


def _reason(message: Message) -> str:
    """Return the reason in a worker's reply that is not a hello, if it gives one."""
    try:
        return Reply.decode(message.content).reason
    except ProtocolError:
        return ""
