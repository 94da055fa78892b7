"""The loops below the compressors, against plain Python and against each other."""

from __future__ import annotations

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.compressors import Draw, decompress, make_compressor
from flowerpress.compressors.kernels import choice, packing, twin
from flowerpress.compressors.kernels.numba import common as numba_kernels
from flowerpress.compressors.kernels.numba import disk_cache, jit
from flowerpress.compressors.kernels.numpy import common as numpy_kernels
from flowerpress.compressors.testing.conformance import forced_kernels

KERNELS = [numpy_kernels, numba_kernels]
COUNTS = [1, 7, 32, 1023, 1024, 1025, 3000]


def lane_sum(x, square):
    """Add in the order that `kernels.sums` promises, one number at a time."""
    total = None
    for start in range(0, len(x), 1024):
        lanes = [0.0] * 32
        for i, value in enumerate(x[start : start + 1024]):
            lanes[i % 32] += value * value if square else abs(value)
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [lanes[i] + lanes[i + half] for i in range(half)]
        total = lanes[0] if total is None else total + lanes[0]
    return total


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize(
    "sizes", [[5], [1, 31, 32, 33], [1024, 1025], [512] * 7 + [100], [300_000]]
)
def test_sums_have_one_order(kernels, square, sizes):
    rng = np.random.default_rng(len(sizes))
    x = rng.standard_normal(sum(sizes)) * np.exp(5 * rng.standard_normal(sum(sizes)))
    offsets = np.cumsum([0, *sizes], dtype=np.int64)
    got = kernels.block_sums(x, offsets, square)
    want = [lane_sum(part.tolist(), square) for part in np.split(x, offsets[1:-1])]
    assert got.tolist() == want
    exact = [math.fsum(v * v if square else abs(v) for v in p) for p in np.split(x, offsets[1:-1])]
    np.testing.assert_allclose(got, exact, rtol=1e-12)


@pytest.mark.parametrize("width", range(1, 33))
def test_packing_round_trips(width):
    rng = np.random.default_rng(width)
    for count in COUNTS:
        codes = rng.integers(0, 1 << width, count, dtype=np.uint32, endpoint=False)
        packed = packing.pack(codes, width)
        assert packed.size == packing.packed_bytes(count, width)
        assert np.array_equal(packing.unpack(packed, count, width), codes)


def test_packing_is_lane_by_lane():
    """Lane w holds codes w, 32 + w, ... as one bit stream over words w, 32 + w, ..."""
    codes = np.random.default_rng(0).integers(0, 32, 1024, dtype=np.uint32)
    words = packing.pack(codes, 5).view(np.uint32)
    for lane in (0, 13, 31):
        stream = sum(int(word) << 32 * j for j, word in enumerate(words[lane::32]))
        assert [stream >> 5 * r & 31 for r in range(32)] == codes[lane::32].tolist()


@given(data=st.data())
def test_codes_above(data):
    width = data.draw(st.integers(2, 16))
    count = data.draw(st.sampled_from(COUNTS))
    top = data.draw(st.integers(1, (1 << width) - 2))
    codes = np.random.default_rng(count).integers(0, top + 1, count, dtype=np.uint32)
    places = data.draw(st.lists(st.integers(0, count - 1), max_size=3))
    codes[places] = top + 1
    packed = packing.pack(codes, width)
    for kernels in KERNELS:
        assert kernels.code_above(packed, count, width, top) == (min(places) if places else -1)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_first_nonfinite(kernels, dtype):
    x = np.full(5000, np.finfo(dtype).max, dtype=dtype)
    assert kernels.nonfinite_position(x) == -1
    for place, value in ((4999, np.nan), (2048, -np.inf), (1, np.inf)):
        x[place] = value
        assert kernels.nonfinite_position(x) == place


def test_forcing_a_module():
    with forced_kernels("numpy"):
        assert choice.kernels() is numpy_kernels
    with forced_kernels("numba"):
        assert choice.kernels() is numba_kernels
    with (
        pytest.raises(ValueError, match="must be numpy or numba, got 'fortran'"),
        forced_kernels("fortran"),
    ):
        choice.kernels()


def test_without_numba(monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda _: None)
    choice._load.cache_clear()
    try:
        assert choice._load("") == "numpy"
        with pytest.raises(ImportError, match=r"pip install 'flowerpress\[fast\]'"):
            choice._load("numba")
    finally:
        choice._load.cache_clear()


def test_a_numba_that_does_not_work(monkeypatch, caplog):
    name = "flowerpress.compressors.kernels.numba"
    monkeypatch.setitem(sys.modules, f"{name}.common", None)
    monkeypatch.delattr(sys.modules[name], "common")
    assert choice._load.__wrapped__("") == "numpy"
    assert "numba cannot be imported" in caplog.text
    with pytest.raises(ImportError, match="FLOWERPRESS_KERNELS=numba, but numba cannot be"):
        choice._load.__wrapped__("numba")


def test_a_numba_that_compiles_nothing(monkeypatch, caplog):
    """Kernels have instructions of the processor's that Python does not."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert choice._load.__wrapped__("") == "numpy"
    assert "numba compiles nothing (NUMBA_DISABLE_JIT)" in caplog.text


def test_twins_have_the_same_functions():
    assert numpy_kernels.__all__ == numba_kernels.__all__


def test_folders_hide_no_package_of_their_name():
    assert jit.numba is numba
    assert disk_cache.numba is numba
    assert numpy_kernels.np is numba_kernels.np is np


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_twins_are_files_of_one_name(kernels):
    with forced_kernels(kernels):
        for name in ("affine", "symbols", "id_codes"):
            assert twin(name).__name__ == f"flowerpress.compressors.kernels.{kernels}.{name}"


@pytest.mark.parametrize("module", ["torch", "flwr", "numba"])
def test_import_is_light(module):
    code = f"import sys, flowerpress.compressors; sys.exit({module!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_threads_do_not_disturb_each_other():
    compressors = [make_compressor(spec) for spec in ("topk:0.01", "randk:0.01", "sign", "qsgd")]
    x = np.random.default_rng(0).standard_normal(50_000)

    def work(rank):
        draw = Draw(rank=rank % 4, cohort=4)
        packets = [compressor.compress(x, draw) for compressor in compressors]
        return [packet.data + decompress(packet).tobytes() for packet in packets]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(32)))
    assert all(results[i] == results[i % 4] for i in range(32))
