"""Where a large message is put: once, and where its numbers may be used."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict

from flowerpress.clients import Task, client_app
from flowerpress.protocol import STYPE, ensure_task_identity
from flowerpress.protocol.arrays import PiecedArray, Pieces, misplaced
from flowerpress.protocol.blob import decode_blob, encode_blob, start_of_packets
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy
from flowerpress.transport.codec import decode, encode
from flowerpress.transport.pipes import Incoming, Memory, Stored
from tests.transport.linked import connected

D = 40_000


@pytest.mark.parametrize("place", [Memory, lambda size: Stored()])
@pytest.mark.parametrize("before", range(0, 40, 3))
def test_packets_lie_where_floats_may(place, before):
    blob = encode_blob({"a": "x" * (before % 7)}, [b"frame" * 9])
    there = place(before + len(blob))
    there.write(b"-" * before + blob)
    there.seek(0)
    assert there.read(before) == b"-" * before
    view = there.view(len(blob))
    assert bytes(view) == blob
    if before > 7 or isinstance(there, Stored):
        assert misplaced(view, start_of_packets(view)) == 0
        assert isinstance(decode_blob(view)[1][0], memoryview)
    assert bytes(decode_blob(view)[1][0]) == b"frame" * 9
    assert not there.read(5)


def test_a_length_that_is_only_said_takes_no_memory():
    before = resident()
    incoming = Incoming(1, 2**31, in_memory=2**31)
    incoming.add(b"x")
    assert resident() - before < 2**24


def resident() -> int:
    return 4096 * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])


def received(message: Message, in_memory: int) -> RecordDict:
    buffers = encode(message)
    incoming = Incoming(1, sum(map(len, buffers)), in_memory=in_memory)
    for buffer in buffers:
        incoming.add(bytes(buffer))
    content = decode(incoming.open(), incoming.size)[1]
    assert content is not None
    return content


@pytest.mark.parametrize("in_memory", [0, 2**30])
def test_arrays_of_others_are_bytes_and_ours_are_where_they_came(in_memory):
    ensure_task_identity(1)
    record = ArrayRecord({"w": Array(np.arange(D, dtype=np.float32))})
    record["m"] = pieced(b"y" * 2**17)
    record["short"] = pieced(b"z")
    content = received(Message(RecordDict({"r": record}), 2, "train"), in_memory)["r"]
    assert {name: type(array.data) for name, array in content.items()} == dict.fromkeys(
        record, bytes
    )
    assert [type(content[name]) is Array for name in ("w", "m", "short")] == [True, False, True]
    for name, array in record.items():
        assert content[name] == array


def pieced(data: bytes) -> PiecedArray:
    return PiecedArray(Pieces([data]), STYPE)


class Lent(Task):
    """Client i pulls towards i; its gradient is put where the worker says."""

    def __init__(self, i: int, *, into: bool) -> None:
        self.num_examples, self._i = 1, np.float32(i)
        if into:
            self.gradient_into = self._into

    def initial_arrays(self) -> ArrayRecord:
        x = np.random.default_rng(0).standard_normal(D, dtype=np.float32)
        return ArrayRecord({"x": Array(x)})

    def gradient(self, x, batch):
        out = np.empty_like(x)
        return self._into(x, out, batch), out

    def _into(self, x, out, batch):
        np.subtract(x, self._i, out=out)
        out *= np.linspace(0.5, 1, D, dtype=np.float32)
        return float(out[0])

    def evaluate(self, x):
        return {}


STRATEGIES = [
    ("ef21-sgdm", {}),
    ("ef21-sgdm", {"init": "compressed", "downlink": "topk:0.2"}),
    ("ef21-sgd2m", {"compressor": "qsgd:7"}),
    ("ef14", {}),
    ("ef14", {"feedback": "none"}),
    ("dsgd", {"compressor": "qsgd:7", "local_steps": 2}),
    ("fedavg", {}),
    ("marina", {"compressor": "randk:0.2", "p": 0.3}),
    ("vr-marina", {"compressor": "randk:0.2", "p": 0.3}),
    ("pp-marina", {"compressor": "randk:0.2", "p": 0.3, "fraction_train": 0.5}),
    ("dasha", {"compressor": "randk:0.2"}),
    ("diana", {"compressor": "randk:0.2"}),
    ("efficient-adam", {}),
    ("cdadam", {}),
    ("onebit-adam", {"warmup_rounds": 2}),
]


def strategy_of(name: str, options: dict) -> object:
    return make_strategy(
        name,
        lr=0.1,
        seed=3,
        **({"compressor": "topk:0.2"} | options) if name != "fedavg" else options,
    )


@pytest.mark.parametrize(("name", "options"), STRATEGIES)
def test_lent_memory_changes_no_number(name, options):
    runs = [
        simulate(
            strategy_of(name, options),
            lambda i, n, into=into: Lent(i, into=into),
            num_clients=3,
            num_rounds=5,
        )
        for into in (False, True)
    ]
    first, second = (run.arrays["x"].data for run in runs)
    assert first == second
    assert runs[0].ledger.rows == runs[1].ledger.rows


@pytest.mark.parametrize(("name", "options"), [STRATEGIES[i] for i in (0, 1, 3, 6, 9)])
def test_over_the_link_is_as_in_process(name, options):
    """Where a client's vectors are those that came, and nothing is copied on the way."""
    inside = simulate(
        strategy_of(name, options),
        lambda i, n: Lent(i, into=False),
        num_clients=2,
        num_rounds=4,
        seed=3,
    )
    with connected(client_app(lambda i, n: Lent(i, into=True)), 2) as (_, grid, _):
        result = strategy_of(name, options).start(grid, Lent(0, into=True).initial_arrays(), 4)
        assert result.arrays["x"].data == inside.arrays["x"].data


def test_a_model_is_where_it_came(monkeypatch):
    """The client's x is memory of the message, not a copy of it."""
    seen = []

    def gradient_into(self, x, out, batch):
        seen.append((x.flags.owndata, x.flags.writeable, x.flags.aligned))
        out[:] = 0
        return 0.0

    monkeypatch.setattr(Lent, "_into", gradient_into)
    with connected(client_app(lambda i, n: Lent(i, into=True)), 1) as (_, grid, _):
        strategy = make_strategy("fedavg", min_train_nodes=1, min_available_nodes=1)
        strategy.start(grid, Lent(0, into=True).initial_arrays(), 2)
    assert seen == [(False, True, True)] * 2
    strategy = make_strategy("fedavg", min_train_nodes=1, min_available_nodes=1)
    seen.clear()
    simulate(strategy, lambda i, n: Lent(i, into=True), num_clients=1, num_rounds=1)
    assert [owns for owns, _, _ in seen] == [True]


@pytest.fixture
def uncollected():
    """Have garbage stay that only the collector would find."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def large_arrays() -> int:
    """Return how many arrays of messages there are."""
    return sum(type(each) is PiecedArray for each in gc.get_objects())


def test_messages_are_freed_when_their_round_is_over(uncollected):
    """One that waits to be collected would hold a model of any size until then."""
    before = large_arrays()
    strategy = strategy_of("ef21-sgdm", {})
    simulate(strategy, lambda i, n: Lent(i, into=True), num_clients=2, num_rounds=8)
    assert large_arrays() - before <= 2
    with connected(client_app(lambda i, n: Lent(i, into=True)), 2) as (_, grid, _):
        strategy = strategy_of("ef21-sgdm", {})
        strategy.start(grid, Lent(0, into=True).initial_arrays(), 8)
        assert large_arrays() - before <= 4
        assert strategy.model._lent_of(strategy.model.replica.model) is None
