"""A client that lies: what it sends is refused or weighs no more than it should."""

from types import MappingProxyType

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from flowerpress.clients import FunctionTask, client_app
from flowerpress.compressors import make_compressor
from flowerpress.protocol import Hello, Layout, Reply
from flowerpress.protocol.blob import encode_blob, to_array
from flowerpress.protocol.layout import Entry
from flowerpress.simulations import InProcessGrid
from flowerpress.strategies import make_strategy

DIM = 8


def honest(i, n):
    return FunctionTask(
        np.zeros(DIM), lambda x, _: (0.0, x - 1.0 - i), evaluate=lambda x: {"loss": 0.0}
    )


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
    "silent": lambda r: forged(r, status="silent", packets=[]),
    "silent with a packet": lambda r: forged(r, status="silent"),
    "failed": lambda r: forged(r, status="failed", reason="x" * 10_000),
    "stale": lambda r: forged(r, status="stale", base=2**62),
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


CASES = [
    (lie, name)
    for lie in LIES
    for name in ("ef21", "ef14", "dsgd", "squarm-sgd")
    # Where nothing is shared, the base says only what the client lost itself.
    if lie != "another base" or name in ("ef21", "squarm-sgd")
    # There it is no lie, but an answer.
    if lie != "silent" or name != "squarm-sgd"
]


# No update where none may be missing: logged, as other answers without one are.
UNCOUNTED = {("silent with a packet", name) for name in ("ef21", "ef14", "dsgd")}


@pytest.mark.parametrize(("lie", "name"), CASES)
def test_a_lie_is_the_same_as_silence(lie, name):
    strategy, models = run(LIES[lie], name=name)
    _, silent = run(lambda r: forged(r, status="failed"), name=name)
    counted = lie not in ("failed", "silent", "stale") and (lie, name) not in UNCOUNTED
    assert strategy.exchange.refused + strategy.exchange.resyncs == counted
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


class HelloGrid(InProcessGrid):
    """The nodes given say something else of themselves."""

    lies = MappingProxyType({})

    def send_and_receive(self, messages, *, timeout=None):
        orders = {message.metadata.dst_node_id: message for message in messages}
        replies = super().send_and_receive(orders.values(), timeout=timeout)
        twisted = []
        for reply in replies:
            node, kind = reply.metadata.src_node_id, reply.metadata.message_type
            lie = self.lies.get((node, kind))
            twisted.append(Message(lie(reply.content), reply_to=orders[node]) if lie else reply)
        return twisted


def hello(**changes):
    def lie(content):
        honest_one = Hello.decode(content)
        fields = {name: getattr(honest_one, name) for name in Hello.__dataclass_fields__}
        return Hello(**(fields | changes)).encode()

    return lie


def start(lies, rounds=3, **options):
    strategy = make_strategy("ef14", compressor="topk:k=2", lr=0.1, **options)
    strategy.min_available_nodes = 3
    with HelloGrid(lambda: client_app(honest), 4) as grid:
        grid.lies = lies
        result = strategy.start(grid, honest(0, 4).initial_arrays(), num_rounds=rounds, timeout=60)
    return strategy, result


def test_the_majority_decides_what_is_trained():
    frozen = Layout((Entry("x", (DIM,), "float64", trained=False),))
    strategy, _ = start({(2, "query"): hello(layout=frozen)})
    assert strategy.model.layout.dim == DIM
    assert sorted(strategy.population.clients) == [1, 2, 3]


def test_nobody_takes_the_place_of_a_client_that_is_there():
    strategy, _ = start({(5, "query"): hello(client=0)})
    assert sorted(strategy.population.clients) == [0, 1, 2]
    assert strategy.population.clients[0].node == 2


def test_a_hello_of_infinities_is_refused(caplog):
    def lie(content):
        text = b'{"client":0,"examples":1,"held":0,"layout":[["x",[1e999],"float64",true]],'
        text += b'"session":0,"sizes":[]}'
        return blob(b"FPM1" + len(text).to_bytes(4, "little") + text)

    strategy, _ = start({(2, "query"): lie})
    assert sorted(strategy.population.clients) == [1, 2, 3]
    assert "node 2 cannot take part: layout entry" in caplog.text


@pytest.mark.parametrize("examples", [0, -1, 2**53, 2**63, 1.5, True])
def test_a_number_of_examples_is_one(examples, caplog):
    strategy, _ = start({(2, "query"): hello(examples=examples)})
    assert sorted(strategy.population.clients) == [1, 2, 3]
    assert f"message field 'examples' is {examples}, expected" in caplog.text


EVALUATIONS = {
    "nothing": lambda content: RecordDict(),
    "a list": lambda content: RecordDict({"metrics": MetricRecord({"loss": [1.0], "n": 1})}),
    "negative weight": lambda c: RecordDict({"metrics": MetricRecord({"num-examples": -2})}),
    "huge weight": lambda c: RecordDict(
        {"metrics": MetricRecord({"num-examples": 1e300, "loss": 1e6})}
    ),
    "not finite": lambda c: RecordDict({"metrics": MetricRecord({"loss": float("nan")})}),
}


@pytest.mark.parametrize("lie", EVALUATIONS)
def test_an_evaluation_weighs_what_the_client_weighs(lie):
    _, result = start(
        {(2, "evaluate"): EVALUATIONS[lie]}, fraction_evaluate=1.0, min_evaluate_nodes=1
    )
    for metrics in result.evaluate_metrics_clientapp.values():
        assert metrics.get("loss", 0.0) <= 1e6 / 4
