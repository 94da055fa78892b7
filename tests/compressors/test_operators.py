"""Compressors made of others in parentheses: scaled and induced."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import Draw, decompress, make_compressor
from flowerpress.compressors.composed.induced import Induced
from flowerpress.compressors.composed.nesting import substream
from flowerpress.compressors.composed.scaled import Scaled
from flowerpress.compressors.sparse.randk import RandK
from flowerpress.compressors.sparse.topk import TopK

X = np.random.default_rng(0).standard_normal(200)


def test_grammar():
    assert make_compressor("scaled( randk:0.1 )") == Scaled(RandK(0.1))
    assert make_compressor("induced(topk:k=3;randk:0.1,law=stratified)") == Induced(
        TopK(k=3), RandK(0.1, law="stratified")
    )
    nested = "hadamard+scaled(induced(topk:k=3+sign; randk:0.1+qsgd:7))+rans"
    assert make_compressor(nested).spec == nested.replace("qsgd:7", "qsgd")
    assert make_compressor(make_compressor(nested).spec) == make_compressor(nested)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("scaled", r"'scaled' is written around others: 'scaled\(randk:0.1\)'"),
        ("induced:topk", r"'induced\(randk:0.1; randk:0.1\)'"),
        ("scaled(randk:0.1; randk:0.1)", "hold 2 compressors"),
        ("induced(randk:0.1)", "hold 1 compressors"),
        ("qsgd(randk:0.1)", r"what takes: scaled \(1\), induced \(2\)"),
        ("scaled()", "unknown compressor ''"),
        ("scaled(randk:0.1", "parentheses do not match"),
        ("scaled(randk:0.1))", "parentheses do not match"),
        (")(", "parentheses do not match"),
        ("scaled(" * 9 + "randk:0.1" + ")" * 9, "more than 8 deep"),
        ("scaled(" * 100_000, "more than 8 deep"),
        ("scaled(" * 8 + "randk:0.1" + ")" * 8, "9 deep"),
    ],
)
def test_a_wrong_spec_says_what_is_right(spec, says):
    with pytest.raises(ValueError, match=says):
        make_compressor(spec)


def test_scaled_is_the_inner_times_a_factor():
    inner = decompress(make_compressor("randk:k=50").compress(X, Draw(seed=3)))
    outer = decompress(make_compressor("scaled(randk:k=50)").compress(X, Draw(seed=3)))
    assert np.array_equal(outer, inner / 4)  # omega = 3
    assert make_compressor("scaled(randk:k=50)").traits(200).alpha == 0.25


def test_scaled_takes_the_unbiased_only():
    with pytest.raises(ValueError, match="'topk:k=3' is not unbiased; scaled takes what states"):
        make_compressor("scaled(topk:k=3)").compress(X)
    with pytest.raises(ValueError, match="not unbiased"):
        make_compressor("scaled(sign)").traits(10)


def test_induced_is_a_sum():
    draw = Draw(seed=3)
    first = decompress(make_compressor("topk:k=20").compress(X, substream(draw, 1)))
    rest = decompress(make_compressor("randk:k=20").compress(X - first, substream(draw, 2)))
    both = decompress(make_compressor("induced(topk:k=20; randk:k=20)").compress(X, draw))
    assert np.array_equal(both, first + rest)


def test_induced_is_unbiased_with_less_variance():
    induced = make_compressor("induced(topk:k=20; randk:k=20)")
    stated = induced.traits(200)
    assert stated.unbiased
    assert stated.omega == pytest.approx(9 * 0.9)
    assert make_compressor("induced(topk:k=20; sign)").traits(200).alpha == pytest.approx(
        1 - 0.9 * (1 - 1 / 200)
    )
    assert make_compressor("induced(sign:l2; sign:l2)").traits(200).alpha is None


def test_parts_of_equal_kind_draw_apart():
    """With one draw both would choose the same places, and the sum would be biased."""
    x = np.arange(1.0, 5.0)
    compressor = make_compressor("induced(scaled(randk:k=2); randk:k=2)")
    mean = np.mean([decompress(compressor.compress(x, Draw(seed=s))) for s in range(4000)], axis=0)
    assert (abs(mean - x) < 5 * x * np.sqrt(1 / 4000)).all()
