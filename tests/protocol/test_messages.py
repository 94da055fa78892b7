"""What crosses the network: round trips, digests, sizes, and nothing believed."""

import contextlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.compressors import PacketError, make_compressor
from flowerpress.protocol import (
    DeltaLog,
    Hello,
    Instruction,
    Layout,
    ModelPart,
    ProtocolError,
    Replica,
    ReplicaError,
    Reply,
    content_bytes,
    make_rule,
)
from flowerpress.protocol.blob import decode_blob, encode_blob, from_array, to_array

ORDER = Instruction(
    algorithm="ef21",
    round=3,
    version=4,
    seed=9,
    layout="0" * 16,
    hyper={"lr": 0.1, "compressor": "topk:k=2", "local_steps": 1, "flag": True},
    model=ModelPart(2, 0, [b"delta-1", b"delta-2"], [0.1, 0.2]),
    session=3,
    applied=2,
    rank=1,
    cohort=5,
    buffers=b"stats",
)
REPLY = Reply(
    client=7,
    version=4,
    base=2,
    held=2,
    scale=0.5,
    packets=[b"packet"],
    buffers=b"stats",
    metrics={"loss": 0.25, "num-examples": 12},
)


def test_messages_survive_the_way():
    assert Instruction.decode(ORDER.encode()) == ORDER
    assert Reply.decode(REPLY.encode()) == REPLY
    layout = Layout.of(ArrayRecord({"w": Array(np.zeros((2, 3), np.float32))}))
    hello = Hello(3, 10, layout, held=5, session=2)
    assert Hello.decode(hello.encode()) == hello


def test_a_snapshot_is_one_object_in_all_messages():
    part = ModelPart.snapshot(1, [b"x" * 100])
    orders = [Instruction("a", 1, 1, 0, "", {}, part, rank=rank) for rank in range(2)]
    arrays = [order.encode().array_records["arrays"]["model"] for order in orders]
    assert arrays[0] is arrays[1]
    assert Instruction.decode(orders[0].encode()).model.packets == [b"x" * 100]


@pytest.mark.parametrize("message", [ORDER, REPLY], ids=["instruction", "reply"])
def test_payload_and_framing_are_the_lengths_of_what_is_sent(message):
    content = message.encode()
    data = sum(len(a.data) for record in content.array_records.values() for a in record.values())
    numbers = sum(record.count_bytes() for record in content.metric_records.values())
    keys = sum(len(key) for key in content) + len("message")
    assert content_bytes(content) == data + numbers + keys
    packets = [*message.packets] if isinstance(message, Reply) else message.model.packets
    assert message.payload == sum(map(len, packets)) + len(message.buffers)


@given(st.binary(max_size=200))
def test_random_bytes_are_a_protocol_error(data):
    with pytest.raises(ProtocolError):
        decode_blob(data)


@given(st.data())
def test_damaged_messages_are_a_protocol_error_or_another_message(data):
    """A flipped bit may hit a number's digit; what it may not do is raise anything else."""
    blob = bytearray(from_array(REPLY.encode().array_records["arrays"]["message"]))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    blob = blob[: data.draw(st.integers(0, len(blob)))] if data.draw(st.booleans()) else blob
    content = RecordDict({"arrays": ArrayRecord({"message": to_array(bytes(blob))})})
    try:
        reply = Reply.decode(content)
    except ProtocolError:
        return
    assert 0 < reply.scale <= 1
    assert reply.client >= 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(["instruction", "reply", "hello"]), st.data())
def test_any_value_in_any_field_is_checked(kind, data):
    message = {"instruction": ORDER, "reply": REPLY, "hello": None}[kind]
    if message is None:
        message = Hello(3, 10, Layout.of(ArrayRecord({"w": Array(np.zeros(2))})))
    header, packets = decode_blob(from_array(message.encode().array_records["arrays"]["message"]))
    name = data.draw(st.sampled_from(sorted(header)))
    header[name] = data.draw(JSON)
    try:
        blob = encode_blob(header, packets)
    except ValueError:  # infinity, which JSON cannot say
        return
    content = RecordDict({"arrays": ArrayRecord({"message": to_array(blob)})})
    with contextlib.suppress(ProtocolError):
        type(message).decode(content)


def test_deep_json_and_huge_headers_are_refused():
    deep = b"[" * 100_000
    for text in (deep, b'{"sizes":[1e400]}', b'{"sizes":[NaN]}', b'{"sizes":[-1]}', b"[]"):
        with pytest.raises(ProtocolError):
            decode_blob(b"FPM1" + len(text).to_bytes(4, "little") + text)
    with pytest.raises(ProtocolError, match="does not fit"):
        decode_blob(b"FPM1\xff\xff\xff\xff{}")
    with pytest.raises(ProtocolError, match="announced"):
        decode_blob(encode_blob({}, [b"abc"])[:-1])


def test_another_serialization_type_is_refused_by_name():
    with pytest.raises(ProtocolError, match=r"'numpy.ndarray', expected 'flowerpress.v1'"):
        from_array(Array(np.zeros(3)))
    with pytest.raises(TypeError, match="Unsupported serialization"):
        to_array(b"abc").numpy()  # what plain FedAvg would do with it


def layout_of(**arrays):
    return Layout.of(ArrayRecord({name: Array(value) for name, value in arrays.items()}))


def test_layouts_tell_models_apart():
    base = layout_of(w=np.zeros((2, 3)), b=np.zeros(2))
    assert base.digest == layout_of(w=np.ones((2, 3)), b=np.ones(2)).digest
    others = [
        layout_of(b=np.zeros(2), w=np.zeros((2, 3))),
        layout_of(w=np.zeros((3, 2)), b=np.zeros(2)),
        layout_of(w=np.zeros((2, 3), np.float32), b=np.zeros(2)),
        layout_of(w=np.zeros((2, 3))),
    ]
    for other in others:
        assert other.digest != base.digest
        with pytest.raises(ValueError, match="layouts differ"):
            base.check(other)


def test_vectors_and_buffers_go_to_arrays_and_back():
    arrays = ArrayRecord(
        {
            "w": Array(np.arange(6, dtype=np.float32).reshape(2, 3)),
            "mean": Array(np.full(2, 0.5, np.float32)),
            "b": Array(np.array([7, 8], np.float32)),
            "count": Array(np.array(9, np.int64)),
        }
    )
    layout = Layout.of(arrays, ["mean", "count"])
    x, buffers = layout.flatten(arrays)
    np.testing.assert_array_equal(x, [0, 1, 2, 3, 4, 5, 7, 8])
    assert {name: value.tolist() for name, value in buffers.items()} == {
        "mean": [0.5, 0.5],
        "count": 9,
    }
    back = layout.unflatten(x, buffers)
    for name in arrays:
        np.testing.assert_array_equal(back[name].numpy(), arrays[name].numpy())
        assert back[name].dtype == arrays[name].dtype
    assert (layout.sizes, layout.dim, layout.buffer_dim) == ((6, 2), 8, 3)
    assert layout.shapes == ((2, 3), (2,))
    with pytest.raises(ValueError, match="not among the arrays"):
        Layout.of(arrays, ["nothing"])
    with pytest.raises(ValueError, match="'count' of dtype int64 cannot be trained"):
        Layout.of(arrays, ["mean"])
    words = ArrayRecord({"words": Array(np.array(["a"]))})
    with pytest.raises(ValueError, match="buffer 'words' of dtype <U1 cannot travel"):
        Layout.of(words, ["words"])


def test_layout_json_is_checked():
    good = ["w", [1], "float32", True]
    for entry in (["w"], ["w", [1], "float99", True], ["w", [-1], "float32", True], "w", None):
        with pytest.raises(ProtocolError):
            Layout.from_json([good, entry])
    for entry in (["w", [1e999], "O", True], ["w", [1.0], "float32", True], [1, *good[1:]]):
        with pytest.raises(ProtocolError):
            Layout.from_json([entry])
    for rows in (None, 3, [good] * 10_001, [good, good]):
        with pytest.raises(ProtocolError):
            Layout.from_json(rows)


@pytest.mark.parametrize("rule", ["step", "ef21"])
def test_replicas_follow_deltas_or_ask_for_a_snapshot(rule):
    rule = make_rule(rule, {})
    identity, layout = make_compressor("identity"), layout_of(x=np.zeros(4))
    rng = np.random.default_rng(0)
    server = Replica(rule, 0, np.zeros(4))
    log, packets = DeltaLog(limit=10**6), []
    for _ in range(5):
        packets.append(identity.compress(rng.standard_normal(4)).data)
        log.append(packets[-1], 0.1)
        server.advance(packets[-1], 0.1)
    worker = Replica(rule, 0, np.zeros(4))
    worker.follow(ModelPart(2, 0, packets[:2], [0.1] * 2), layout)
    worker.follow(ModelPart(5, 1, packets[1:], [0.1] * 4), layout)  # one delta again: skipped
    np.testing.assert_array_equal(worker.model, server.model)
    assert log.since(3) == ModelPart(5, 3, packets[3:], [0.1] * 2)
    assert log.since(5).packets == []
    assert log.since(-1) is None
    assert log.since(6) is None
    with pytest.raises(ReplicaError, match="start at version 3"):
        Replica(rule, 1, np.zeros(4)).follow(ModelPart(5, 3, packets[3:], [0.1] * 2), layout)
    with pytest.raises(ReplicaError, match="holds -1"):
        Replica(rule).follow(ModelPart(5, 3, packets[3:], [0.1] * 2), layout)
    with pytest.raises(ReplicaError, match="1 deltas from 3 to 5"):
        Replica(rule, 3, np.zeros(4)).follow(ModelPart(5, 3, packets[4:], [0.1]), layout)
    single = np.zeros(4, np.float32)
    for vectors in ([packets[0]] * 3, [identity.compress(single).data], []):
        with pytest.raises(PacketError, match="snapshot has vectors"):
            Replica().follow(ModelPart(0, -1, vectors), layout)


def test_headers_are_canonical_json():
    data = encode_blob({"b": 1, "a": [1, 2]}, [b"xy"])
    length = int.from_bytes(data[4:8], "little")
    text = data[8 : 8 + length]
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")).encode()


def test_a_peers_words_are_safe_to_log():
    reply = Reply(0, 1, status="failed", reason="\x1b[31mred\nline " + "x" * 1000)
    assert Reply.decode(reply.encode()).reason.startswith(" [31mred line xxx")
    assert len(Reply.decode(reply.encode()).reason) == 300


def test_metrics_are_numbers_and_lists_of_numbers():
    content = REPLY.encode()
    content["metrics"] = MetricRecord({"a": 10**400, "b": [1.0], "c": float("nan"), "d": 2})
    metrics = Reply.decode(content).metrics
    assert math.isnan(metrics.pop("c"))
    assert metrics == {"b": [1.0], "d": 2}, "no message can hold 10**400"


def test_a_kept_reply_has_the_metrics_it_was_sent_with():
    metrics = {"loss": float("inf"), "recall": [0.25, 0.75], "num-examples": 3}
    kept = Reply.from_bytes(replace(REPLY, metrics=metrics).to_bytes())
    assert kept.metrics == metrics


def test_a_rule_takes_the_hyperparameters_that_it_names():
    """A strategy's others may be called as its attributes are, and do not become these."""
    rule = make_rule("onebit", {"eps": 1e-3, "kept": "all", "feedback": 3, "takes": (), "lr": 0.1})
    assert (rule.eps, rule.kept, rule.feedback) == (1e-3, ("m", "v"), "error")
    with pytest.raises(ValueError, match="rule amsgrad needs beta2, eps, which it was not given"):
        make_rule("amsgrad", {"beta1": 0.9, "kept": ()})
    with pytest.raises(ValueError, match="unknown rule 'adam': known are step, plain"):
        make_rule("adam", {})
