"""Correlated quantization: exact mean squared errors, the shared order, and lost senders."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from flowerpress.compressors import Draw, add_to, decompress, make_compressor
from flowerpress.compressors.kernels.numpy import cq as kernel
from flowerpress.compressors.quantized.cq import CQ
from flowerpress.compressors.testing.conformance import forced_kernels

GROUP = 4096  # coordinates that share an order


def exact_error(y: np.ndarray) -> float:
    """Return the mean squared error of the average of n one-bit codes of y in [0, 1].

    With a_ij the part of [j / n, (j + 1) / n) below y_i: given the order, sender i at place j has
    the variance a (1 - a); and the sum of a over a random permutation has the variance of
    Hoeffding's combinatorial central limit theorem.
    """
    n = len(y)
    a = np.clip(n * y[:, None] - np.arange(n), 0, 1)
    centred = a - a.mean(axis=1, keepdims=True) - a.mean(axis=0) + a.mean()
    own = (a * (1 - a)).sum() / n
    return float((own + (centred**2).sum() / max(1, n - 1)) / n**2)


def exact_error_of_levels(y: np.ndarray, k: int, shifts: int = 1000) -> float:
    """Return the same for k levels: one bit within the step, on average over the points' shift."""
    step = (k + 1) / (k * (k - 1))
    first = -(np.arange(shifts) + 0.5) / shifts / k
    rest = (y[None, :] - first[:, None]) / step % 1.0
    return step**2 * float(np.mean([exact_error(row) for row in rest]))


def independent_error(y: np.ndarray) -> float:
    return float((y * (1 - y)).sum() / len(y) ** 2)


def errors(y, *, levels=2, dim=1 << 18, draw=None) -> np.ndarray:
    """Return the squared errors of the mean, in units of the range, averaged over groups."""
    total = np.zeros(dim)
    for rank, value in enumerate(y):
        x = np.full(dim, 2 * value - 1, dtype=np.float32)
        where = draw(rank) if draw else Draw(seed=1, rank=rank, cohort=len(y))
        add_to(CQ(levels, range=1.0).compress(x, where), total, 1 / len(y))
    want = np.mean(2 * np.asarray(y, dtype=np.float32).astype(float) - 1)
    return (((total - want) / 2) ** 2).reshape(-1, GROUP).mean(axis=1)


def within(samples, want, room=4.0) -> bool:
    return abs(samples.mean() - want) < room * samples.std() / np.sqrt(samples.size) + 1e-12


ROWS = {
    "all 0.30": (np.full(10, 0.3), 0.0),
    "all 0.35": (np.full(10, 0.35), 2.5e-3),
    "four": (np.array([0.1, 0.2, 0.3, 0.4]), 1.833333e-2),
    "two pairs": (np.array([0.0, 0.0, 0.9, 0.9]), 1e-2),
    "near": (np.linspace(0.45, 0.55, 100), 1.621127e-4),
    "spread": (np.linspace(0, 0.99, 100), 8.416667e-4),
}


@pytest.mark.parametrize("row", ROWS)
def test_exact_error_of_one_bit(row):
    y, value = ROWS[row]
    assert exact_error(y) == pytest.approx(value, rel=1e-5, abs=1e-12)
    sampled = errors(y, dim=1 << (17 if len(y) == 100 else 19))
    if row == "all 0.30":  # n y is whole but for float32: exactly three of ten say one
        assert sampled.max() < 1e-6
    else:
        assert within(sampled, exact_error(y))


@pytest.mark.parametrize(
    ("row", "k", "value"),
    [
        ("all 0.35", 4, 2.89e-4),
        ("all 0.35", 16, 8.34e-6),
        ("near", 4, 6.28e-5),
        ("near", 16, 4.08e-6),
        ("spread", 4, 1.44e-4),
        ("four", 3, None),
        ("four", 256, None),
    ],
)
def test_exact_error_of_levels(row, k, value):
    y, _ = ROWS[row]
    want = exact_error_of_levels(y, k)
    if value is not None:
        assert want == pytest.approx(value, rel=0.02)
    assert within(errors(y, levels=k, dim=1 << (17 if len(y) == 100 else 18)), want)


def test_shifts_alone_are_not_enough(monkeypatch):
    """Without a random order, neighbouring ranks that are alike are worse off than independent.

    With it the error is the formula's. Equal vectors would not show the difference.
    """
    y = np.concatenate([np.linspace(0.2, 0.3, 50), np.linspace(0.7, 0.8, 50)])
    with forced_kernels("numpy"):
        right = errors(y, dim=1 << 16)
        monkeypatch.setattr(kernel, "orders", lambda d, n, rank, key: np.full(d // GROUP, rank))
        shifted = errors(y, dim=1 << 16)
    assert within(right, exact_error(y))
    assert shifted.mean() > 10 * exact_error(y)
    assert shifted.mean() > 3 * independent_error(y)


def test_senders_that_do_not_share_are_independent():
    """A sender's own seed in place of the run's: the error becomes that of independent rounding."""
    y, _ = ROWS["all 0.30"]
    sampled = errors(y, draw=lambda rank: Draw(seed=rank, rank=rank, cohort=10))
    assert within(sampled, independent_error(y))


def test_never_worse_than_independent_and_within_the_bound():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        n = int(rng.integers(2, 12))
        y = np.clip(rng.random() + rng.random() * rng.standard_normal(n), 0, 1)
        exact = exact_error(y)
        assert exact <= independent_error(y) * (1 + 1e-9)
        deviation = np.abs(y - y.mean()).mean()
        assert exact <= 3 * deviation / n + 12 / n**2


def test_ranks_have_distinct_places_and_orders_are_uniform():
    """Each group's order is a permutation, and all 24 of four senders are equally likely."""
    groups = 4800
    dim = groups * GROUP
    places = np.array([kernel.orders(dim, 4, rank, (1, 2)) for rank in range(4)]).T
    counts = Counter(map(tuple, places.tolist()))
    assert all(sorted(order) == [0, 1, 2, 3] for order in counts)
    assert len(counts) == 24
    chi2 = sum((count - groups / 24) ** 2 / (groups / 24) for count in counts.values())
    assert chi2 < 49.7  # 23 degrees of freedom: one in a thousand


def test_what_arrives_is_unbiased_whoever_is_lost():
    y = np.array([0.1, 0.5, 0.7, 0.95])
    dim = 1 << 18
    total = np.zeros(dim)
    for rank in (0, 2, 3):
        x = np.full(dim, 2 * y[rank] - 1)
        packet = CQ(range=1.0).compress(x, Draw(seed=3, rank=rank, cohort=4))
        add_to(packet, total, 1 / 3)
    means = total.reshape(-1, GROUP).mean(axis=1)
    assert within(means, 2 * y[[0, 2, 3]].mean() - 1)


def test_tiny_values_are_not_lost_on_average():
    """Values as small beside the norm as those of a long vector have the right mean."""
    x = np.full(1 << 20, 2.0**-12, dtype=np.float32)
    for cohort, rank in ((1, 0), (100, 42)):
        y = decompress(CQ(range=1.0).compress(x, Draw(seed=5, rank=rank, cohort=cohort)))
        surplus = (y > 0).mean() - 0.5
        assert abs(surplus - 2.0**-13) < 5 * 0.5 / 2**10


def test_omega_of_one_sender_is_exact():
    """Two levels of the vector's own norm: (d - 1) |x|^2, whatever the vector."""
    for seed, name in enumerate(("gaussian", "one-hot")):
        x = np.zeros(40)
        x[3] = 2
        if name == "gaussian":
            x = np.random.default_rng(seed).standard_normal(40)
        sampled = np.array(
            [((decompress(CQ().compress(x, Draw(seed=s))) - x) ** 2).sum() for s in range(400)]
        )
        assert within(sampled, (x.size - 1) * (x**2).sum())


@pytest.mark.parametrize("levels", [2, 3, 16])
def test_equal_vectors_of_a_cohort(levels):
    x = np.random.default_rng(0).standard_normal(64)
    n, sampled = 8, []
    for seed in range(200):
        total = np.zeros(x.size)
        for rank in range(n):
            add_to(CQ(levels).compress(x, Draw(seed=seed, rank=rank, cohort=n)), total, 1 / n)
        sampled.append(((total - x) ** 2).sum() / (x**2).sum())
    bound = CQ(levels).homogeneous(x.size, n)
    assert np.mean(sampled) < bound
    assert bound < CQ(levels).traits(x.size, n).ab[0]
    with pytest.raises(ValueError, match="no constants"):
        CQ(range=1.0).homogeneous(64, 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [2, 3, 5, 16, 256])
def test_a_shared_range(levels, dtype):
    """Both ends and all between: within a step of x, and right on average."""
    x = np.linspace(-3, 3, 2000).astype(dtype)
    compressor = CQ(levels, range=3.0)
    packet = compressor.compress(x, Draw(rank=2, cohort=7))
    assert packet.compressor == compressor.spec
    step = 6 if levels == 2 else 6 * (levels + 1) / (levels * (levels - 1))
    y = decompress(packet)
    assert np.abs(y - x).max() <= step * (1 + 1e-5)
    mean = np.mean(
        [
            decompress(compressor.compress(x, Draw(seed=s, rank=2, cohort=7))).reshape(-1, 50)
            for s in range(100)
        ],
        axis=0,
    ).mean(axis=1)
    want = x.reshape(-1, 50).mean(axis=1)
    assert np.abs(mean - want).max() < 5 * step / 2 / np.sqrt(100 * 50)
    assert compressor.traits(100).unbiased


def test_what_is_refused():
    x = np.array([0.0, 2.0], dtype=np.float32)
    with pytest.raises(ValueError, match=r"x\[1\] is 2.0, outside of the range 1.5"):
        make_compressor("cq:range=1.5").compress(x)
    with pytest.raises(ValueError, match=r"x\[0\] is nan"):
        make_compressor("cq:range=1.5").compress(x * np.float32(np.nan))
    with pytest.raises(ValueError, match="range 0 overflows float32"):
        make_compressor("cq:range=1e300").compress(x)
    with pytest.raises(ValueError, match="norm 0 overflows float32"):
        make_compressor("cq").compress(np.full(3, 3e38, dtype=np.float32))
    with pytest.raises(ValueError, match="above 65536"):
        make_compressor("cq").compress(x, Draw(cohort=70_000))
    for spec in ("cq:1", "cq:257", "cq:range=0", "cq:range=inf", "cq:range=nan"):
        with pytest.raises(ValueError, match="must be"):
            make_compressor(spec)


def test_large_cohorts():
    """Orders of thousands of senders are drawn more seldom, and both kernels agree."""
    x = np.random.default_rng(0).standard_normal(3000)
    packets = []
    for name in ("numpy", "numba"):
        with forced_kernels(name):
            packets.append(CQ(4).compress(x, Draw(rank=1999, cohort=2000)))
    assert packets[0] == packets[1]
    assert kernel.group_blocks(2000) == 31


def test_bits():
    x = np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)
    draw = Draw(rank=5, cohort=100)
    assert 8 * CQ().compress(x, draw).nbytes <= 1.005 * x.size
    assert 8 * CQ(16).compress(x, draw).nbytes <= 4.01 * x.size
