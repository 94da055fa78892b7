"""The server opens one answer at a time, and keeps none of them."""

import weakref

import numpy as np
import pytest
from flwr.app import Message

from flowerpress.clients import FunctionTask, client_app
from flowerpress.protocol import Reply
from flowerpress.server import exchange as exchange_module
from flowerpress.simulations import InProcessGrid
from flowerpress.strategies import make_strategy
from tests.protocol.test_hostile_clients import forged

N, DIM, ROUNDS = 5, 64, 4


class Alive:
    """What was opened and is still there."""

    def __init__(self):
        self.opened, self._seen = 0, []

    def track(self, thing):
        self._seen.append(weakref.ref(thing))

    @property
    def count(self):
        return sum(ref() is not None for ref in self._seen)


ALIVE = Alive()


@pytest.fixture
def alive():
    ALIVE.__init__()
    return ALIVE


class Stored(Message):
    """A message whose content is read anew whenever it is asked for."""

    @classmethod
    def of(cls, message):
        stored = cls.__new__(cls)
        stored.__dict__ = dict(message.__dict__)
        stored.read = lambda: Reply.decode(message.content).encode()
        return stored

    @property
    def content(self):
        assert ALIVE.count == 0, "another answer is still open"
        ALIVE.opened += 1
        content = self.read()
        ALIVE.track(content)
        return content


class Tracked(Reply):
    @classmethod
    def decode(cls, content):
        reply = super().decode(content)
        ALIVE.track(reply)
        return reply


class StoringGrid(InProcessGrid):
    """Answers come as they do from a disk: in any order."""

    def send_and_receive(self, messages, *, timeout=None):
        replies = super().send_and_receive(messages, timeout=timeout)
        if replies and replies[0].metadata.message_type == "train":
            return [Stored.of(reply) for reply in reversed(replies)]
        return replies


def task_fn(i, n):
    return FunctionTask(np.full(DIM, 1.0), lambda x, _: (float(i), x - i))


def play(strategy, grid_class):
    with grid_class(lambda: client_app(task_fn), N) as grid:
        return strategy.start(grid, task_fn(0, N).initial_arrays(), num_rounds=ROUNDS)


# The relay of gossip passes packets on, and so keeps those of a round.
@pytest.mark.parametrize("name", ["dsgd", "ef14", "ef21", "diana", "cdadam", "fetchsgd", "fedavg"])
def test_one_answer_is_open_at_a_time(name, alive, monkeypatch):
    monkeypatch.setattr(exchange_module, "Reply", Tracked)
    options = {"compressor": "topk:k=4"} if name in ("dsgd", "ef14", "ef21", "cdadam") else {}
    stored = make_strategy(name, lr=0.1, min_available_nodes=N, **options)
    result = play(stored, StoringGrid)
    assert alive.count == 0
    assert alive.opened == (ROUNDS + 1) * N, "once each, and twice in the first round"
    monkeypatch.undo()
    plain = make_strategy(name, lr=0.1, min_available_nodes=N, **options)
    expected = play(plain, InProcessGrid)
    np.testing.assert_array_equal(stored.model.x, plain.model.x)
    assert stored.ledger.rows == plain.ledger.rows
    assert result.train_metrics_clientapp == expected.train_metrics_clientapp


def test_the_first_of_two_answers_counts_unless_it_cannot_be_read():
    class Twice(InProcessGrid):
        def send_and_receive(self, messages, *, timeout=None):
            orders = {message.metadata.dst_node_id: message for message in messages}
            replies = super().send_and_receive(orders.values(), timeout=timeout)
            if not replies or replies[0].metadata.message_type != "train":
                return replies
            again, order = replies[1], orders[replies[1].metadata.src_node_id]
            reply = Reply.decode(again.content)
            wrong = Message(forged(reply, client=0), reply_to=order)
            late = Message(forged(reply, packets=[]), reply_to=order)
            return [wrong, *replies, late]

    strategy = make_strategy("dsgd", compressor="identity", lr=0.1, min_available_nodes=N)
    play(strategy, Twice)
    plain = make_strategy("dsgd", compressor="identity", lr=0.1, min_available_nodes=N)
    play(plain, InProcessGrid)
    assert strategy.exchange.refused == 2 * ROUNDS
    np.testing.assert_array_equal(strategy.model.x, plain.model.x)
