"""Top-k is exact, and its ids take the fewest bytes of four codes."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flowerpress.compressors import decompress, make_compressor
from flowerpress.compressors.kernels.numba import common as numba_kernels
from flowerpress.compressors.kernels.numpy import common as numpy_kernels
from flowerpress.compressors.testing.conformance import forced_kernels
from flowerpress.compressors.wire.ids import BITMAP, RAW, RICE, VARINT, decode_ids, encode_ids

KERNELS = [numpy_kernels, numba_kernels]


def by_sorting(x, k):
    """Return the k largest magnitudes' places, by a stable sort: ties keep the lowest place."""
    return np.sort(np.argsort(-np.abs(x), kind="stable")[:k])


@pytest.mark.parametrize("kernels", KERNELS)
@given(data=st.data())
def test_ids_are_those_of_a_stable_sort(kernels, data):
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    few = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 1e-40, -3e38])
    values = few | st.floats(-(2.0**100), 2.0**100, width=32)
    x = data.draw(arrays(dtype, st.integers(1, 300), elements=values))
    k = data.draw(st.integers(1, x.size))
    assert kernels.top_ids(x, k).tolist() == by_sorting(x, k).tolist()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("k", [1, 999, 50_000, 99_999, 100_000, 200_000])
def test_large(kernels, k):
    rng = np.random.default_rng(k)
    x = np.round(rng.standard_normal(100_000), 2).astype(np.float32)  # many ties
    assert np.array_equal(kernels.top_ids(x, k), by_sorting(x, k))


def test_error_is_what_is_left_out():
    x = np.random.default_rng(0).standard_normal(10_000)
    y = decompress(make_compressor("topk:k=100").compress(x))
    kept = by_sorting(x, 100)
    assert np.array_equal(y[kept], x[kept])
    assert np.count_nonzero(y) == 100


def test_ids_near_entropy():
    """Rice codes are within half a percent of log2 C(d, k) for places drawn at random."""
    d, k = 1_000_000, 10_000
    ids = np.sort(np.random.default_rng(0).choice(d, k, replace=False)).astype(np.uint32)
    tag, _, code = encode_ids(ids, d)
    entropy = (math.lgamma(d + 1) - math.lgamma(k + 1) - math.lgamma(d - k + 1)) / math.log(2)
    assert tag == RICE
    assert entropy < 8 * code.size <= 1.005 * entropy + 16


@pytest.mark.parametrize(
    ("ids", "dim", "tag"),
    [
        ([0xFFFFFFFE], 0xFFFFFFFF, RAW),
        (range(0, 1000, 2), 1000, BITMAP),
        ([*range(100), 5_000_000], 10_000_000, VARINT),
        (np.random.default_rng(1).choice(99_999, 999, replace=False), 99_999, RICE),
    ],
    ids=["raw", "bitmap", "varint", "rice"],
)
def test_the_smallest_code_is_taken(ids, dim, tag):
    ids = np.sort(np.array(ids, dtype=np.uint32))
    got = encode_ids(ids, dim)
    assert got[0] == tag
    assert np.array_equal(decode_ids(*got, ids.size, dim), ids)


@given(data=st.data())
def test_ids_round_trip_in_every_code(data):
    dim = data.draw(st.integers(1, 2000) | st.integers(1, (1 << 32) - 1))
    chosen = data.draw(st.sets(st.integers(0, dim - 1), min_size=1, max_size=50))
    ids = np.array(sorted(chosen), dtype=np.uint32)
    results = []
    for kernels in ("numpy", "numba"):
        with forced_kernels(kernels):
            tag, parameter, code = encode_ids(ids, dim)
            assert np.array_equal(decode_ids(tag, parameter, code, ids.size, dim), ids)
            results.append((tag, parameter, code.tobytes()))
    assert results[0] == results[1]
    gaps = np.diff(ids, prepend=np.uint32(0)) - (np.arange(ids.size) > 0).astype(np.uint32)
    p = data.draw(st.integers(max(0, int(gaps.max()).bit_length() - 12), 31))
    for encode, other in zip(KERNELS, reversed(KERNELS), strict=True):
        rice = encode.rice_encode(gaps, p)
        assert np.array_equal(decode_ids(RICE, p, other.rice_encode(gaps, p), ids.size, dim), ids)
        assert np.array_equal(other.rice_decode(rice, ids.size, p), gaps)
        assert np.array_equal(other.varint_decode(encode.varint_encode(gaps), ids.size), gaps)


@given(data=st.data())
def test_decoders_agree_on_what_is_wrong(data):
    """Whatever the bytes, both kernels give the same ids or both refuse."""
    tag, parameter = data.draw(st.sampled_from([(0, 0), (1, 0), (2, 0), (3, 0), (3, 5), (3, 31)]))
    code = np.frombuffer(data.draw(st.binary(max_size=40)), dtype=np.uint8)
    count, dim = data.draw(st.integers(1, 20)), data.draw(st.sampled_from([9, 300, (1 << 32) - 1]))
    results = []
    for name in ("numpy", "numba"):
        with forced_kernels(name):
            try:
                ids = decode_ids(tag, parameter, code, count, dim)
            except ValueError as error:
                results.append(str(error))
                continue
            assert ids.size == count
            assert ids[-1] < dim
            assert (np.diff(ids.astype(np.int64)) > 0).all()
            results.append(ids.tolist())
    assert results[0] == results[1]


def long_vectors(dtype):
    """Yield vectors of some pieces, with ties at the least that is kept or without."""
    x = np.random.default_rng(0).standard_normal(1_000_003).astype(dtype)
    yield x
    yield np.round(x, 1)
    yield np.where(np.arange(x.size) % 200 == 7, x, dtype(-0.0))
    yield np.sign(x)
    yield x * np.finfo(dtype).smallest_subnormal
    yield (x.astype(np.float64) ** 9).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_vectors_in_both_kernels_and_memory_of_what_is_kept(dtype):
    for x in long_vectors(dtype):
        order = np.argsort(-np.abs(x), kind="stable")
        for k in (1, 7, 2_000, 100_000, x.size - 1):
            expected = np.sort(order[:k])
            assert np.array_equal(numba_kernels.top_ids(x, k), expected)
            tracemalloc.start()
            found = numpy_kernels.top_ids(x, k)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert np.array_equal(found, expected)
            assert peak < 9 * k + 4e6  # the places twice, and a piece and its 65,536 counts
