"""Composition with ``+``: what is sent, what is stated, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import Draw, Packet, PacketError, add_to, decompress, make_compressor
from flowerpress.compressors.composed.chain import Chain
from flowerpress.compressors.composed.nesting import MAX_DEPTH, depth, substream
from flowerpress.compressors.quantized.qsgd import QSGD
from flowerpress.compressors.rotated.hadamard import Hadamard
from flowerpress.compressors.sparse.randk import RandK
from flowerpress.compressors.sparse.topk import TopK
from flowerpress.compressors.testing.hostile import resealed

X = np.random.default_rng(0).standard_normal(1000).astype(np.float32)


def test_left_to_right():
    chain = make_compressor("hadamard + randk:0.1+qsgd:3,bucket=64")
    assert chain == Chain(Hadamard(), Chain(RandK(0.1), QSGD(3, 64)))
    assert chain.spec == "hadamard+randk:0.1+qsgd:3,bucket=64"
    assert make_compressor(chain.spec) == chain
    assert depth(chain) == 3  # a frame for each plus, and one for QSGD


def test_a_number_may_have_a_plus():
    assert make_compressor("randk:1e+0+sign").spec == "randk:1.0+sign"


def test_kept_values_are_what_is_quantized():
    """Top-k then QSGD: the places are those of top-k, the values those of QSGD of the kept."""
    draw = Draw(seed=5)
    kept = np.flatnonzero(decompress(make_compressor("topk:k=30").compress(X)))
    values = decompress(make_compressor("qsgd:7").compress(X[kept], substream(draw, 1)))
    y = decompress(make_compressor("topk:k=30+qsgd:7").compress(X, draw))
    assert np.array_equal(y[kept], values)
    assert not np.delete(y, kept).any()


def test_packets_inside_describe_themselves():
    packet = make_compressor("topk:k=3+qsgd:7").compress(X)
    assert packet.compressor == "topk:k=3+qsgd"
    inside = Packet(bytes(packet.data[packet.data.rindex(b"FPRS") :]))
    assert (inside.dim, inside.compressor) == (3, "qsgd")


def test_equal_stages_choose_apart():
    """One key for both would keep the same ranks of coordinates, and scale them wrongly."""
    x = np.arange(1.0, 5.0)
    twice = make_compressor("randk:k=2+randk:k=1")
    mean = np.mean([decompress(twice.compress(x, Draw(seed=s))) for s in range(4000)], axis=0)
    # One coordinate in four is kept, times four: variance 3 x^2.
    assert (abs(mean - x) < 5 * x * np.sqrt(3 / 4000)).all()


def test_constants_follow_from_the_parts():
    topk, qsgd = make_compressor("topk:0.1"), make_compressor("qsgd:7,bucket=16")
    stated = make_compressor("topk:0.1+qsgd:7,bucket=16").traits(1000)
    assert stated.alpha == topk.traits(1000).alpha * (1 - qsgd.traits(100).omega)
    assert not stated.unbiased
    assert stated.omega is None

    randk, both = make_compressor("randk:0.1"), make_compressor("randk:0.1+qsgd:7")
    first, then = randk.traits(1000, 5), make_compressor("qsgd:7").traits(100, 5)
    stated = both.traits(1000, 5)
    assert stated.omega == first.omega + then.omega * (1 + first.omega)
    assert stated.ab == pytest.approx((stated.omega / 5, 0))

    sign = make_compressor("sign").traits(1000, 5)
    rotated = make_compressor("hadamard+sign").traits(1000, 5)
    assert (rotated.unbiased, rotated.alpha, rotated.ab) == (False, sign.alpha, sign.ab)
    assert make_compressor("randk:0.1+sign").traits(1000).alpha is None


def test_a_projection_and_a_contraction_meet_their_product():
    """A one-hot part for sign, after a top-k that loses as much as it may: the bound is reached."""
    x = np.array([1.0, 0, 0, 0], dtype=np.float64)
    chain = make_compressor("topk:k=2+sign")
    error = ((decompress(chain.compress(x)) - x) ** 2).sum()
    assert error <= 1 - chain.traits(4).alpha


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("qsgd:7+sign", "'qsgd' can't stand before '\\+'; what can: .*hadamard.*randk.*topk"),
        ("topk:k=3+", "unknown compressor ''"),
        ("+sign", "unknown compressor ''"),
        ("topk:k=3++sign", "k must be|must be an integer, got '3\\+'"),
        ("topk:k=3+zip", "unknown compressor 'zip'"),
        ("+".join(["hadamard"] * 9), "9 stages, at most 8"),
        ("+".join(["hadamard"] * 8 + ["sign"]), "9 stages"),
    ],
)
def test_a_wrong_chain_says_what_is_right(spec, says):
    with pytest.raises(ValueError, match=says):
        make_compressor(spec)


def test_a_chain_built_by_hand_is_checked():
    with pytest.raises(ValueError, match="'qsgd' leaves no values"):
        Chain(QSGD(), QSGD())
    deep = TopK(k=1)
    for _ in range(MAX_DEPTH - 1):
        deep = Chain(TopK(k=1), deep)
    with pytest.raises(ValueError, match="9 deep"):
        Chain(TopK(k=1), deep)


def test_the_deepest_chain_decodes():
    chain = make_compressor("+".join(["hadamard"] * (MAX_DEPTH - 2) + ["topk:0.5", "sign"]))
    assert depth(chain) == MAX_DEPTH
    packet = chain.compress(X)
    assert decompress(packet).shape == X.shape
    assert packet.compressor.count("+") == MAX_DEPTH - 1


@pytest.mark.parametrize("levels", [MAX_DEPTH, 40, 2000])
def test_packets_deeper_than_any_writer_makes_are_refused(levels):
    """Before the stack runs out: each level is a right frame with a right CRC-32."""
    data = make_compressor("sign").compress(X[:1]).data
    outer = make_compressor("hadamard+sign").compress(X[:1]).data
    head = outer[: outer.rindex(b"FPRS")]
    for _ in range(levels):
        data = resealed(head + data)
    packet = Packet(data)
    for use in (decompress, lambda p: p.compressor, Chain.codes):
        with pytest.raises(PacketError, match="more than 8 deep"):
            use(packet)
    out = np.ones(1, dtype=np.float32)
    with pytest.raises(PacketError, match="more than 8 deep"):
        add_to(packet, out)
    assert out == 1


def test_damage_inside_is_found():
    packet = make_compressor("topk:k=3+sign").compress(X)
    at = packet.data.rindex(b"FPRS")
    for wrong, says in (
        (slice(at + 6, at + 7), "float64 inside a packet of float32"),
        (slice(at + 16, at + 17), "dim is 2 inside a packet that leaves 3"),
    ):
        data = bytearray(packet.data)
        data[wrong] = b"\x02"
        inside = resealed(bytes(data[at:]))
        with pytest.raises(PacketError, match=says):
            decompress(resealed(bytes(data[:at]) + inside))
