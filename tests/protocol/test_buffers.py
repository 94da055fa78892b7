"""Buffers: exact on the wire, in means, checkpoints and memories; and what is not believed."""

import struct
from zlib import crc32

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from flowerpress.clients import FunctionTask
from flowerpress.compressors import PacketError, make_compressor
from flowerpress.protocol import Hello, Layout, ProtocolError
from flowerpress.protocol.buffers import (
    changed_norm,
    check_buffers,
    check_finite,
    kept_buffers,
    pack_buffers,
    unpack_buffers,
)
from flowerpress.protocol.layout import DTYPES, values_crc
from flowerpress.server.buffers import average_buffers
from flowerpress.server.tree import dump, load
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy
from flowerpress.worker.stores import DiskStore


def layout_of(vector=np.float32, **buffers):
    arrays = {"x": np.zeros(2, vector), **buffers}
    return Layout.of(ArrayRecord({k: Array(np.asarray(v)) for k, v in arrays.items()}), buffers)


def extremes(dtype):
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return np.array([True, False, True])
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return np.array([limits.min, limits.max, limits.max - 1, 3], kind)
    limits = np.finfo(kind)
    values = [limits.max, limits.tiny, limits.smallest_subnormal, -0.0, 1 / 3, -np.inf, np.nan]
    return np.array(values, kind) * (1 if kind.kind == "f" else kind.type(1j))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # inf times 1j
@pytest.mark.parametrize("vector", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_exact(dtype, vector):
    values = {"a": extremes(dtype), "b": extremes(dtype)[:1].reshape(()), "c": np.ones(1, dtype)}
    layout = layout_of(vector, **values)
    back = unpack_buffers(pack_buffers(values, layout), layout)
    for name, value in values.items():
        assert back[name].dtype == value.dtype
        assert back[name].shape == value.shape
        assert back[name].tobytes() == value.tobytes()
        assert back[name].flags.writeable


def test_bytes_are_those_of_before_wherever_these_were_exact():
    values = {"mean": np.float32([0.5, 2]), "seen": np.array(2**24), "mask": np.array([True])}
    layout = layout_of(**values)
    data = pack_buffers(values, layout)
    joined = np.array([0.5, 2, 2**24, 1], np.float32)
    assert data == make_compressor("identity").compress(joined).data
    values["seen"] += 1
    assert pack_buffers(values, layout)[:4] == b"FPB1"
    assert pack_buffers({}, layout_of()) == b""
    # Wide enough a vector, and the counter is exact in it.
    assert pack_buffers(values, layout_of(np.float64, **values))[:4] == b"FPRS"


def test_old_bytes_are_read_with_integers_rounded():
    values = {"mean": np.float32([0.5]), "seen": np.array([0, 0])}
    old = make_compressor("identity").compress(np.array([0.5, 4.4, 1e18], np.float32)).data
    back = unpack_buffers(old, layout_of(**values))
    assert back["mean"] == 0.5
    assert back["seen"].tolist() == [4, 999999984306749440]


def resealed(data):
    return data[:4] + struct.pack("<I", crc32(data[8:])) + data[8:]


def test_hostile_bytes_are_refused():
    values = {"mean": np.array([0.5]), "few": np.int8([7]), "mask": np.array([True])}
    layout = layout_of(**values)
    data = pack_buffers(values | {"mean": np.array([-np.inf])}, layout)
    assert len(data) == 8 + 8 + 1 + 1
    lies = {
        "17 bytes, expected 18": data[:-1],
        "19 bytes, expected 18": data + b"\0",
        "CRC-32": data[:-1] + b"\0",
        "'mask' is bool, and holds 2": resealed(data[:-1] + b"\2"),
        "shorter|frame": b"FPB",
    }

    def packet(vector, spec="identity"):
        return make_compressor(spec).compress(np.array(vector, np.float32)).data

    lies |= {
        "'few' is int8, and holds": packet([1, 128, 0]),
        "4 x float32, expected 3 x float32": packet([1, 2, 3, 4]),
        "3 x float64": make_compressor("identity").compress(np.ones(3)).data,
        "codec 2, not of identity": packet([1, 2, 3], "topk:k=1"),
        "frame": b"",
    }
    for reason, lie in lies.items():
        with pytest.raises(PacketError, match=reason):
            unpack_buffers(lie, layout)
    half = layout_of(half=np.float16([1]))
    with pytest.raises(PacketError, match="'half' is float16, and holds more"):
        unpack_buffers(packet([1e30]), half)
    for value in (2.0**63, -1e19):
        with pytest.raises(PacketError, match="'ids' is int64"):
            unpack_buffers(packet([value]), layout_of(ids=np.array([1])))
    with pytest.raises(PacketError, match="a model that has none"):
        check_buffers(data, layout_of())


def test_a_task_that_changes_its_buffers_is_told():
    layout = layout_of(mean=np.float32([1, 2]), seen=np.array(1))
    good = {"mean": np.array([1.0, 2.0]), "seen": np.int8(3)}  # of their kind, and cast
    assert unpack_buffers(pack_buffers(good, layout), layout)["mean"].dtype == np.float32
    for values, reason in [
        ({"mean": good["mean"]}, "no buffer 'seen'"),
        (good | {"mean": np.ones(3)}, r"'mean' is float64 \(3,\), but was float32 \(2,\)"),
        (good | {"seen": np.array(1.5)}, "'seen' is float64"),
    ]:
        with pytest.raises(ValueError, match=reason):
            pack_buffers(values, layout)


def test_nobody_brings_what_is_not_finite():
    model = {
        "mask": np.array([[0, -np.inf], [0, 0]], np.float32),
        "low": np.array(np.inf),
        "seen": np.array(3),
    }
    for fine in (model, model | {"low": np.array(-2.0), "seen": np.array(9)}):
        check_finite(fine, model)
    for name, value, reason in [
        ("mask", np.array([[0, -np.inf], [np.nan, 0]]), r"'mask' is nan at \[1, 0\]"),
        ("mask", np.array([[0, np.inf], [0, 0]]), r"'mask' is inf at \[0, 1\], .* -inf there"),
        ("mask", np.array([[0, np.nan], [0, 0]]), "'mask' is nan"),
        ("low", np.array(-np.inf), r"'low' is -inf at \[\], the model has inf.*persistent=False"),
    ]:
        with pytest.raises(PacketError, match=reason):
            check_finite(model | {name: value}, model)


def test_norms_are_of_what_has_changed():
    model = {"mask": np.full(3, -3e38, np.float32), "mean": np.zeros(2), "z": np.zeros(1, complex)}
    assert changed_norm(model, model) == 0.0
    sent = model | {"mean": np.array([3e200, 4e200])}
    assert changed_norm(sent, model) == pytest.approx(5e200, rel=1e-15)
    assert changed_norm(model | {"z": np.array([3 + 4j])}, model) == 5.0
    assert changed_norm({"low": np.array(2.0)}, {"low": np.array(np.inf)}) == 2.0


def test_means_are_exact_where_all_agree():
    """0.1 three times by weights 1, 2, 4 is 0.1 to the last bit, and so are a mask and -0.0."""
    table = np.array([0.1, -0.0, -np.inf, np.finfo(np.float32).min])
    model = {"table": table, "half": np.float16([0.1])}
    mean = average_buffers(model, [model] * 3, [1.0, 2.0, 4.0])
    assert all(mean[name].tobytes() == model[name].tobytes() for name in model)
    sent = [{"table": np.full(4, v), "half": np.float16([v])} for v in (1.0, 2.0, 6.0)]
    mean = average_buffers(model, sent, [1.0, 2.0, 1.0])
    np.testing.assert_array_equal(mean["table"], [2.75] * 4)
    assert (mean["half"].dtype, mean["half"].tolist()) == (np.float16, [2.75])
    assert average_buffers(model, [], []) is model


def test_the_mean_of_an_extreme_is_of_those_that_have_one():
    model = {"low": np.array([np.inf, np.inf]), "z": np.array([1 + 1j])}
    sent = [
        {"low": np.array([np.inf, np.inf]), "z": np.array([1 + 1j])},
        {"low": np.array([3.0, np.inf]), "z": np.array([1 + 1j])},
        {"low": np.array([7.0, np.inf]), "z": np.array([5 + 9j])},
    ]
    mean = average_buffers(model, sent, [5.0, 1.0, 3.0])
    assert mean["low"].tolist() == [6.0, np.inf]
    assert mean["z"] == [1 + 4 * 3 / 9 + 1j * (1 + 8 * 3 / 9)]


def test_integers_are_taken_whole_by_votes():
    model = {"ids": np.array([0, 0])}
    sent = [{"ids": np.array(ids)} for ids in ([2**63 - 1, 5], [8, 9], [8, 9], [1, 1])]
    assert average_buffers(model, sent, [100.0, 1, 1, 1])["ids"].tolist() == [8, 9]
    assert average_buffers(model, sent[:2], [1.0, 9.0])["ids"].tolist() == [2**63 - 1, 5]
    masks = [{"ids": np.array(mask)} for mask in ([True, False], [False, False])]
    assert average_buffers(model, masks, [1.0, 1.0])["ids"].tolist() == [True, False]


START = {
    "ids": np.array([2**24 + 1, 2**40 + 3, -(2**62) - 1]),
    "small": np.uint8([0, 255]),
    "mask": np.triu(np.full((3, 3), -np.inf, np.float32), 1),
    "lowest": np.full(2, np.finfo(np.float32).min),
    "wide": np.array([1 / 3, 1e-300]),
    "half": np.float16([1 / 3]),
    "on": np.array([True, False]),
    "phase": np.array([1j / 3], np.complex128),
    "empty": np.zeros((0, 2), np.float32),
}


class Tables(FunctionTask):
    """A float32 model beside which lie buffers of every kind, and a mean that moves."""

    def __init__(self, i):
        super().__init__(np.zeros(3, np.float32), lambda x, _: (0.0, x - np.float32(i)))
        self.values = {**START, "mean": np.zeros(2, np.float32)}
        self.i = i

    def initial_arrays(self):
        arrays = super().initial_arrays()
        for name, value in self.values.items():
            arrays[name] = Array(value)
        return arrays

    def buffer_names(self):
        return tuple(self.values)

    def buffers(self):
        return dict(self.values)

    def load_buffers(self, values):
        assert set(values) <= set(self.values)
        self.values.update(values)

    def gradient(self, x, batch):
        self.values["mean"] = self.values["mean"] + np.float32(self.i + 1)
        return super().gradient(x, batch)


def tables(i, n):
    return Tables(i)


def assert_kept(arrays, mean):
    for name, value in START.items():
        found = arrays[name].numpy()
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.tobytes() == value.tobytes(), name
    np.testing.assert_allclose(arrays["mean"].numpy(), mean, rtol=1e-6)


OPTIONS = {
    "fedavg": {},
    "ef21": {"compressor": "topk:k=1", "downlink": "topk:k=1"},
    "sketched-sgd": {"columns": 4, "k": 1},
    "vr-marina": {"p": 0.3},
    "choco-sgd": {"compressor": "topk:k=2", "gamma": 0.3, "local_steps": 1, "collect_every": 2},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_keeps_all_buffers_and_so_does_a_resumed_one(name, tmp_path):
    def run(rounds, **more):
        strategy = make_strategy(name, lr=0.1, **OPTIONS[name])
        result = simulate(strategy, tables, 3, rounds, checkpoint=tmp_path, **more)
        assert strategy.exchange.refused == 0
        return result.arrays

    # Each round adds 1, 2 and 3 on the three clients, 2 on average.
    assert_kept(run(2), [4.0, 4.0])
    assert_kept(run(4, resume=True), [8.0, 8.0])


def times(value):
    """A task of which client 1 sends `value` in its buffer "wide"."""

    class Lying(Tables):
        def buffers(self):
            return {**self.values, "wide": np.full(2, value)} if self.i == 1 else dict(self.values)

    return lambda i, n: Lying(i)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_client_that_sends_nan_is_refused_by_the_buffers_name(value, caplog):
    strategy = make_strategy("fedavg", lr=0.1)
    result = simulate(strategy, times(value), 3, 2)
    assert strategy.exchange.refused == 2
    assert f"refused client 1: buffer 'wide' is {value} at [0], the model has 0.333" in caplog.text
    assert_kept(result.arrays, [4.0, 4.0])  # of clients 0 and 2


def test_large_constants_are_no_absurd_buffers_but_large_changes_are():
    strategy = make_strategy("fedavg", lr=0.1)
    result = simulate(strategy, times(1e9), 4, 3)
    assert strategy.exchange.oversized == strategy.exchange.refused == 3
    assert np.abs(result.arrays["wide"].numpy()).max() < 1


def test_checkpoints_and_memories_of_before_are_read(tmp_path):
    """They hold one float vector of all buffers."""
    values = {"mean": np.float32([0.5, 2]), "seen": np.array([7])}
    layout = layout_of(**values)
    old = np.array([0.5, 2, 7], np.float32)
    assert unpack_buffers(kept_buffers(old), layout)["seen"].tolist() == [7]
    assert kept_buffers(np.empty(0, np.float32)) == b""

    class Counting(FunctionTask):
        def __init__(self):
            super().__init__(np.zeros(2, np.float32), lambda x, _: (0.0, x - 1))

        def initial_arrays(self):
            return ArrayRecord({**super().initial_arrays(), "seen": Array(np.array([7]))})

        def buffer_names(self):
            return ("seen",)

        def buffers(self):
            return {"seen": np.array([7])}

        def load_buffers(self, values):
            assert values["seen"].tolist() == [7]

    def run(rounds, resume):
        strategy = make_strategy("choco-sgd", lr=0.1, gamma=0.3, compressor="topk:k=1")
        return simulate(
            strategy, lambda i, n: Counting(), 2, rounds, checkpoint=tmp_path, resume=resume
        ).arrays

    run(2, resume=False)
    vector = np.array([7], np.float32)
    path = tmp_path / "round-000002.safetensors"
    tree = load(path)
    tree["model"]["buffers"] = tree["state"]["relay"]["buffers"] = vector
    path.write_bytes(dump(tree))
    for client in tmp_path.glob("clients/run-*/client-*.safetensors"):
        store = DiskStore(client)
        state = store.load()
        assert state.vectors["buffers"].dtype == np.uint8
        state.vectors["buffers"] = vector
        store.save(state)
    assert run(4, resume=True)["seen"].numpy().tolist() == [7]


def named(**arrays):
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})


def test_arrays_are_matched_by_name():
    x, mean = np.float32([1, 2]), np.float32([3])
    layout = Layout.of(named(x=x, b=2 * x, mean=mean), ["mean"])
    mixed = named(mean=mean, b=2 * x, x=x)
    layout.match(mixed, {})
    vector, buffers = layout.flatten(mixed)
    assert vector.tolist() == [1, 2, 2, 4]
    assert list(buffers) == ["mean"]
    with pytest.raises(ValueError, match="the arrays lack 'b', 'mean' of the clients' model"):
        layout.match(named(x=x), {})
    with pytest.raises(ValueError, match=r"'x' is float64 \(2,\), in the clients' model float32"):
        layout.match(named(x=np.ones(2), b=x, mean=mean), {})
    with pytest.raises(ValueError, match=r"'bb'.*does not have"):
        layout.match(named(x=x, b=x, mean=mean, bb=x), {})


def test_frozen_and_tied_arrays_may_be_named_where_clients_have_the_same():
    x, frozen = np.float32([1, 2]), np.float16([3, np.nan])
    layout = Layout.of(named(x=x))
    kept = {"backbone": values_crc(frozen), "head": "x"}
    layout.match(named(x=x, backbone=frozen, head=x), kept)
    with pytest.raises(ValueError, match="'backbone' never travels, and a client has other values"):
        layout.match(named(x=x, backbone=frozen + 1), kept)
    with pytest.raises(ValueError, match="'head' and 'x' are one array on a client"):
        layout.match(named(x=x, head=x + 1), kept)


def test_a_hello_tells_what_never_travels():
    layout = layout_of()
    kept = {"backbone": 2**32 - 1, "head": "x"}
    assert Hello.decode(Hello(1, 2, layout, kept=kept).encode()).kept == kept
    assert Hello.decode(Hello(1, 2, layout).encode()).kept == {}
    for wrong in ({"a": -1}, {"a": 2**32}, {"a": 1.5}, {"a": None}):
        with pytest.raises(ProtocolError, match="'kept'"):
            Hello.decode(Hello(1, 2, layout, kept=wrong).encode())


class Frozen(FunctionTask):
    """A task that says it keeps a frozen array."""

    crc = values_crc(np.ones(2))

    def __init__(self, i):
        super().__init__(np.zeros(2), lambda x, _: (0.0, x - 1))

    def kept_names(self):
        return {"backbone": self.crc, "head": "x"}


def test_a_run_starts_from_arrays_in_any_order_and_leaves_out_what_never_travels():
    def start(i_differs=None, evaluate_fn=None, **more):
        def task_fn(i, n):
            task = Frozen(i)
            if i == i_differs:
                task.crc = 5
            return task

        task_fn.initial_arrays = lambda: named(
            **{"backbone": np.ones(2), "x": np.full(2, 3.0), "head": np.full(2, 3.0)} | more
        )
        strategy = make_strategy("fedavg", lr=0.5)
        return simulate(strategy, task_fn, 2, 2, evaluate_fn=evaluate_fn)

    measure = Frozen(0).evaluate_fn()
    result = start(evaluate_fn=measure)
    assert list(result.arrays) == ["x"]
    assert result.arrays["x"].numpy().tolist() == [1.5, 1.5]  # 3, 2, 1.5
    with pytest.raises(RuntimeError, match="initial_arrays: 'backbone' never travels"):
        start(i_differs=1)
    with pytest.raises(RuntimeError, match="'head' and 'x' are one array"):
        start(head=np.zeros(2))
    spare = "'spare', which the clients' model does not have"
    with pytest.raises(RuntimeError, match=f"initial_arrays: the arrays name {spare}"):
        start(spare=np.zeros(2))
    with pytest.raises(ValueError, match=spare):
        start(spare=np.zeros(2), evaluate_fn=measure)


def test_one_client_cannot_change_a_table_that_others_agree_upon():
    def task_fn(i, n):
        task = Tables(i)
        if i == 0:
            task.buffers = lambda: {**task.values, "ids": np.array([1, 2, 3])}
        return task

    result = simulate(make_strategy("fedavg", lr=0.1), task_fn, 3, 2)
    assert result.arrays["ids"].numpy().tolist() == START["ids"].tolist()
