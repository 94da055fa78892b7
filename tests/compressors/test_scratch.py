"""Memory is lent again when nobody has it, and not before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flowerpress.compressors import make_compressor
from flowerpress.compressors.kernels.scratch import Scratch
from flowerpress.compressors.testing.conformance import forced_kernels

SIZE = 1 << 20


def address(array):
    return array.ctypes.data


def test_it_is_used_again_once_it_is_free():
    scratch = Scratch()
    one = scratch.empty(SIZE)
    first = address(one)
    assert one.shape == (SIZE,)
    assert scratch.kept == 0
    del one
    assert scratch.kept == SIZE
    two = scratch.empty(SIZE - 5)
    assert (address(two), two.size, scratch.kept) == (first, SIZE - 5, 0)


VIEWS = {
    "a slice": lambda a: a[7:9],
    "a slice of a slice": lambda a: a[7:][3:],
    "another dtype": lambda a: a.view(np.uint32)[1:],
    "a memoryview": lambda a: memoryview(a[5:]),
    "its cast": lambda a: a.view(np.uint16).data.cast("B"),
    "an array of a memoryview": lambda a: np.frombuffer(memoryview(a)[8:], np.uint32),
}


@pytest.mark.parametrize("look", VIEWS.values(), ids=VIEWS)
def test_a_view_keeps_it(look):
    scratch = Scratch()
    one = scratch.empty(SIZE)
    one[:] = 7
    view = look(one)
    del one
    other = scratch.empty(SIZE)
    other[:] = 9
    assert 9 not in bytes(memoryview(view))
    del view
    assert scratch.kept == SIZE


def test_small_and_huge_ones_are_not_kept():
    scratch = Scratch()
    for size in (0, 1, 1000, (1 << 25) + 1):
        assert scratch.empty(size).size == size
    assert scratch.kept == 0


def test_what_is_kept_is_bounded():
    scratch = Scratch()
    held = [scratch.empty(1 << 25) for _ in range(5)]
    del held
    assert scratch.kept == 1 << 26


def test_threads_do_not_share():
    scratch = Scratch()

    def work(mark):
        for _ in range(300):
            mine = scratch.empty(SIZE // 4)
            mine[::999] = mark
            assert (mine[::999] == mark).all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(scratch._lent) == 0


def test_packets_keep_their_bytes():
    x = np.random.default_rng(0).standard_normal(300_000).astype(np.float32)
    with forced_kernels("numba"):
        for spec in ("natural", "sign", "hadamard+qsgd:7", "topk:0.9"):
            compressor = make_compressor(spec).bind((x.size,))
            packet = compressor.compress(x)
            kept = bytes(bytearray(packet.data))
            compressor.compress(-2 * x)
            assert packet.data == kept
