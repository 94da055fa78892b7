"""Runs of the sketching strategies in which messages get lost, and what reached whom."""

import numpy as np

from flowerpress.clients import client_app
from flowerpress.compressors import Draw
from flowerpress.compressors.linear.countsketch import CountSketch
from flowerpress.protocol import Instruction, Reply
from flowerpress.simulations import InProcessGrid
from tests.algorithms.problems import SEED
from tests.reference.sketched import Events


def signs_of(rows, columns, dim):
    """The package's own sketch, of every unit vector, with the documented hash of a round."""
    sketch = CountSketch(rows, columns=columns)

    def signs(r):
        cells = []
        for unit in np.eye(dim):
            table = sketch.empty(dim, unit.dtype, Draw(SEED, r))
            table.add(sketch.compress(unit, Draw(SEED, r)))
            cells.append(table.cells.reshape(rows, -1))
        return np.stack(cells, axis=-1)

    return signs


class LossyGrid(InProcessGrid):
    """Loses messages by a rule, starts a new process for each, and writes down what came through.

    `loses(r, client, stage, direction)` is the rule; `hidden` are partitions that are not there.
    """

    def __init__(self, problem, folder, loses=None):
        config = {"state-store": "disk", "state-dir": str(folder)}
        super().__init__(lambda: client_app(problem.task_fn), problem.n, node_config=config)
        self.folder, self.hidden, self.events = folder, set(), {}
        self.loses = loses or (lambda *where: False)

    def get_node_ids(self):
        return [node for node in super().get_node_ids() if node - 2 not in self.hidden]

    def event(self, r):
        return self.events.setdefault(r, Events())

    def _deliver(self, message):
        if message.metadata.message_type != "train":
            return super()._deliver(message)
        order = Instruction.decode(message.content)
        client, event = message.metadata.dst_node_id - 2, self.event(order.round)
        if self.loses(order.round, client, order.stage, "down"):
            return None
        node = self._nodes[message.metadata.dst_node_id]
        node.app = self._new_app()
        reply = super()._deliver(message)
        if Reply.decode(reply.content).status != "update":
            return reply
        if order.stage == 1:
            event.reached.append(client)
        if self.loses(order.round, client, order.stage, "up"):
            return None
        (event.sketched if order.stage == 1 else event.exact).append(client)
        return reply

    def lose_disk(self, client, before):
        (path,) = self.folder.glob(f"run-*/client-{client}.safetensors")
        path.unlink()
        self.event(before).forgot.append(client)


def run(strategy, problem, rounds, grid, between=lambda r: None):
    """Run round by round, `between(r)` before round r; returns the models x^0, x^1, ..."""
    strategy.seed = SEED
    arrays = problem.task_fn(0, problem.n).initial_arrays()
    models = [problem.x0]
    with grid:
        for r in range(1, rounds + 1):
            between(r)
            messages = strategy.configure_train(r, arrays, None, grid)
            strategy.aggregate_train(r, grid.send_and_receive(messages))
            models.append(strategy.model.x.copy())
    return np.array(models)


def seeded_loss(chance, seed=0):
    """Lose each message with this chance, by a draw of its own."""

    def loses(r, client, stage, direction):
        stream = [seed, r, client, stage, direction == "up"]
        return np.random.default_rng(stream).random() < chance

    return loses
