"""Scaled sign: the exact identities of its error."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import Packet, decompress, make_compressor

X = np.random.default_rng(0).standard_normal(5000)


def error(spec, x):
    return float(((decompress(make_compressor(spec).compress(x)) - x) ** 2).sum())


def test_l1_error():
    """|x - C(x)|^2 = |x|^2 - |x|_1^2 / d."""
    assert error("sign", X) == pytest.approx((X**2).sum() - np.abs(X).sum() ** 2 / X.size)


def test_l2_error():
    """|x - C(x)|^2 = 2 |x|^2 - 2 |x|_2 |x|_1 / sqrt(d)."""
    norm = np.linalg.norm(X)
    want = 2 * norm**2 - 2 * norm * np.abs(X).sum() / np.sqrt(X.size)
    assert error("sign:l2", X) == pytest.approx(want)
    assert np.linalg.norm(decompress(make_compressor("sign:l2").compress(X))) == pytest.approx(norm)


@pytest.mark.parametrize(("scale", "want"), [("l1", 0.36338), ("l2", 0.40423)])
def test_gaussian_error(scale, want):
    """1 - 2/pi and 2 - 2 sqrt(2/pi)."""
    x = np.random.default_rng(1).standard_normal(1_000_000)
    # The deviation of this share at d = 1e6 is 3.4e-4 (l1) and 4e-4 (l2): five of them.
    assert error(f"sign:{scale}", x) / (x**2).sum() == pytest.approx(want, abs=2e-3)


def test_l2_is_no_contraction_on_a_one_hot():
    x = np.eye(1, 100)[0]
    assert error("sign:l2", x) == pytest.approx(1.8)
    assert make_compressor("sign:l2").traits(100).alpha is None
    assert make_compressor("sign").traits(100).alpha == 0.01


def test_blocks_have_their_own_scales():
    x = np.array([1.0, -1.0, 0.0, 10.0, -20.0])
    y = decompress(make_compressor("sign:block=2").compress(x))
    assert y.tolist() == [1, -1, 5, 5, -20]


def test_tensors_have_their_own_scales():
    x = np.array([1.0, -3.0, 10.0, -20.0, 30.0])
    bound = make_compressor("sign:block=tensor").bind((2, 0, 3))
    packet = bound.compress(x)
    assert decompress(packet).tolist() == [2, -2, 20, -20, 20]
    assert packet.compressor == "sign:block=tensor"
    assert bound.traits(5).alpha == pytest.approx(1 / 3)


def test_tensors_must_be_bound_and_fit():
    with pytest.raises(ValueError, match="call bind"):
        make_compressor("sign:block=tensor").compress(X)
    with pytest.raises(ValueError, match="bound to tensors of 5 coordinates, got 5000"):
        make_compressor("sign:block=tensor").bind((2, 3)).compress(X)
    assert make_compressor("sign:block=7").bind((2, 3)) == make_compressor("sign:block=7")


def test_zero_is_positive():
    x = np.array([0.0, -0.0, 3.0])
    assert decompress(make_compressor("sign").compress(x)).tolist() == [1, 1, 1]


def test_one_bit_each():
    packet = make_compressor("sign").compress(np.ones(1_000_000, dtype=np.float32))
    assert packet.nbytes == 24 + 8 + 4 + 125_000


def test_huge_and_tiny_blocks_do_not_disturb_each_other():
    x = np.array([1e300, -1e300, 1e-300, -1e-300])
    for scale in ("l1", "l2"):
        y = decompress(make_compressor(f"sign:{scale},block=2").compress(x))
        np.testing.assert_allclose(y, x, rtol=1e-15)


def test_word_layout():
    """Bit r of word w is coordinate 32 r + w, in blocks of 1024; the rest follows in order."""
    x = -np.ones(1024 + 9, dtype=np.float32)
    x[[0, 33, 95, 1023, 1024, 1032]] = 1
    codes = bytes(Packet(make_compressor("sign").compress(x).data).payload)[12:]
    want = [0] * 32
    for place in (0, 33, 95, 1023):
        want[place % 32] |= 1 << place // 32
    assert np.frombuffer(codes[:128], dtype="<u4").tolist() == want
    assert codes[128:] == bytes([1, 1])
