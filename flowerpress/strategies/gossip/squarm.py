"""SQuARM-SGD: the relay, where there is no server model.

Singh, Data, George, Diggavi 2021 (arXiv:2005.07041). Nodes of a graph train models of their own,
and draw them towards those of their neighbours. Flower is a star, so what a node makes public goes
to its neighbours by way of this strategy, which only routes:

    1. each node i: H steps of SGD with Nesterov's momentum on x_i
    2. if |x_i - xhat_i|^2 > c_t lr^2:  make q_i = C(x_i - xhat_i) public;  xhat_i += q_i
    3. x_i += gamma * sum over neighbours j of w_ij (xhat_j - xhat_i)

xhat_i is what all know of x_i, w the Metropolis-Hastings weights of the graph
(`flowerpress.strategies.gossip.topology`). The mean of the x_i, which 3 leaves alone, is the
result. It is asked for at the end, and every ``collect_every`` rounds: a second exchange in which
each node sends x_i whole. In the rounds between, the model handed on is the mean of the xhat_i. The
worker half is in ``clients/gossip.py``.

A lost message costs its packet, which is sent again with the next one, and nothing else: each
synchronisation is done by every node in it, late if need be, so that the mean is left alone. A node
unheard of for `patience` rounds is cut out of the graph, which is drawn anew without it; when it
comes back it does what it owed and is in again. A node that lost its memory begins anew at its
public copy, one that joins at the mean of all public copies; its neighbours are then sent their
sums whole, once. CHOCO-SGD and plain decentralized SGD are in ``strategies/gossip/choco.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from flowerpress.protocol import Hello, Hyper, ModelPart, finite_numbers
from flowerpress.server.ask import Ask, Steps
from flowerpress.server.base import FloatVector
from flowerpress.server.client import Client
from flowerpress.server.options import fixed, number, one_of, option, text, whole
from flowerpress.server.suitable import CONTRACTION, CONTRACTIVE
from flowerpress.server.tree import Tree
from flowerpress.server.update import Update
from flowerpress.strategies.gossip.collection import OwnModels
from flowerpress.strategies.gossip.consensus import GAMMA, Consensus, safe_gamma
from flowerpress.strategies.gossip.relay import RELAYS, Relay
from flowerpress.strategies.gossip.topology import listed, make_topology, ring
from flowerpress.strategies.gossip.trigger import Trigger

log = logging.getLogger("flowerpress")
_EVERYONE = "1.0: nodes that are not asked would fall behind; use ef21 to sample workers"


class SquarmSGD(OwnModels):
    """Decentralized SGD with momentum, compressed differences, and a trigger."""

    name = "squarm-sgd"
    summary_line = "gossip with momentum, local steps, a trigger, and compressed differences"
    citation = "Singh, Data, George, Diggavi 2021, arXiv:2005.07041"
    contractive = True
    baseline = "d-psgd"
    shared = True
    owing = True

    topology: str = option(
        "ring",
        text(),
        "Graph of the nodes, see `flowerpress.strategies.gossip.topology.make_topology`.",
    )
    compressor: str = option("signtopk:0.01", CONTRACTION, CONTRACTIVE, letter="C")
    lr: float = option(0.05, says="Step size of the local steps.", letter="eta")
    momentum: float = option(
        0.9, number("[0, 1)"), "Nesterov's: weight of the OLD velocity.", letter="beta", sent=True
    )
    local_steps: int = option(5, says="Steps between synchronisations.", letter="H")
    gamma: float | str = option(
        0.0,
        GAMMA,
        "Step towards the neighbours, in (0, 1]. 0: safe for the compressor on vectors without "
        'structure (1 for identity, about 0.02 for topk:0.01); "auto": begins there, and is halved '
        "where the nodes come apart.",
        letter="gamma",
    )
    threshold: float = option(
        0.0,
        number("(-inf, inf)"),
        "The trigger in round t is c_t = threshold * t**threshold_power, and threshold_step "
        "more after every threshold_every rounds. 0: whatever has changed is sent; negative: "
        "always.",
        letter="c_0",
    )
    threshold_power: float = option(0.0, number("[0, 1]"), "See `threshold`.")
    threshold_step: float = option(0.0, number("[0, inf)"), "See `threshold`.")
    threshold_every: int = option(0, whole(0), "See `threshold`.")
    relay: str = option(
        "forward",
        one_of(*RELAYS),
        "What a node is sent of its neighbours' packets: all as they are, their weighted sum, "
        "or the smaller of the two. Nodes end up the same, to the bit.",
    )
    init: str = option(
        "model",
        one_of("model", "own"),
        "Nodes begin at the model they are sent; or each at its own task's, with nothing public.",
    )
    catch_up: int = option(
        3,
        whole(0),
        "Packets a node may send beside the next one, for those it lost or could not send.",
        sent=True,
    )
    patience: int = option(
        10,
        whole(1),
        "Rounds without a word from a node after which it is cut out of the graph.",
    )
    collect_every: int = option(
        0,
        whole(0),
        "Rounds between collections of the nodes' models; 0: at the end only.",
    )
    weights: str = fixed("uniform", "uniform: the nodes' plain mean is kept")
    fraction_train: float = fixed(1.0, _EVERYONE)
    local_lr: float = fixed(0.0, "0: local steps go by lr")

    def check(self) -> None:
        super().check()
        self.trigger = Trigger(
            self.threshold, self.threshold_power, self.threshold_step, self.threshold_every
        )
        self.listed = listed(self.topology)
        self.c = self.trigger(1)

    def admit(self, hello: Hello) -> None:
        if self.listed is not None and hello.client not in self.listed:
            raise ValueError(f"client {hello.client} has no edge in {self.topology}")

    def network(self, nodes: Iterable[int]) -> str:
        return str(make_topology(self.topology, nodes, self.seed))

    def begin(self) -> None:
        model = self.model
        self.hub = Relay(model.x, model.packed_buffers(), self.init == "own", self.relay)

    def state(self) -> dict[str, Tree]:
        drawn = self.consensus.state() if self.hub.there else None
        return {**super().state(), "relay": self.hub.state(), "consensus": drawn}

    def restore(self, state: dict[str, Tree]) -> None:
        relay, consensus = state.pop("relay"), state.pop("consensus")
        super().restore(state)
        self.hub.restore(relay)
        if consensus is not None:
            self.consensus = Consensus(self.gamma, consensus[0])
            self.consensus.restore(consensus)

    def round(self, server_round: int) -> Steps:
        self.drop()
        everyone = self.sample(server_round)
        self._meet(everyone, server_round)
        self.c = self.trigger(server_round)
        S = yield Ask(  # 1-2
            everyone,
            into=self._receive,
            part_for=self._part_for,
            silence=True,
            several=True,
            buffers=False,
            optional=True,
        )
        self.consensus.watch([finite_numbers(reply.metrics) for _, reply in self.run.taken])
        if S:
            self.hub.settle((client.id for client in S), self.consensus.gamma)  # 3
            self.model.jump(self.hub.mean(), server_round)
            self.told = {"gamma": self.consensus.gamma, "edge-bytes": self.hub.edge_bytes}
        every = self.collect_every
        if server_round == self.num_rounds or (every and server_round % every == 0):
            yield from self._collect(server_round)

    def _collect(self, server_round: int) -> Steps:
        """Collect the nodes' models: the model is then their mean."""
        self.told["consensus-error"] = yield from self.gather(server_round)
        self.hub.buffers = self.model.packed_buffers()

    def conclude(self, server_round: int, grid: Grid) -> ArrayRecord | None:
        """Collect the nodes' models, unless that was done in this round."""
        if self.collected == server_round:
            return None
        self.grid, steps = grid, self._collect(server_round)
        with suppress(StopIteration):  # where nobody can be reached
            self.ask(server_round, steps, next(steps))
        if self.train_metrics is not None:  # the record that `aggregate_train` returned
            self.train_metrics["consensus-error"] = self.told["consensus-error"]
        return self.model.arrays()

    def _meet(self, cohort: list[Client], server_round: int) -> None:
        """Draw the graph of who is there, and find out who must begin anew."""
        relay = self.hub
        for client in cohort:
            node = relay.nodes.get(client.id)
            if node and (
                node.lacks(client.held) or (node.start is not None and client.receiver.applied)
            ):
                log.warning("client %d begins anew at its public copy", client.id)
                client.receiver.applied = 0
                relay.begin(client.id)
        new = {client.id for client in cohort} - set(relay.nodes)
        there = new | {i for i, node in relay.nodes.items() if node.away < self.patience}
        if there and there != set(relay.there):
            self._draw_graph(there, server_round)

    def _draw_graph(self, there: set[int], server_round: int) -> None:
        relay, first = self.hub, not self.hub.there
        whole = first or self.listed is None  # what is left of a file's graph may be in pieces
        try:
            graph = make_topology(self.topology, there, self.seed, connected=whole)
        except (ValueError, OSError) as error:
            if first:
                hint = "min-available-nodes says for how many nodes to wait"
                raise ValueError(f"{error} ({hint})") from None
            log.warning("round %d: %s; until then what comes closest", server_round, error)
            graph = ring(there)
        relay.rewire(graph)
        if first:
            safe = safe_gamma(self.compressor, self.model.layout, self.seed)
            self.consensus = Consensus(self.gamma, safe)
        self.consensus.gap = graph.gap
        log.info("round %d: %s, gamma %.3g", server_round, graph, self.consensus.gamma)
        if not graph.connected:
            log.warning("round %d: the graph is in pieces until nodes return", server_round)

    def disagree(self, client: Client, server_round: int) -> bool:
        client.held = -1  # it begins anew in the next round
        return False

    def _part_for(self, client: Client) -> ModelPart:
        return self.hub.nodes[client.id].part()

    def evaluation(self, judges: list[Client]) -> Ask:
        own = self.run.nothing  # a node evaluates its own model
        return Ask(judges, what="evaluation", part_for=own, buffers=False)

    def question(self, holders: list[Client], seconds: float) -> Ask:
        return replace(super().question(holders, seconds), part_for=self._part_for)

    def needed(self, at_least: int) -> int:
        return 1 if self.run.model and self.hub.there else super().needed(at_least)

    def _receive(self, update: Update) -> None:
        self.hub.nodes[update.client.id].hear(update.held)
        for packet in update.packets:
            self.hub.receive(update.client.id, packet, update.scale)

    def holders(self) -> dict[int, FloatVector]:
        return {i: self.hub.nodes[i].public for i in self.hub.there}

    def keep(self, update: Update) -> None:
        self.hub.nodes[update.client.id].hear(update.held)
        super().keep(update)

    def hyper(self) -> Hyper:
        return {**super().hyper(), "threshold": self.c}
