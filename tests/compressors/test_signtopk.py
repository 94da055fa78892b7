"""Signs of the largest: exact error, exact contraction, and bytes."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import decompress, make_compressor
from flowerpress.compressors.sparse.signtopk import SignTopK


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 7, 100])
def test_exact_error(k, dtype):
    """|C(x) - x|^2 = |x|^2 - |T|_1^2 / k, with T the largest."""
    x = np.random.default_rng(k).standard_normal(100).astype(dtype)
    y = decompress(SignTopK(k=k).compress(x)).astype(float)
    kept = np.sort(np.abs(x.astype(float)))[-k:]
    error = ((y - x) ** 2).sum()
    assert error == pytest.approx((x.astype(float) ** 2).sum() - kept.sum() ** 2 / k, rel=1e-5)
    assert np.count_nonzero(y) == k
    assert np.array_equal(np.sign(y), np.where(y != 0, np.sign(x), 0))


@pytest.mark.parametrize(("k", "d"), [(1, 10), (3, 10), (5, 10), (10, 10), (2, 400)])
def test_contraction_is_reached(k, d):
    """By a one-hot vector or by one of equal magnitudes, whichever is worse."""
    one_hot = np.zeros(d)
    one_hot[d // 2] = -3
    losses = []
    for x in (one_hot, np.full(d, 0.7)):
        y = decompress(SignTopK(k=k).compress(x))
        losses.append(((y - x) ** 2).sum() / (x**2).sum())
    alpha = SignTopK(k=k).traits(d).alpha
    assert max(losses) == pytest.approx(1 - alpha)


def test_ties_and_bytes():
    packet = make_compressor("signtopk:k=2").compress(np.array([1.0, -1.0, 1.0], dtype=np.float32))
    assert decompress(packet).tolist() == [1.0, -1.0, 0.0]
    x = np.random.default_rng(0).standard_normal(100_000, dtype=np.float32)
    # Of 100000 places, 1000: 8.1 bits for each, and a sign.
    assert make_compressor("signtopk:0.01").compress(x).nbytes < 24 + 12 + 1000 * 9.2 / 8
