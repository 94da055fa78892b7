"""QSGD: its levels, their chances, and its grid."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import Draw, decompress, make_compressor


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_chances_of_the_two_nearest_levels(dtype):
    """s |x| / norm = 1.8 becomes 2 with chance 0.8 and 1 with 0.2; signs are kept."""
    x = np.tile(np.array([0.6, -0.8], dtype=dtype), 20_000)
    y = decompress(make_compressor("qsgd:3,bucket=2").compress(x, Draw(seed=4)))
    levels = np.round(3 * y.reshape(-1, 2)).astype(int)
    assert set(levels[:, 0]) == {1, 2}
    assert set(levels[:, 1]) == {-2, -3}
    room = 5 * np.sqrt(0.8 * 0.2 / 20_000)
    assert abs((levels[:, 0] == 2).mean() - 0.8) < room
    assert abs((levels[:, 1] == -3).mean() - 0.4) < 5 * np.sqrt(0.4 * 0.6 / 20_000)
    together = ((levels[:, 0] == 2) & (levels[:, 1] == -3)).mean()
    assert abs(together - 0.8 * 0.4) < 5 * np.sqrt(0.32 * 0.68 / 20_000)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiny_values_are_not_lost_on_average(dtype):
    """A coordinate far below one step still has the right mean: no chance is rounded to zero."""
    x = np.full(1 << 20, 2.0**-10, dtype=dtype)  # norm 1, chance 2^-10 each
    y = decompress(make_compressor("qsgd:1,bucket=0").compress(x, Draw(seed=2)))
    hits = int((y > 0).sum())
    assert abs(hits - 1024) < 5 * np.sqrt(1024)


def test_values_on_the_grid_do_not_move():
    x = np.array([0.0, 3.0, -4.0, 0.0], dtype=np.float32)
    for seed in range(50):
        y = decompress(make_compressor("qsgd:5,bucket=0").compress(x, Draw(seed=seed)))
        np.testing.assert_allclose(y, x, rtol=1e-6)


def test_variance_of_a_one_norm_gaussian():
    """Measured against the paper's second moment at s = 1: E|Q|^2 = |x|_1 |x|_2."""
    x = np.random.default_rng(0).standard_normal(1024)
    errors = [
        ((decompress(make_compressor("qsgd:1,bucket=0").compress(x, Draw(seed=s))) - x) ** 2).sum()
        for s in range(300)
    ]
    want = np.abs(x).sum() * np.linalg.norm(x) - (x**2).sum()
    assert np.mean(errors) == pytest.approx(want, abs=5 * np.std(errors) / np.sqrt(300))


@pytest.mark.parametrize(("levels", "bits"), [(1, 2), (2, 3), (3, 3), (7, 4), (127, 8), (128, 9)])
def test_bits_of_a_code(levels, bits):
    packet = make_compressor(f"qsgd:{levels},bucket=0").compress(np.ones(4096, dtype=np.float32))
    assert packet.nbytes == 24 + 8 + 4 + 4096 * bits // 8


def test_norms_of_buckets():
    x = np.array([3.0, 4.0, 0.0, 0.0, 1e-200])
    payload = make_compressor("qsgd:bucket=2").compress(x).payload
    assert np.frombuffer(payload[8:32], dtype="<f8").tolist() == [5.0, 0.0, 1e-200]


def test_a_norm_that_overflows_is_refused():
    with pytest.raises(ValueError, match="bucket 1 overflows float32"):
        make_compressor("qsgd:bucket=2").compress(np.array([1, 1, 3e38, 3e38], dtype=np.float32))


def test_senders_round_independently():
    x = np.full(10_000, 0.5)
    first, second = (
        decompress(make_compressor("qsgd:1,bucket=2").compress(x, Draw(rank=rank, cohort=2)))
        for rank in range(2)
    )
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / 100
