"""Two threads for one long vector: the same numbers, and the same refusals."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from flowerpress.compressors import PacketError, add_to, decompress, make_compressor, norm
from flowerpress.compressors.kernels import threads
from flowerpress.compressors.kernels.threads import in_threads
from flowerpress.compressors.quantized import blocks

D = 300_000


@pytest.fixture
def two(monkeypatch):
    """Have two threads for what is long from 1,000 numbers on, in pieces of a few blocks."""
    monkeypatch.setattr(threads, "_LONG", 1000)
    monkeypatch.setattr(threads, "_cores", lambda: 2)
    monkeypatch.setattr(blocks, "_FEW", 64)


def test_both_work_and_the_results_are_in_order(two):
    here, barrier = [], threading.Barrier(2, timeout=10)

    def work(item):
        if item < 2:
            barrier.wait()  # which one thread alone would not pass
        here.append(threading.get_ident())
        return item**2

    assert in_threads(work, range(50), 10**6) == [item**2 for item in range(50)]
    assert len(set(here)) == 2


@pytest.mark.parametrize(("size", "cores", "items"), [(999, 2, 9), (10**6, 1, 9), (10**6, 2, 1)])
def test_little_work_and_one_core_start_no_thread(two, monkeypatch, size, cores, items):
    monkeypatch.setattr(threads, "_cores", lambda: cores)
    monkeypatch.setattr(threading, "Thread", None)
    assert in_threads(lambda item: -item, range(items), size) == [-item for item in range(items)]


@pytest.mark.parametrize("failing", [0, 1, 7])
def test_what_fails_in_either_thread_is_raised_when_both_have_ended(two, failing):
    before, done = threading.active_count(), []

    def work(item):
        if item == failing:
            raise PacketError(f"item {item}")
        time.sleep(0.002)
        done.append(item)

    with pytest.raises(PacketError, match=f"item {failing}"):
        in_threads(work, range(40), 10**6)
    assert threading.active_count() == before
    assert len(done) < 39  # nothing more was begun


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "spec",
    ["qsgd:7", "qsgd:1,bucket=100", "uniform:4", "uniform:4,bucket=2048", "sign:block=256"],
)
def test_the_same_numbers(two, monkeypatch, spec, dtype):
    x = np.random.default_rng(0).standard_normal(D).astype(dtype)
    packet, found, started, start = (
        make_compressor(spec).compress(x),
        [],
        [],
        threading.Thread.start,
    )
    monkeypatch.setattr(threading.Thread, "start", lambda self: started.append(1) or start(self))
    for cores in (2, 1):
        monkeypatch.setattr(threads, "_cores", lambda cores=cores: cores)
        started.clear()
        out = np.linspace(0, 1, D, dtype=np.float32)
        add_to(packet, out, 0.3)
        found.append((out.tobytes(), decompress(packet).tobytes(), norm(packet)))
        assert (len(started) > 0) == (cores == 2)
    assert found[0] == found[1]


def test_what_overflows_changes_nothing(two):
    x = np.ones(D)
    x[-1] = 1e300
    packet, out = make_compressor("qsgd:7").compress(x), np.zeros(D, np.float32)
    with pytest.raises(PacketError, match="overflows float32"):
        add_to(packet, out)
    assert not out.any()
