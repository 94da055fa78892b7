"""Files of arrays in pieces: the bytes of safetensors."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load, save

from flowerpress.protocol.tensors import pieces_of
from flowerpress.worker.stores import DiskStore, WorkerState

KINDS = (
    *("uint64", "int64", "float64", "float32", "uint32", "int32"),
    *("float16", "uint16", "int16", "int8", "uint8", "bool"),
)


@pytest.mark.parametrize("seed", range(5))
def test_they_are_the_bytes_of_safetensors(seed):
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
    for name, array in load(data).items():
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
