"""Entropy stages: as short as the entropy, and the same vector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.compressors import Draw, decompress, make_compressor
from flowerpress.compressors.composed.entropy import Rans, _shares
from flowerpress.compressors.kernels.numba import rans as jit_rans
from flowerpress.compressors.kernels.numpy import rans
from flowerpress.compressors.kernels.numpy import symbols as plain
from flowerpress.compressors.kernels.packing import packed_bytes
from flowerpress.compressors.wire.codecs import codec

X = np.random.default_rng(0).standard_normal(400_000, dtype=np.float32)


def entropy_of_codes(packet):
    """Return the bits that the codes at the end of a packet need, and those before them."""
    count, width = codec(packet.header.codec).codes(packet)
    payload = np.frombuffer(packet.payload, dtype=np.uint8)
    cut = payload.size - packed_bytes(count, width)
    counts = np.bincount(plain.unpack(payload[cut:], count, width))
    share = counts[counts > 0] / count
    return -count * (share * np.log2(share)).sum(), 8 * cut


@pytest.mark.parametrize(
    "spec",
    [
        "qsgd:1",
        "qsgd:3",
        "qsgd:7",
        "qsgd:100",
        "eden:2",
        "eden:4",
        "uniform:4",
        "uniform:8",
        "natural",
    ],
)
def test_within_one_percent_of_the_entropy(spec):
    packet = make_compressor(spec).compress(X)
    entropy, before = entropy_of_codes(packet)
    coded = make_compressor(f"{spec}+rans").compress(X)
    assert np.array_equal(decompress(coded), decompress(packet))
    spent = 8 * (coded.nbytes - 24) - before
    assert entropy <= spent <= 1.01 * entropy + 8 * (20 + 128)  # header and lanes


@pytest.mark.parametrize("spec", ["sign", "drive", "identity", "fp16", "qsgd:1000", "topk:k=9"])
@pytest.mark.parametrize("dim", [1, 100, 5000])
def test_never_much_longer(spec, dim):
    plain_packet = make_compressor(spec).compress(X[:dim])
    packet = make_compressor(f"{spec}+rans").compress(X[:dim])
    assert packet.nbytes <= plain_packet.nbytes + 20
    assert np.array_equal(decompress(packet), decompress(plain_packet))


def test_it_sits_around_all_that_stands_before():
    compressor = make_compressor("topk:0.1+qsgd:7+rans")
    assert isinstance(compressor, Rans)
    assert compressor.inner == make_compressor("topk:0.1+qsgd:7")
    assert compressor.compress(X).compressor == "topk:k=40000+qsgd+rans"
    long = make_compressor("topk:0.1+qsgd:7").compress(X).nbytes
    assert compressor.compress(X).nbytes < 0.85 * long


def test_bits_are_those_of_a_gaussian_vector():
    stage = make_compressor("qsgd:7+rans")
    stated = stage.traits(X.size).bits
    assert 8 * stage.compress(X).nbytes == pytest.approx(stated, rel=0.02)
    assert stage.traits(X.size).omega == make_compressor("qsgd:7").traits(X.size).omega


@given(
    counts=st.lists(st.integers(0, 5000), min_size=1, max_size=40).filter(
        lambda c: c[0] and c[-1] and sum(c)
    ),
    seed=st.integers(0, 99),
)
def test_any_symbols_come_back(counts, seed):
    counts = np.array(counts, dtype=np.uint32)
    shares = _shares(counts)
    assert shares.sum() == rans.TOTAL
    assert ((shares > 0) == (counts > 0)).all()
    symbols = np.repeat(np.arange(counts.size, dtype=np.uint32), counts)
    np.random.default_rng(seed).shuffle(symbols)
    lanes, words = rans.encode(symbols, shares)
    for twin in (rans, jit_rans):
        assert [part.tolist() for part in twin.encode(symbols, shares)] == [
            lanes.tolist(),
            words.tolist(),
        ]
        assert np.array_equal(decoded(twin, lanes, words, shares, symbols.size), symbols)


def decoded(twin, *code_and_count):
    """Return the symbols, None unless the code holds just these."""
    *code, count = code_and_count
    symbols = np.empty(count, dtype=np.uint16)
    return symbols if twin.decode(*code, symbols) else None


@pytest.mark.parametrize("twin", [rans, jit_rans])
def test_another_stream_is_refused(twin):
    symbols = np.random.default_rng(1).integers(0, 3, 500).astype(np.uint32)
    shares = _shares(np.bincount(symbols).astype(np.uint32))
    lanes, words = twin.encode(symbols, shares)
    assert decoded(twin, lanes, words[:-1], shares, 500) is None
    assert decoded(twin, lanes, np.append(words, words[:1]), shares, 500) is None
    assert decoded(twin, lanes, words, shares, 499) is None
    assert decoded(twin, lanes ^ np.uint32(1), words, shares, 500) is None


def test_all_symbols_alike_take_no_words():
    shares = _shares(np.array([70_000], dtype=np.uint32))
    lanes, words = jit_rans.encode(np.zeros(70_000, dtype=np.uint32), shares)
    assert words.size == 0
    assert (lanes == rans.LOW).all()


def test_rare_symbols_keep_a_share():
    counts = np.ones(4096, dtype=np.uint32)
    counts[5] = 10**9
    assert _shares(counts).tolist() == [1] * 5 + [rans.TOTAL - 4095] + [1] * 4090


def test_a_stage_needs_something_before_it():
    with pytest.raises(ValueError, match="'rans' stands after another compressor"):
        make_compressor("rans")
    with pytest.raises(ValueError, match=r"'sign\+rans' can't stand before"):
        make_compressor("sign+rans+sign")


def test_a_draw_is_passed_on():
    x = X[:1000]
    draw = Draw(seed=4, rank=1, cohort=2)
    assert np.array_equal(
        decompress(make_compressor("qsgd+rans").compress(x, draw)),
        decompress(make_compressor("qsgd").compress(x, draw)),
    )
