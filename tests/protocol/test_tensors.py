"""Files of arrays in pieces: the bytes of safetensors."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load, save

from flowerpress.protocol.tensors import pieces_of, read
from flowerpress.worker.stores import DiskStore, WorkerState

KINDS = (
    *("uint64", "int64", "float64", "float32", "uint32", "int32"),
    *("float16", "uint16", "int16", "int8", "uint8", "bool"),
)


@pytest.mark.parametrize("seed", range(5))
def test_they_are_the_bytes_of_safetensors(seed, tmp_path):
    rng = np.random.default_rng(seed)
    arrays = {
        name: rng.integers(0, 2, shape).astype(rng.choice(KINDS))
        for name, shape in (("z", 5), ("é", (2, 3)), ('"q"', 0), ("a", ()), ("v-", 7), ("v", 7))
    }
    arrays |= {kind: np.ones(3, kind) for kind in KINDS}
    arrays["turned"] = np.arange(6.0).reshape(2, 3).T
    metadata = {"numbers": '12 {"held": -1}'}
    data = b"".join(pieces_of(arrays, metadata))
    plain = {name: array.copy(order="C") for name, array in arrays.items()}
    assert data == save(plain, metadata=metadata)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        found, said = read(file)
    assert said == metadata
    assert set(found) == set(load(data))
    for name, array in found.items():
        assert (array.dtype, array.shape) == (arrays[name].dtype, arrays[name].shape)
        assert array.flags.writeable
        np.testing.assert_array_equal(array, arrays[name])


def test_a_state_is_written_from_where_it_is(tmp_path):
    vectors = {name: np.full(2**20, 0.5, np.float32) for name in ("v", "v-", "memory")}
    store = DiskStore(tmp_path / "state", sync=False)
    store.save(WorkerState(dict(vectors), {"held": 3}, b"packet"))
    tracemalloc.start()
    store.save(WorkerState(dict(vectors), {"held": 3}, b"packet"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20
    found = store.load()
    assert (found.numbers, found.packet) == ({"held": 3}, b"packet")
    for name, vector in vectors.items():
        np.testing.assert_array_equal(found.vectors[name], vector)


def whole(**entries) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


GOOD = {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        b"\x02" + bytes(7) + b"[]",
        b"\x02" + bytes(7) + b"{x",
        whole(a=3),
        whole(a=GOOD),
        whole(a=GOOD) + b"ab",
        whole(a=GOOD) + b"abcd",
        whole(a=GOOD, b=GOOD) + b"abc",
        whole(a={**GOOD, "shape": [4]}) + b"abc",
        whole(a={**GOOD, "shape": [-1, -3]}) + b"abc",
        whole(a={**GOOD, "shape": [2**40, 2**30]}) + b"abc",
        whole(a={**GOOD, "data_offsets": [0, 2**60]}) + b"abc",
        whole(a={**GOOD, "data_offsets": [1, 4]}) + b"abcd",
        whole(a={**GOOD, "dtype": "U9"}) + b"abc",
        whole(a={**GOOD, "shape": [3.0]}) + b"abc",
    ],
)
def test_what_is_no_file_of_arrays_is_refused(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    with (
        path.open("rb") as file,
        pytest.raises((ValueError, LookupError, TypeError, AttributeError)),
    ):
        read(file)
