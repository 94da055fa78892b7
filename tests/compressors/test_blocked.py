"""A vector cut into blocks."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from flowerpress.compressors import (
    Draw,
    Opened,
    PacketError,
    add_to,
    decompress,
    make_compressor,
    norm,
)
from flowerpress.compressors.composed import nesting
from flowerpress.compressors.composed.nesting import substream
from flowerpress.compressors.spec.allowed import Allowed
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.budget import only
from flowerpress.compressors.wire.packet import HEADER_BYTES, Packet

X = np.random.default_rng(0).standard_normal(2500)


@pytest.mark.parametrize("inner", ["topk:0.1", "randk:k=20", "qsgd:3,bucket=64", "topk:0.2+sign"])
def test_each_block_is_its_compressors_packet(inner):
    draw = Draw(5, 3, 1, 4, 0)
    packet = make_compressor(f"blocked({inner}, 1000)").compress(X, draw)
    payload, at, found = bytes(packet.payload), 4, []
    assert payload[:4] == (1000).to_bytes(4, "little")
    for i, start in enumerate(range(0, 2500, 1000)):
        part = make_compressor(inner).compress(X[start : start + 1000], substream(draw, i))
        assert payload[at : at + part.nbytes] == part.data
        at += part.nbytes
        found.append(decompress(part))
    assert at == len(payload)
    np.testing.assert_array_equal(decompress(packet), np.concatenate(found))
    total = np.ones(2500)
    add_to(packet, total, 0.5)
    np.testing.assert_allclose(total, 1 + 0.5 * np.concatenate(found))
    assert norm(packet) == pytest.approx(np.linalg.norm(np.concatenate(found)))
    assert packet.compressor == make_compressor(f"blocked({inner}, 1000)").spec or "topk" in inner


def test_draws_of_blocks_differ_and_are_shared_as_the_wholes():
    spec = make_compressor("blocked(randk:k=50, 500)")
    first, second = (
        decompress(spec.compress(np.ones(1000), Draw(1, rank=r, cohort=2))) for r in (0, 1)
    )
    assert (first[:500] != first[500:]).any()
    assert (first != second).any()
    alike = make_compressor("blocked(permk, 500)")
    parts = [decompress(alike.compress(np.ones(1000), Draw(1, 0, r, 5))) for r in range(5)]
    np.testing.assert_allclose(np.mean(parts, axis=0), 1)  # a cohort covers every block


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("blocked", "written around others"),
        ("blocked(topk:0.1)", "the length of a block"),
        ("blocked(topk:0.1; topk:0.1, 5)", "the length of a block"),
        ("blocked(topk:0.1, 0)", "size must be in"),
        ("blocked(topk:0.1, -3)", "the length of a block"),
        ("blocked(topk:0.1, 4294967296)", "size must be in"),
        ("blocked(nothing, 5)", "unknown compressor 'nothing'"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(spec, why):
    with pytest.raises(ValueError, match=why):
        make_compressor(spec)


def test_it_may_stand_where_others_do():
    for spec in ("scaled(blocked(randk:0.1, 5000))", "blocked(blocked(topk:0.1, 900), 2000)"):
        compressor = make_compressor(spec)
        assert compressor.spec == spec
        assert decompress(compressor.compress(X)).shape == X.shape
    assert make_compressor(" blocked( qsgd:levels=3,bucket=64 ,70 ) ").spec == (
        "blocked(qsgd:3,bucket=64, 70)"
    )


def test_what_goes_by_tensors_is_refused_when_it_is_bound():
    assert make_compressor("blocked(topk:0.1, 50)").bind_shapes([(3, 4)]).spec.startswith("blocked")
    for inner in ("sign:block=tensor", "powersgd:2"):
        with pytest.raises(ValueError, match="goes by the model's tensors, which blocks cut"):
            make_compressor(f"blocked({inner}, 50)").bind_shapes([(30, 4), (8,)])


def test_many_short_blocks_are_not_sent_and_not_read():
    with pytest.raises(ValueError, match="nobody reads"):
        make_compressor("blocked(topk:k=1, 20)").compress(np.ones(40_000, np.float32))
    make_compressor("blocked(topk:0.01, 10000)").compress(np.ones(1_000_000, np.float32))


@pytest.mark.parametrize(
    ("spec", "longer"),
    [
        ("blocked(topk:k=1, 2)", "10,000"),
        ("blocked(topk:0.01+qsgd:7, 2000)", "20,000"),
        ("blocked(induced(topk:0.1; sign), 1000)", "30,000"),
    ],
)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_short_blocks_are_refused_before_any_is_compressed(spec, longer, kind, monkeypatch):
    compressor = make_compressor(spec)
    made = []
    monkeypatch.setattr(nesting, "substream", lambda *_: made.append(1))
    says = rf"nobody reads .*many times the work .*make its blocks larger, of some {longer}$"
    with pytest.raises(ValueError, match=says):
        compressor.compress(np.ones(1_000_000, kind))
    assert not made


@pytest.mark.parametrize("inner", ["identity", "topk:k=1", "topk:0.1+qsgd:7", "hadamard+sign"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1500, 2500, 3500, 4000])
def test_what_is_refused_before_it_is_made_would_not_be_read(inner, size, monkeypatch):
    """Nothing that a receiver takes is refused."""
    compressor = make_compressor(f"blocked({inner}, {size})")
    x = np.ones(60 if size < 10 else 100_000, np.float32)
    try:
        compressor.compress(x)
    except ValueError:
        monkeypatch.setattr(budget, "affords", lambda *_: True)
        with pytest.raises(ValueError, match="many times the work"):
            compressor.compress(x)


def test_a_run_takes_only_its_own():
    packet = make_compressor("blocked(topk:0.1, 500)").compress(X)
    with only(Allowed.of("blocked(topk:0.1, 500)")):
        decompress(packet)
    with only(Allowed.of("blocked(sign, 500)")), pytest.raises(PacketError, match="codec 2"):
        decompress(packet)
    with only(Allowed.of("topk:0.1")), pytest.raises(PacketError, match="codec 30"):
        decompress(packet)


@pytest.mark.parametrize("inner", ["identity", "induced(identity; identity)"])
def test_what_overflows_in_a_late_block_changes_nothing(inner):
    x = np.ones(300, np.float32)
    x[-1] = 2e38 if inner == "identity" else 1e38
    packet = make_compressor(f"blocked({inner}, 100)").compress(x)
    out = np.zeros(300, np.float32)
    with pytest.raises(PacketError):
        add_to(packet, out, 4.0)
    assert not out.any()


def test_a_number_that_is_not_finite_is_named():
    x = np.ones(300)
    x[250] = np.nan
    with pytest.raises(ValueError, match=r"x\[250\] is nan"):
        make_compressor("blocked(topk:0.1, 100)").compress(x)


def test_memory_is_that_of_a_block():
    x = np.random.default_rng(0).standard_normal(2**21, dtype=np.float32)
    compressor = make_compressor("blocked(topk:0.01, 65536)")
    packet = compressor.compress(x)  # which compiles what is to be compiled
    tracemalloc.start()
    packet = compressor.compress(x)
    _, making = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    opened = Opened(Packet(packet.data))
    norm(opened)
    _, reading = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert making < x.nbytes / 4
    assert reading < x.nbytes / 4


def test_its_constants_are_those_of_the_worst_block():
    whole = make_compressor("blocked(randk:k=50, 1000)").traits(2500)
    assert whole.omega == 19.0
    assert make_compressor("blocked(topk:k=50, 1000)").traits(2500).alpha == 0.05
    assert make_compressor("blocked(topk:0.05, 1000)").traits(2500).alpha == 0.05
    bits = [make_compressor("sign").traits(n).bits for n in (1000, 500)]
    expected = 32 + 3 * 8 * HEADER_BYTES + 2 * bits[0] + bits[1]
    assert make_compressor("blocked(sign, 1000)").traits(2500).bits == expected
