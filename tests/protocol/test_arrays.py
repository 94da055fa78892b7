"""Arrays of large models: pieces, views of a model that moves, and what Flower makes of them."""

from __future__ import annotations

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from flowerpress.protocol import Layout, content_bytes, make_rule
from flowerpress.protocol.arrays import LaterArray, PiecedArray, Pieces, all_finite, view_of
from flowerpress.protocol.blob import decode_blob, encode_blob, from_array, scatter_blob
from flowerpress.server.downlink import Downlink


def later_and_plain() -> list[tuple[Array, Array]]:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    pieced = PiecedArray(Pieces([b"abc", np.arange(2, dtype=np.uint8)]), "text")
    return [
        (LaterArray(values, "float32"), Array(values)),
        (LaterArray(values.astype(np.float64), "float16"), Array(values.astype(np.float16))),
        (pieced, Array("uint8", (5,), "text", b"abc\0\1")),
    ]


@pytest.mark.parametrize(("array", "plain"), later_and_plain())
def test_they_are_to_flower_what_a_plain_array_is(array, plain):
    assert array == plain
    assert plain == array
    assert array.deflate() == plain.deflate()
    assert array.object_id == plain.object_id
    children = {child.object_id: child for _, child in array.slice_array()}
    assert Array.inflate(array.deflate(), children) == plain
    for each in (pickle.loads(pickle.dumps(array)), copy.deepcopy(array)):
        assert type(each) is Array
        assert each == plain
    record, same = ArrayRecord(), ArrayRecord({"a": plain})
    record["a"] = array
    assert record.count_bytes() == same.count_bytes()
    contents = (RecordDict({"arrays": each}) for each in (record, same))
    assert len({content_bytes(content) for content in contents}) == 1


def test_what_is_counted_is_not_joined():
    array = PiecedArray(Pieces([b"abc"] * 3), "text")
    record = ArrayRecord()
    record["a"] = array
    assert content_bytes(RecordDict({"r": record})) == 1 + 1 + 9
    assert array._joined is None


def test_a_scattered_blob_is_the_blob():
    packets = [b"x" * 30, Pieces([b"head", np.arange(4, dtype=np.float32)])]
    scattered = scatter_blob({"round": 1}, packets)
    whole = encode_blob({"round": 1}, list(map(bytes, packets)))
    assert bytes(scattered) == whole
    assert from_array(PiecedArray(scattered, "flowerpress.v1")) == whole


def test_packets_of_a_view_are_views_where_they_are_aligned():
    blob = encode_blob({}, [b"a" * 8, b"b" * 3, b"c" * 8])
    start = len(blob) - 19
    for shift in range(8):
        memory = np.zeros(len(blob) + 8, np.uint8)
        memory[shift : shift + len(blob)] = np.frombuffer(blob, np.uint8)
        _, packets = decode_blob(memory.data[shift : shift + len(blob)])
        assert list(map(bytes, packets)) == [b"a" * 8, b"b" * 3, b"c" * 8]
        lies = (memory.ctypes.data + shift + start) % 8 == 0
        assert isinstance(packets[0], memoryview) == lies


def test_values_are_seen_where_they_are():
    values = np.arange(6.0).reshape(2, 3)
    plain = Array(values)
    assert not view_of(plain).flags.owndata
    for array in (plain, Array(np.asfortranarray(values)), LaterArray(values, "float64")):
        np.testing.assert_array_equal(view_of(array), values)
    assert view_of(Array(np.array(3.0))).shape == ()


def test_finite_is_looked_for_everywhere():
    x = np.zeros(2**18 + 5, np.float32)
    assert all_finite(x)
    for place in (0, 2**18 - 1, 2**18, -1):
        y = x.copy()
        y[place] = np.inf
        assert not all_finite(y)


def downlink(spec: str = "", rule: str = "ef21") -> Downlink:
    x = np.random.default_rng(0).standard_normal(2**18 + 7, dtype=np.float32)
    arrays = ArrayRecord({"x": Array(x)})
    return Downlink(Layout.of(arrays), arrays, spec, rule=make_rule(rule, {}), seed=0)


def address(model: Downlink) -> int:
    return model.replica.model.ctypes.data


@pytest.mark.parametrize("spec", ["", "topk:0.1"])
@pytest.mark.parametrize("hold", ["x", "slice", "arrays", "snapshot", "message", "packet"])
def test_a_model_that_somebody_holds_moves_elsewhere(spec, hold):
    model, other = downlink(spec), downlink(spec)
    step = np.random.default_rng(1).standard_normal(model.x.size, dtype=np.float32)
    model.move(step, 1, 0.5)
    other.move(step.copy(), 1, 0.5)
    held = {
        "x": lambda: model.x,
        "slice": lambda: model.x[3:9],
        "arrays": model.arrays,
        "snapshot": model.snapshot,
        "message": lambda: model.snapshot().array.pieces.pieces[-1][4:20],
        "packet": lambda: model.snapshot().packets[-1],
    }[hold]()

    def seen() -> bytes:
        match held:
            case ArrayRecord():
                return held["x"].data
            case np.ndarray():
                return held.tobytes()
        return bytes(getattr(held, "array", held).data if hold == "snapshot" else held)

    before = seen()
    model.move(step, 2, 0.5)
    assert seen() == before
    other.move(lambda part: step[part], 2, 0.5)
    np.testing.assert_array_equal(model.x, other.x)
    assert model.replica.mark == other.replica.mark


def test_a_model_that_nobody_holds_moves_where_it_is():
    model = downlink()
    step = np.ones(model.x.size, np.float32)
    expected = model.x - np.float32(0.5) * step
    model.arrays()
    model.snapshot()
    place = address(model)
    model.move(step, 1, 0.5)
    assert address(model) == place
    np.testing.assert_array_equal(model.x, expected)
    held = model.snapshot()
    model.move(step, 2, 0.5)
    assert address(model) != place
    assert len(held.packets) == 1


def test_a_step_that_is_not_finite_changes_nothing():
    model = downlink()
    before = model.x.copy()
    step = np.zeros(before.size, np.float32)
    step[-1] = np.nan
    with pytest.raises(Exception, match="no longer finite"):
        model.move(lambda part: step[part], 1, 0.5)
    np.testing.assert_array_equal(model.x, before)
    assert model.version == 0


@pytest.mark.parametrize(
    ("rule", "hyper"),
    [("step", {}), ("ef21", {}), ("amsgrad", {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8})],
)
def test_a_compressed_step_takes_one_vector_more(rule, hyper):
    """In vectors of the model's length, beside those that server and workers keep."""
    dim = 2**21
    layout = Layout.of(ArrayRecord({"x": Array(np.zeros(dim, np.float32))}))
    initial = ArrayRecord({"x": Array(np.zeros(dim, np.float32))})
    spec = "blocked(topk:0.001, 65536)"
    model = Downlink(layout, initial, spec, rule=make_rule(rule, hyper), seed=0)
    g = np.random.default_rng(0).standard_normal(dim).astype(np.float32)
    for number in range(2):  # the second step finds the vectors that the first one has made
        tracemalloc.start()
        model.move(lambda part: g[part] / 2, number + 1, 0.1)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1.3 * g.nbytes  # and blocks of 1 MiB, a packet, and what opening it took
