"""Clients in the server's process: what they share, what they keep, and that nobody notices."""

from __future__ import annotations

import copy
import gc
import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from flowerpress.clients import FunctionTask, Task
from flowerpress.compressors import Draw, make_compressor
from flowerpress.compressors.wire import ids
from flowerpress.compressors.wire.reading import Opened
from flowerpress.compressors.wire.recent import RECENT, Recent
from flowerpress.protocol import Instruction, ModelPart, ProtocolError, Reply, blob, content_bytes
from flowerpress.protocol import replica as replicas
from flowerpress.protocol.cohort import Letters
from flowerpress.protocol.content import wrap
from flowerpress.protocol.shared import share, shared_of
from flowerpress.protocol.unjoined import Unjoined
from flowerpress.simulations import simulate, spilled
from flowerpress.simulations.engine import InProcessGrid
from flowerpress.strategies import make_strategy
from flowerpress.worker import aside
from flowerpress.worker.app import client_app
from flowerpress.worker.aside import Attic
from flowerpress.worker.memory import keep_moments, settle_moments
from flowerpress.worker.stores import LiveStore

PACKET = make_compressor("topk:k=2").compress(np.array([3.0, 0.0, 4.0])).data
LONG = 20_000  # numbers of a vector that is worth a file


def problem(dim=60, draws=True):
    """A task function: each client pulls to a place of its own."""

    def task_fn(client, _):
        to = np.random.default_rng(client).standard_normal(dim).astype(np.float32)
        return FunctionTask(np.zeros(dim, np.float32), lambda x, _: (0.0, x - to))

    return task_fn


def model(result):
    (array,) = result.arrays.values()
    return array.numpy()


def run(strategy="ef21-sgdm", task_fn=None, clients=4, rounds=6, **options):
    given = {"compressor": "topk:0.1"} if strategy != "fedavg" else {}
    made = make_strategy(strategy, lr=0.2, **given)
    return simulate(made, task_fn or problem(), clients, rounds, **options)


# What a cohort shares --------------------------------------------------------------------------


@pytest.mark.parametrize(("clients", "decoded"), [(5, 3), (1, 3)])
def test_a_model_is_decoded_once_for_all(monkeypatch, clients, decoded):
    calls, vectors = [], replicas._vectors
    monkeypatch.setattr(replicas, "_vectors", lambda *of: calls.append(1) or vectors(*of))
    run(clients=clients, rounds=3)
    assert len(calls) == decoded


class Scribbler(Task):
    """Writes over the model that it is given, as tasks may."""

    num_examples = 1

    def __init__(self, client, scribbles):
        self.to = np.random.default_rng(client).standard_normal(60).astype(np.float32)
        self.scribbles = scribbles

    def initial_arrays(self):
        return ArrayRecord({"x": Array(np.zeros(60, np.float32))})

    def gradient(self, x, batch):
        gradient = x - self.to
        if self.scribbles:
            x[:] = np.nan
        return 0.0, gradient

    def evaluate(self, x):
        return {}


@pytest.mark.parametrize("strategy", ["ef21-sgdm", "dsgd", "efficient-adam"])
def test_a_task_that_writes_to_its_model_harms_no_other(strategy):
    calm = run(strategy, lambda i, n: Scribbler(i, scribbles=False))
    wild = run(strategy, lambda i, n: Scribbler(i, scribbles=i == 0))
    np.testing.assert_array_equal(model(calm), model(wild))


def test_what_is_shared_goes_with_its_array():
    array = Array("uint8", (1,), "x", b"a")
    assert shared_of(array) is None
    assert shared_of(None) is None
    share(array)
    shared = shared_of(array)
    share(array)
    assert shared_of(array) is shared
    key = id(array)
    del array
    gc.collect()
    from flowerpress.protocol import shared as module

    assert key not in module._shared


@pytest.mark.parametrize("told", [{}, {"refused": 7}, {"refused": 8, "absurd": 8}])
@pytest.mark.parametrize(
    "more", [{}, {"buffers": PACKET}, {"buffers": PACKET, "places": b"abc", "stage": 2}]
)
@pytest.mark.parametrize("part", ["snapshot", "deltas", "nothing"])
def test_a_letter_is_the_instruction_to_the_byte(told, more, part):
    parts = {
        "snapshot": ModelPart.snapshot(3, [PACKET]),
        "deltas": ModelPart(3, 2, [PACKET], [0.5], mark=9),
        "nothing": ModelPart(3, 3),
    }
    hyper = {"lr": 0.1, "rank": "@", "compressor": 'topk:k=1,"rank":0', "x": True}
    order = Instruction("ef21", 4, 5, 0, "digest", hyper, ModelPart(3, 3), cohort=9, **more)
    letters = Letters(order)
    for rank in (0, 3):
        own = {"session": 2, "rank": rank, "applied": 4, "refused": 0, "absurd": 0, **told}
        whole = replace(order, model=parts[part], **own)
        content, payload = letters.to(parts[part], **own)
        assert content["arrays"]["message"].data == whole.encode()["arrays"]["message"].data
        assert set(content["arrays"]) == set(whole.encode()["arrays"])
        assert payload == whole.payload
        assert Instruction.decode(content) == whole
    content, _ = letters.to(parts[part], session=3)  # an evaluation's
    expected = replace(order, model=parts[part], session=3).encode()
    assert content["arrays"]["message"].data == expected["arrays"]["message"].data


def test_headers_are_written_once_for_a_cohort(monkeypatch):
    """Of each client only its reply, and the sizes of what it is sent."""
    counts = {}
    written, text = [], blob.text
    monkeypatch.setattr(blob, "text", lambda value: written.append(1) or text(value))
    for clients in (2, 12):
        written.clear()
        run(clients=clients, rounds=5)
        counts[clients] = len(written)
    assert counts[12] - counts[2] <= 10 * (5 + 3)  # a hello's two, and a reply a round


# Messages that are not joined ------------------------------------------------------------------


def test_what_is_not_joined_is_an_array_like_any_other():
    header = {"a": 1}
    array = blob.unjoined(header, [PACKET, b"xyz"])
    whole = blob.encode_blob(header, [PACKET, b"xyz"])
    plain = blob.to_array(whole)
    assert len(array.parts) == 3
    assert content_bytes(wrap(array)) == content_bytes(wrap(plain))
    assert len(array.parts) == 3  # counting joins nothing
    assert blob.decode_array(array)[1][0] is PACKET  # the sender's own
    again = blob.unjoined(header, [PACKET, b"xyz"])
    for other in (copy.deepcopy(again), pickle.loads(pickle.dumps(array))):
        assert type(other) is Array
        assert other == plain
    assert array.data == whole
    assert array.data is array.data
    assert array.object_id == plain.object_id
    assert blob.decode_array(array) == blob.decode_blob(whole)
    array.data = b"else"
    assert array.data == b"else"
    assert array.nbytes == 4
    with pytest.raises(ProtocolError, match="shorter than its prefix"):
        blob.decode_array(array)


def test_pieces_that_are_not_what_their_header_says_are_refused():
    good = blob.unjoined({"a": 1}, [PACKET])
    head = good.parts[0]
    for parts in ([head, PACKET[:-1]], [head, PACKET, b"x"], [head + b"x", PACKET]):
        with pytest.raises(ProtocolError, match="announced"):
            blob.decode_array(Unjoined(parts))


def test_a_reply_is_the_same_bytes_joined_or_not():
    reply = Reply(1, 2, packets=[PACKET], buffers=PACKET, metrics={"loss": 0.5, "each": [1, 2]})
    content = reply.encode(held=True)
    assert content["arrays"]["message"].held
    assert Reply.decode(content) == reply
    joined = wrap(blob.to_array(content["arrays"]["message"].data), reply.metrics)
    assert Reply.decode(joined) == reply
    assert not content["arrays"]["message"].held  # its joined bytes are nobody else's


# Memory ----------------------------------------------------------------------------------------


def kept(rounds, clients=8, dim=LONG, strategy="ef21-sgdm"):
    """Return the memory after each round and its peak, in vectors a client."""
    found = []

    def watch(record):
        now, peak = tracemalloc.get_traced_memory()
        found.append((now / clients / dim / 4, peak / clients / dim / 4))
        tracemalloc.reset_peak()

    run(strategy, problem(dim), 2, 1)  # what is imported and compiled is not a client's
    shared = np.zeros(dim, np.float32)
    task_fn = lambda i, n: FunctionTask(shared, lambda x, _: (0.0, x - np.float32(i)))  # noqa: E731
    gc.collect()
    tracemalloc.start()
    try:
        run(strategy, task_fn, clients, rounds, on_round=watch, threads=1)
    finally:
        tracemalloc.stop()
    return found[1:]


def test_a_client_keeps_two_vectors_and_what_they_were(monkeypatch):
    own = 12 / 8  # the server's x, sums, snapshots and temporaries, for each of eight clients
    monkeypatch.setattr(aside, "KEPT", 2**40)
    (first, first_peak), *later = kept(4)
    assert first < 2 + own + 0.3
    assert first_peak < 2 + 2 * own + 0.5
    assert all(now < 3 + own + 1 for now, _ in later)  # g, v, and v before the packet


def test_what_the_moments_were_waits_in_a_file(monkeypatch):
    monkeypatch.setattr(aside.Attic.__init__, "__defaults__", (0,))
    own = 12 / 8
    assert all(peak < 2 + 2 * own + 1 for _, peak in kept(4))
    assert all(now < 2 + own + 0.5 for now, _ in kept(4))


def test_a_whole_message_is_forgotten_when_the_server_has_it():
    apps = []

    class Fails(FunctionTask):
        def gradient(self, x, batch):
            if x.any():  # in the second round: its first message is settled by then
                raise ValueError("no")
            return super().gradient(x, batch)

    def app():
        apps.append(client_app(lambda i, n: Fails(np.zeros(60), lambda x, _: (0.0, x - i - 1))))
        return apps[-1]

    strategy = make_strategy("ef21-sgdm", compressor="topk:0.1", lr=0.2)
    with InProcessGrid(app, 2) as grid:
        initial = apps[0]._client._task_fn(0, 2).initial_arrays()
        with pytest.raises(RuntimeError, match="no"):
            strategy.start(grid, initial, num_rounds=2)
    for state in apps[0]._client._states.values():
        assert "memory" in state.vectors
        assert not state.replies
        assert not state.packet


def moved(attic, old, new, refused):
    """A state whose moment went from `old` to `new`, saved, and settled."""
    table = {}
    store = LiveStore(table, "key", attic)
    state = store.load()
    state.vectors["v"] = old
    keep_moments(state, {"v": new}, {})
    store.save(state)
    again = LiveStore(table, "key", attic).load()
    waits = dict(again.aside)
    settle_moments(again, refused=refused)
    assert not again.aside
    assert set(again.vectors) == {"v"}
    return again.vectors["v"], waits


@pytest.mark.parametrize("dim", [10, LONG])
@pytest.mark.parametrize("refused", [True, False])
def test_a_refused_answer_brings_the_moments_back(dim, refused):
    old, new = np.full(dim, 1.5), np.full(dim, 2.5)
    vector, waits = moved(Attic(0), old, new, refused)
    assert bool(waits) == (dim == LONG)
    np.testing.assert_array_equal(vector, old if refused else new)
    vector += 1  # its owner may write to it


def test_an_attic_gives_each_its_place_and_keeps_what_it_has_room_for():
    a, b, c = (np.full(LONG, value, np.float32) for value in (1, 2, 3))
    attic = Attic(a.nbytes)
    assert attic.put("a", a) is None
    assert attic.put("a", a) is None
    in_b, in_c = attic.put("b", b), attic.put("c", c)
    assert in_b.read()[0] == 2
    assert in_c.read()[-1] == 3
    assert attic.put("b", a).start == in_b.start  # its own place, again
    assert in_c.read()[0] == 3
    assert attic.put("b", np.zeros(2 * LONG)).start == 2 * a.nbytes
    assert attic.put("short", np.zeros(3)) is None


def test_what_is_put_aside_gives_its_memory_back(monkeypatch):
    given = []
    monkeypatch.setattr(aside, "give_back_freed_memory", lambda: given.append(None))
    vector = np.zeros(LONG, np.float32)
    monkeypatch.setattr(aside, "_MANY", 3 * vector.nbytes)
    attic = Attic(0)
    for key in range(7):
        assert attic.put(key, vector) is not None
    assert len(given) == 2  # at the third and the sixth


def test_without_room_for_a_file_all_stays_in_memory(monkeypatch, caplog):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(aside.tempfile, "TemporaryFile", full)
    old = np.full(LONG, 1.5)
    vector, waits = moved(Attic(0), old, old + 1, refused=True)
    assert not waits
    assert vector is old
    assert "No space left on device" in caplog.text
    assert "set TMPDIR" in caplog.text


def test_refused_answers_and_files_lead_to_the_same_model(monkeypatch):
    def task_fn(i, n):
        calls = []

        def gradient(x, _):
            calls.append(1)
            huge = i == 1 and len(calls) == 4
            return 0.0, (x - np.float32(i + 1)) * np.float32(1e12 if huge else 1)

        return FunctionTask(np.zeros(LONG, np.float32), gradient)

    before = run(task_fn=task_fn, rounds=8)
    monkeypatch.setattr(aside.Attic.__init__, "__defaults__", (0,))
    reads, read = [], aside.Attic.read
    monkeypatch.setattr(aside.Attic, "read", lambda *of: reads.append(1) or read(*of))
    np.testing.assert_array_equal(model(before), model(run(task_fn=task_fn, rounds=8)))
    assert len(reads) == 1  # of the client that was refused


def test_answers_beyond_a_number_of_bytes_wait_in_a_file(monkeypatch):
    calm = run("fedavg", problem(LONG), rounds=3)
    made, init = [], spilled.Spilled.__init__
    monkeypatch.setattr(
        spilled.Spilled, "__init__", lambda self, *of: made.append(1) or init(self, *of)
    )
    monkeypatch.setattr("flowerpress.simulations.engine.KEPT", 2 * 4 * LONG + 1000)
    np.testing.assert_array_equal(model(calm), model(run("fedavg", problem(LONG), rounds=3)))
    assert len(made) == 3 * 2  # two of four, each round
    made.clear()
    run("ef21", problem(LONG), rounds=3)  # whose packets the workers keep
    assert not made


# Packets that were opened already --------------------------------------------------------------


def test_a_client_reads_what_the_server_has_opened(monkeypatch):
    opened = run(rounds=8)
    with monkeypatch.context() as patch:
        patch.setattr(Recent, "take", lambda self, data: data)
        np.testing.assert_array_equal(model(opened), model(run(rounds=8)))
    assert not RECENT._opened


def test_only_small_sparse_packets_of_this_process_are_remembered():
    recent, x = Recent(), np.arange(5000, dtype=np.float32)
    small, large, dense = (
        Opened(make_compressor(spec).compress(x, Draw()))
        for spec in ("topk:k=5", "topk:0.5", "qsgd:1+rans")
    )
    recent.add(small)
    assert recent.take(small.packet.data) is small.packet.data  # nobody uses it
    with recent.used():
        for each in (small, large, dense):
            recent.add(each)
        alike = bytes(bytearray(small.packet.data))
        assert recent.take(alike) is alike
        assert recent.take(large.packet.data) is large.packet.data
        assert recent.take(dense.packet.data) is dense.packet.data
        assert recent.take(small.packet.data) is small
        assert recent.take(small.packet.data) is small.packet.data  # once
        recent.add(small)
    assert not recent._opened


# Small things ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 7, 200, 1000, 10**6, 2**32 - 1])
def test_few_places_are_measured_as_many_are(dim):
    rng = np.random.default_rng(dim)
    for k in [k for k in (1, 2, 10, 63) if k <= dim]:
        for top in {dim, min(dim, 3 * k)}:
            places = np.sort(rng.choice(min(top, 10**7), k, replace=False)).astype(np.uint32)
            gaps, *numbers = ids._measured(places, dim)
            few, *same = ids._measured_few(places, dim)
            np.testing.assert_array_equal(gaps, few)
            assert numbers == same
            assert few.dtype == np.uint32


def test_a_task_without_draws_needs_no_generator(monkeypatch):
    made = []
    monkeypatch.setattr(
        "flowerpress.worker.worker.Job.rng", lambda *_: made.append(1) or np.random.default_rng(0)
    )
    run(rounds=2, task_fn=problem())
    assert len(made) == 4  # the first gradient is of `init_batches`
    made.clear()
    drawn = lambda i, n: FunctionTask(  # noqa: E731
        np.zeros(60, np.float32), lambda x, _: (0.0, x - i), draw=lambda rng: None
    )
    run(rounds=2, task_fn=drawn)
    assert len(made) == 8


def test_tasks_that_begin_alike_keep_one_model():
    start = np.ones(5)
    one, other = (
        FunctionTask(start, lambda x, _: (0.0, x)),
        FunctionTask(start, lambda x, _: (0.0, x)),
    )
    assert one._initial["x"] is other._initial["x"] is not start
    start[0] = -0.0
    third = FunctionTask(start, lambda x, _: (0.0, x))
    assert third._initial["x"] is not one._initial["x"]
    assert one._initial["x"].tolist() == [1.0] * 5


@pytest.mark.parametrize(("configs", "some"), [({}, False), ({0: {"state-sync": True}}, True)])
def test_memory_on_disk_is_written_and_not_flushed(monkeypatch, tmp_path, configs, some):
    flushed = []
    monkeypatch.setattr("os.fsync", lambda _: flushed.append(1))
    live = run(rounds=3)
    disk = run(rounds=3, state_dir=tmp_path, node_configs=configs)
    np.testing.assert_array_equal(model(live), model(disk))
    assert bool(flushed) == some


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"compressor": "zip"}, "client 1: node config: compressor is 'zip': unknown compressor"),
        ({"uplink": 0}, "client 1: node config: uplink is 0: expected a number of Mbit/s above 0"),
        ({"uplink": "fast"}, "uplink is 'fast': expected a number"),
        ({"state-store": "dsk"}, "state-store is 'dsk': expected live or disk or context"),
    ],
)
def test_a_node_config_is_read_before_the_run(config, says):
    with pytest.raises(ValueError, match=says):
        run(rounds=1, node_configs={0: {}, 1: config})


def test_a_key_that_is_nearly_one_is_named_once(caplog):
    run(rounds=1, node_configs={i: {"up-link": 1.0, "mine": 3, "uplink": 2} for i in range(3)})
    said = "node config: flowerpress reads no 'up-link': did you mean 'uplink'?"
    assert [record.getMessage() for record in caplog.records] == [said]
