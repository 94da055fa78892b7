"""What a checkpoint is written as."""

import contextlib

import numpy as np
import pytest

from flowerpress.server.tree import CheckpointError, dump, load

TREE = {
    "none": None,
    "numbers": [True, -7, 2**62, 0.1, float("inf"), 5e-324],
    "text": "é\n",
    "bytes": [b"", b"\x00\xff", b"abc"],
    3: {"pair": (1, b"x"), "set": {3, 1}, -1: {}},
    "arrays": [np.arange(6.0).reshape(2, 3)[:, ::2], np.float32([1]), np.zeros(0), np.array(3)],
    "scalar": np.float32(0.1),
}


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    else:
        assert a == b


def test_a_tree_comes_back_as_it_was(tmp_path):
    (tmp_path / "tree").write_bytes(dump(TREE))
    back = load(tmp_path / "tree")
    same(back, TREE)
    back["arrays"][0] += 1  # in place, as buffers are


def test_every_changed_bit_is_found(tmp_path):
    path = tmp_path / "tree"
    data = dump({"x": np.arange(3.0), "b": b"abc"})
    for i in range(len(data)):
        damaged = bytearray(data)
        damaged[i] ^= 0x10
        path.write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            # A blank in the safetensors header says the same in another way.
            same(load(path), {"x": np.arange(3.0), "b": b"abc"})
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="cannot be read"):
            load(path)


def test_what_no_tree_has_is_refused():
    for value in (object(), {"x": 1j}, np.array([object()])):
        with pytest.raises((TypeError, KeyError)):
            dump(value)
