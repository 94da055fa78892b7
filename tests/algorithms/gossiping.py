"""Nodes of a graph on quadratics that differ, and their models round by round."""

import copy

import numpy as np

from flowerpress.clients import client_app
from flowerpress.compressors import add_to
from flowerpress.simulations import InProcessGrid, simulate
from flowerpress.strategies.gossip.topology import make_topology
from flowerpress.worker.stores import DiskStore
from tests.algorithms.problems import SEED, Quadratics, vector


class Nodes(Quadratics):
    """`gradient` also knows the local step: noise comes from the worker's documented stream."""

    def gradient(self, i, x, t, h=0):
        rng = np.random.default_rng([SEED, i, t])
        noise = [rng.standard_normal(self.dim) for _ in range(h + 1)][-1]
        return self.A[i] @ (x - self.b[i]) + self.noise * noise


def weights(spec, n):
    return make_topology(spec, range(n), SEED).matrix


def run(strategy, task_fn, n, rounds, **options):
    """Return the result, and all nodes' models after each round, shape (rounds, n, d)."""
    models = []

    def collect(record):
        if record.round:
            models.append([vector(arrays) for _, arrays in strategy.local_models()])

    strategy.collect_every = 1
    result = simulate(strategy, task_fn, n, rounds, SEED, on_round=collect, **options)
    return result, np.array(models)


def spread(models):
    """Squared distance of the models from their mean, summed; over the last two axes."""
    return np.sum((models - models.mean(axis=-2, keepdims=True)) ** 2, axis=(-2, -1))


class Weather(InProcessGrid):
    """Nodes may be out of reach, and messages lost, from round to round."""

    hidden: frozenset = frozenset()
    lose_down: frozenset = frozenset()
    lose_up: frozenset = frozenset()
    heard: list  # training replies that arrived last

    def partition(self, node):
        return self._nodes[node].context.node_config["partition-id"]

    def restart_as_new_node(self, partition):
        """As a SuperNode without keys does: another node id, and what is on the disk."""
        (old,) = (node for node in self._nodes if self.partition(node) == partition)
        node = self._nodes.pop(old)
        node.context.node_id = max(self._nodes) + 100
        node.app = self._new_app()
        self._nodes[node.context.node_id] = node

    def get_node_ids(self):
        return [k for k in super().get_node_ids() if self.partition(k) not in self.hidden]

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        if any(m.metadata.message_type != "train" for m in messages):
            return super().send_and_receive(messages, timeout=timeout)
        lost = self.lose_down
        arriving = [m for m in messages if self.partition(m.metadata.dst_node_id) not in lost]
        replies = super().send_and_receive(arriving, timeout=timeout)
        lost = self.lose_up
        self.heard = [r for r in replies if self.partition(r.metadata.src_node_id) not in lost]
        return self.heard


def weather(task_fn, folder, n):
    config = {"state-store": "disk", "state-dir": str(folder)}
    return Weather(lambda: client_app(task_fn), n, node_config=config)


def play(strategy, grid, arrays, r):
    messages = list(strategy.configure_train(r, arrays, None, grid))
    strategy.aggregate_train(r, grid.send_and_receive(messages))


def disk(folder, client):
    (path,) = folder.glob(f"run-*/client-{client}.safetensors")
    return path


def settled(strategy, folder):
    """What every node holds once it has done all it owes: its model, public copy, and t."""
    found = {}
    for client in strategy.population.clients.values():
        state = DiskStore(disk(folder, client.id)).load()
        x, t, public = (state.vectors[name].copy() for name in ("x", "t", "memory"))
        if state.packet and client.receiver.applied == state.numbers["pending"]:
            add_to(state.packet, public, state.numbers["scale"])
        node = copy.deepcopy(strategy.hub.nodes[client.id])  # the relay has not heard it yet
        node.hear(int(state.numbers["held"]))
        assert node.start is None
        for mix, gamma in node.owed:
            t = mix.total(x) if mix.whole else t + mix.total(x)
            x = x + gamma * (t - mix.own * public)
        found[client.id] = x, t, public
    return found


def check_copies(strategy, folder, *, among=None):
    """Relay and nodes hold the same public copies, and sums of them that belong together."""
    nodes = settled(strategy, folder)
    for i, (_, t, public) in nodes.items():
        if among is not None and i not in among:
            continue
        np.testing.assert_array_equal(public, strategy.hub.nodes[i].public)
        row = strategy.hub.topology.weights.get(i)
        if row is None or strategy.hub.nodes[i].changed:
            continue  # it is sent the sum whole when it is in the graph again
        expected = sum(weight * strategy.hub.nodes[j].public for j, weight in row.items())
        # The same packets, added one by one here and all at once there.
        np.testing.assert_allclose(t, expected, rtol=0, atol=1e-12)
    return np.array([x for x, _, _ in nodes.values()])
