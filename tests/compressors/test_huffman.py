"""The Huffman stage: the shortest words, near the entropy where that can be, the same vector."""

from __future__ import annotations

import heapq
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerpress.compressors import Draw, decompress, make_compressor
from flowerpress.compressors.composed.huffman import Huffman
from flowerpress.compressors.kernels.numba import huffman as jit_huffman
from flowerpress.compressors.kernels.numba import symbols as jit_symbols
from flowerpress.compressors.kernels.numpy import huffman, symbols
from tests.compressors.test_entropy import X, entropy_of_codes
from tests.hostile import composed

GALLAGER = 1 - np.log2(np.e) + np.log2(np.log2(np.e))  # 0.0861 bits
ROOM = 8 * (20 + 32 * 4 + 32 * 4)  # header, sizes, what streams are padded with
TWINS = (huffman, jit_huffman)


def spent(spec):
    """Return the bits of the coded symbols with all that coding adds, and the entropy's."""
    packet = make_compressor(spec).compress(X)
    entropy, before = entropy_of_codes(packet)
    coded = make_compressor(f"{spec}+huffman").compress(X)
    assert np.array_equal(decompress(coded), decompress(packet))
    return 8 * (coded.nbytes - 24) - before, entropy


@pytest.mark.parametrize(
    "spec", ["qsgd:63", "qsgd:127", "qsgd:1023", "uniform:6", "uniform:8", "eden:5", "eden:6"]
)
def test_within_one_percent_of_the_entropy(spec):
    """Tables, sizes and header included."""
    bits, entropy = spent(spec)
    assert entropy <= bits <= 1.01 * entropy


@pytest.mark.parametrize(
    "spec", ["qsgd:63", "qsgd:127", "qsgd:1023", "uniform:5", "uniform:8", "eden:4"]
)
def test_a_twentieth_of_a_bit_where_no_symbol_is_frequent(spec):
    bits, entropy = spent(spec)
    assert 0.02 <= (bits - entropy) / X.size <= 0.05


@pytest.mark.parametrize(
    ("spec", "excess"),
    [("natural", 0.015), ("eden:4", 0.014), ("uniform:4", 0.021), ("qsgd:31", 0.018)],
)
def test_a_little_more_where_symbols_have_fewer_bits(spec, excess):
    bits, entropy = spent(spec)
    assert 1.01 * entropy < bits <= (1 + excess) * entropy


@pytest.mark.parametrize("spec", ["qsgd:1", "qsgd:7", "terngrad", "loggrid", "cq:64,range=l2"])
def test_frequent_symbols_are_for_rans(spec):
    bits, entropy = spent(spec)
    assert bits > 1.03 * entropy
    short = make_compressor(f"{spec}+rans").compress(X).nbytes
    assert short < 0.97 * make_compressor(f"{spec}+huffman").compress(X).nbytes


@given(counts=st.lists(st.integers(0, 5000), min_size=2, max_size=200).filter(sum))
def test_never_longer_than_gallagers_bound(counts):
    counts = np.array(counts, dtype=np.uint32)
    total = counts.sum()
    share = counts[counts > 0] / total
    entropy = -(share * np.log2(share)).sum()
    mean = counts @ huffman.code_lengths(counts, 15) / total
    assert entropy - 1e-9 <= mean <= entropy + share.max() + GALLAGER + 1e-9


@given(counts=st.lists(st.integers(1, 5000), min_size=2, max_size=60))
def test_words_are_as_short_as_huffmans(counts):
    heap, total = sorted(counts), 0
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        total += pair
        heapq.heappush(heap, pair)
    counts = np.array(counts, dtype=np.uint32)
    lengths = huffman.code_lengths(counts, 60)  # so many symbols have no longer words
    assert counts @ lengths == total


@given(
    counts=st.lists(st.integers(1, 200), min_size=2, max_size=6),
    limit=st.integers(3, 4),
)
def test_no_bounded_code_is_shorter(counts, limit):
    """By trying all lengths that satisfy Kraft's inequality."""
    counts = np.array(counts, dtype=np.uint32)
    lengths = huffman.code_lengths(counts, limit)
    assert lengths.max() <= limit
    assert huffman.is_complete(lengths)
    every = np.array(list(product(range(1, limit + 1), repeat=counts.size)))
    every = every[(2.0**-every).sum(axis=1) <= 1]
    assert counts @ lengths == (every @ counts).min()


@pytest.mark.parametrize(("symbols_", "longest"), [(40, 12), (256, 12), (257, 15), (4096, 15)])
def test_words_are_bounded(symbols_, longest):
    counts = np.ones(symbols_, dtype=np.uint32)
    counts[:30] = [2**i for i in range(30)]
    lengths = Huffman.write(np.zeros(1, dtype=np.uint32), counts)[0]
    assert symbols.unpack(lengths, symbols_, 4).max() == longest


@given(
    counts=st.lists(st.integers(0, 3000), min_size=1, max_size=50).filter(
        lambda c: c[0] and c[-1] and sum(c)
    ),
    limit=st.integers(6, 15),
    seed=st.integers(0, 99),
)
@settings(max_examples=50)
def test_any_symbols_come_back(counts, limit, seed):
    counts = np.array(counts, dtype=np.uint32)
    lengths = huffman.code_lengths(counts, limit)
    assert huffman.is_complete(lengths)
    assert lengths.size == 1 or ((lengths > 0) == (counts > 0)).all()
    data = np.repeat(np.arange(counts.size, dtype=np.uint32), counts)
    np.random.default_rng(seed).shuffle(data)
    sizes, stream = huffman.encode(data, lengths)
    for twin in TWINS:
        again = twin.encode(data, lengths)
        assert [part.tolist() for part in again] == [sizes.tolist(), stream.tolist()]
        assert np.array_equal(decoded(twin, sizes, stream, lengths, data.size), data)


def decoded(twin, *code_and_count):
    """Return the symbols, None unless the streams hold just these."""
    *code, count = code_and_count
    symbols = np.empty(count, dtype=np.uint16)
    return symbols if twin.decode(*code, symbols) else None


def test_no_word_starts_another():
    lengths = huffman.code_lengths(np.array([9, 1, 4, 0, 2, 2, 7, 1], dtype=np.uint32), 5)
    words = huffman.words_of(lengths)
    texts = [f"{w >> 4:0{w & 15}b}"[::-1] for w in words.tolist() if w & 15]
    assert len(set(texts)) == 7
    assert not any(a != b and b.startswith(a) for a in texts for b in texts)
    assert sorted(texts, key=lambda t: (len(t), t)) == sorted(texts, key=len)  # canonical


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8191, 8192, 57_343, 57_344, 10**6 + 1])
def test_streams_share_the_symbols(count):
    sizes = np.diff(huffman.stream_edges(count))
    assert sizes.size == 4 * min(8, 1 + count // 8192)
    assert sizes.sum() == count
    assert (np.sort(sizes)[::-1] == sizes).all()
    assert sizes[0] - sizes[-1] <= 1


@pytest.mark.parametrize("twin", TWINS)
def test_another_stream_is_refused(twin):
    data = np.random.default_rng(1).integers(0, 5, 500).astype(np.uint32)
    lengths = huffman.code_lengths(np.bincount(data).astype(np.uint32), 15)
    sizes, stream = twin.encode(data, lengths)
    longer, shorter = sizes.copy(), sizes.copy()
    longer[3] += 1
    shorter[3] -= 1
    assert decoded(twin, sizes, stream, lengths, 500) is not None
    assert decoded(twin, shorter, stream[:-1], lengths, 500) is None
    assert decoded(twin, longer, np.append(stream, stream[:1]), lengths, 500) is None
    assert decoded(twin, longer, np.append(stream, np.uint32(0)), lengths, 500) is None
    assert decoded(twin, sizes[::-1].copy(), stream, lengths, 494) is None
    assert decoded(twin, sizes, stream, lengths, 499) is None
    padded = stream.copy()
    padded[-1] |= np.uint32(1 << 31)
    assert padded[-1] != stream[-1]
    assert decoded(twin, sizes, padded, lengths, 500) is None


@pytest.mark.parametrize("twin", TWINS)
def test_a_lone_symbol_takes_no_bits(twin):
    data, lengths = np.zeros(70_000, dtype=np.uint32), np.zeros(1, dtype=np.uint32)
    assert huffman.code_lengths(np.array([70_000], dtype=np.uint32), 12).tolist() == [0]
    sizes, stream = twin.encode(data, lengths)
    assert sizes.tolist() == [0] * 32
    assert stream.size == 0
    assert np.array_equal(decoded(twin, sizes, stream, lengths, data.size), data)


def test_a_constant_vector():
    x = np.full(10_000, 3.0, dtype=np.float32)
    packet = make_compressor("uniform:8+huffman").compress(x)
    assert packet.nbytes == 24 + 20 + 8 + 40 + 1 + 8 * 4  # eight streams, a length
    assert np.array_equal(decompress(packet), x)


@given(data=st.lists(st.integers(0, 15), max_size=50))
def test_counts(data):
    data = np.array(data, dtype=np.uint32)
    counts = np.bincount(data, minlength=16)
    assert symbols.counts(data, 4).tolist() == counts.tolist()
    assert jit_symbols.counts(data, 4).tolist() == counts.tolist()


@pytest.mark.parametrize("spec", ["sign", "drive", "identity", "fp16", "qsgd:1000", "topk:k=9"])
@pytest.mark.parametrize("dim", [1, 100, 5000])
def test_never_much_longer(spec, dim):
    packet = make_compressor(spec).compress(X[:dim])
    coded = make_compressor(f"{spec}+huffman").compress(X[:dim])
    assert coded.nbytes <= packet.nbytes + 20
    assert np.array_equal(decompress(coded), decompress(packet))


def test_it_sits_around_all_that_stands_before():
    compressor = make_compressor("topk:0.1+qsgd:127+huffman")
    assert compressor == Huffman(make_compressor("topk:0.1+qsgd:127"))
    assert make_compressor(compressor.spec) == compressor
    packet = compressor.compress(X)
    assert packet.compressor == "topk:k=40000+qsgd:127+huffman"
    assert packet.nbytes < 0.7 * make_compressor("topk:0.1+qsgd:127").compress(X).nbytes
    with pytest.raises(ValueError, match="'huffman' stands after another compressor"):
        make_compressor("huffman")


def test_a_draw_is_passed_on_and_constants_are_those_inside():
    stage, inner = make_compressor("qsgd:127+huffman"), make_compressor("qsgd:127")
    draw = Draw(seed=4, rank=1, cohort=2)
    assert np.array_equal(decompress(stage.compress(X, draw)), decompress(inner.compress(X, draw)))
    assert stage.traits(X.size).omega == inner.traits(X.size).omega
    assert 8 * stage.compress(X).nbytes == pytest.approx(stage.traits(X.size).bits, rel=0.02)


def test_the_attacks_are_on_a_packet_that_is_right():
    row = [-1.0, -1.0, -1.0, -1.0, 0.0, 1.0]
    assert decompress(composed.huffman()).tolist() == row * 4
