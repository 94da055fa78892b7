"""A client that lies: what it sends is refused or weighs no more than it should."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from flowerpress.clients import FunctionTask, client_app
from flowerpress.compressors import make_compressor
from flowerpress.protocol import Reply
from flowerpress.protocol.blob import encode_blob, to_array
from flowerpress.simulations import InProcessGrid
from flowerpress.strategies import make_strategy

DIM = 8


def honest(i, n):
    return FunctionTask(np.zeros(DIM), lambda x, _: (0.0, x - 1.0 - i))


def identity(x):
    return make_compressor("identity").compress(x).data


def forged(reply, **changes):
    fields = {name: getattr(reply, name) for name in Reply.__dataclass_fields__} | changes
    return Reply(**fields).encode()


def blob(data):
    return RecordDict({"arrays": ArrayRecord({"message": to_array(data)})})


LIES = {
    "no content": lambda r: RecordDict(),
    "another record": lambda r: RecordDict({"arrays": MetricRecord({"x": 1.0})}),
    "numpy array": lambda r: RecordDict({"arrays": ArrayRecord({"message": Array(np.zeros(3))})}),
    "empty blob": lambda r: blob(b""),
    "no header": lambda r: blob(encode_blob({})),
    "another client": lambda r: forged(r, client=0),
    "old question": lambda r: forged(r, version=r.version - 1),
    "future question": lambda r: forged(r, version=r.version + 1),
    "another base": lambda r: forged(r, base=r.base + 1),
    "two packets": lambda r: forged(r, packets=r.packets * 2),
    "no packet": lambda r: forged(r, packets=[]),
    "garbage packet": lambda r: forged(r, packets=[b"garbage" * 9]),
    "cut packet": lambda r: forged(r, packets=[r.packets[0][:-1]]),
    "longer vector": lambda r: forged(r, packets=[identity(np.ones(DIM + 1))]),
    "another dtype": lambda r: forged(r, packets=[identity(np.ones(DIM, np.float32))]),
    "buffers": lambda r: forged(r, buffers=identity(np.ones(2))),
    "failed": lambda r: forged(r, status="failed", reason="x" * 10_000),
}


class LyingGrid(InProcessGrid):
    """Client 1's training replies are replaced by lies."""

    lie = None

    def send_and_receive(self, messages, *, timeout=None):
        orders = {message.metadata.dst_node_id: message for message in messages}
        replies = super().send_and_receive(orders.values(), timeout=timeout)
        liar = orders.get(3)
        if self.lie is None or liar is None or liar.metadata.message_type != "train":
            return replies
        return [
            Message(self.lie(Reply.decode(reply.content)), reply_to=liar)
            if reply.metadata.src_node_id == 3
            else reply
            for reply in replies
        ]


def run(lie, rounds=6, name="ef21"):
    strategy = make_strategy(name, compressor="topk:k=2", lr=0.1, min_available_nodes=3)
    arrays = honest(0, 3).initial_arrays()
    models = []
    with LyingGrid(lambda: client_app(honest), 3) as grid:
        for server_round in range(1, rounds + 1):
            grid.lie = lie if server_round == 3 else None
            orders = strategy.configure_train(server_round, arrays, None, grid)
            strategy.aggregate_train(server_round, grid.send_and_receive(orders))
            models.append(strategy.model.x.copy())
    return strategy, models


@pytest.mark.parametrize("name", ["ef21", "ef14", "dsgd"])
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_the_same_as_silence(lie, name):
    if lie == "another base" and name != "ef21":
        pytest.skip("nothing is shared: the base says only what the client lost itself")
    strategy, models = run(LIES[lie], name=name)
    _, silent = run(lambda r: forged(r, status="failed"), name=name)
    assert strategy.exchange.refused + strategy.exchange.resyncs == (lie != "failed")
    if lie == "another base":  # ... and all start over, so that the state is shared again
        assert np.isfinite(models).all()
        return
    np.testing.assert_array_equal(models, silent)


def test_nobody_can_make_all_start_over_in_every_round():
    strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.1, min_available_nodes=3)
    arrays = honest(0, 3).initial_arrays()
    with LyingGrid(lambda: client_app(honest), 3) as grid:
        grid.lie = lambda r: forged(r, status="resync")
        for server_round in range(1, 31):
            orders = strategy.configure_train(server_round, arrays, None, grid)
            strategy.aggregate_train(server_round, grid.send_and_receive(orders))
    dense = [
        row.round
        for row in strategy.ledger.rows
        if row.client == 0 and row.direction == "up" and row.payload > 80
    ]
    assert len(dense) <= 4, "once at the start, then at most every tenth round"
