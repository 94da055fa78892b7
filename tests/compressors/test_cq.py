"""Correlated quantization: exact mean squared errors, the shared order, and lost senders."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from flowerpress.compressors import Draw, Opened, add_to, decompress, make_compressor
from flowerpress.compressors.kernels.numpy import cq as kernel
from flowerpress.compressors.quantized import ranges
from flowerpress.compressors.quantized.cq import CQ
from flowerpress.compressors.testing.conformance import forced_kernels

GROUP = 4096  # coordinates that share an order
OLD = CQ(range="l2")


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
            [((decompress(OLD.compress(x, Draw(seed=s))) - x) ** 2).sum() for s in range(400)]
        )
        assert within(sampled, (x.size - 1) * (x**2).sum())


@pytest.mark.parametrize("levels", [2, 3, 16])
@pytest.mark.parametrize("kind", ["l2", "rms", "max"])
def test_equal_vectors_of_a_cohort(levels, kind):
    compressor = CQ(levels, range=kind)
    x = np.random.default_rng(0).standard_normal(64)
    n, sampled = 8, []
    for seed in range(200):
        total = np.zeros(x.size)
        for rank in range(n):
            add_to(compressor.compress(x, Draw(seed=seed, rank=rank, cohort=n)), total, 1 / n)
        sampled.append(((total - x) ** 2).sum() / (x**2).sum())
    bound = compressor.homogeneous(x.size, n)
    assert np.mean(sampled) < bound
    assert bound < compressor.traits(x.size, n).ab[0]
    assert CQ(range=1.0).homogeneous(64, 8) is None


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
    with pytest.raises(ValueError, match=r"x\[0\] is nan"):
        make_compressor("cq:range=1.5").compress(x * np.float32(np.nan))
    with pytest.raises(ValueError, match="range 0 overflows float32"):
        make_compressor("cq:range=1e300").compress(x)
    with pytest.raises(ValueError, match="norm 0 overflows float32"):
        make_compressor("cq:range=l2").compress(np.full(3, 3e38, dtype=np.float32))
    with pytest.raises(ValueError, match="range 0 overflows float32"):
        make_compressor("cq").compress(np.full(30, 3e38, dtype=np.float32))
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
    assert 8 * OLD.compress(x, draw).nbytes <= 1.005 * x.size
    assert 8 * CQ().compress(x, draw).nbytes <= 1.13 * x.size
    assert 8 * CQ(16, range="max").compress(x, draw).nbytes <= 4.01 * x.size
    assert 8 * make_compressor("cq:5,c=5+rans").compress(x, draw).nbytes <= 1.26 * x.size


def mean_error(compressor, rows, seed=0):
    """Return the squared error of the mean of a cohort, over the squared norm of the mean."""
    total, n = np.zeros(rows.shape[1]), len(rows)
    for rank, row in enumerate(rows):
        add_to(compressor.compress(row, Draw(seed=seed, rank=rank, cohort=n)), total, 1 / n)
    mean = rows.mean(axis=0)
    return ((total - mean) ** 2).sum() / (mean**2).sum()


def alike(n, dim, noise, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(dim)
    return (common + noise * rng.standard_normal((n, dim))).astype(np.float32)


def test_the_error_by_rms_does_not_grow_with_the_length():
    """The same within 10 % for 1,000 and 100,000 coordinates; by the norm it grows with d."""
    short, long = (alike(20, dim, 0.1) for dim in (1000, 100_000))
    rms = [
        np.mean([mean_error(CQ(), rows, s) for s in range(k)])
        for rows, k in ((short, 40), (long, 1))
    ]
    assert rms[0] == pytest.approx(rms[1], rel=0.1)
    assert mean_error(OLD, long) > 10 * mean_error(OLD, short)


@pytest.mark.parametrize("spec", ["cq", "cq:3", "cq:5,c=5", "cq:range=max", "cq:range=shared"])
def test_correlation_pays_where_vectors_are_alike(spec):
    rows = alike(50, 20_000, 0.05)
    correlated = make_compressor(spec)
    alone = CQ(correlated.levels, correlated.range, "independent", correlated.c)
    assert mean_error(correlated, rows) < 0.15 * mean_error(alone, rows)


def test_what_is_beyond_the_range_is_exact():
    x = np.random.default_rng(0).standard_t(2, 5000).astype(np.float32)
    reach = 3 * np.sqrt((x.astype(float) ** 2).mean())
    large = np.abs(x) > reach
    assert 5 < large.sum() < 200
    for levels in (2, 3, 16):
        y = decompress(CQ(levels).compress(x))
        assert np.abs(y - x)[large].max() <= 1e-6 * np.abs(x).max()
    # Beyond a number too, with the paper's shifted points.
    y = decompress(CQ(5, range=1.0).compress(x))
    far = np.abs(x) > 1
    assert far.sum() > 500
    assert np.abs(y - x)[far].max() <= 1e-6 * np.abs(x).max()
    assert np.abs(y - x)[~far].max() <= 2 * 6 / 20 * 1.00001


@pytest.mark.parametrize(
    "spec", ["cq", "cq:3", "cq:range=max", "cq:2,range=0.5", "cq:range=shared"]
)
def test_awkward_vectors(spec):
    """Zeros, one large value, tiny ones, one coordinate, a cohort of one: right on average."""
    compressor = make_compressor(spec)
    zeros = decompress(compressor.compress(np.zeros(3000, dtype=np.float32)))
    assert isinstance(compressor.range, float) or not zeros.any()
    hot = np.zeros(3000, dtype=np.float32)
    hot[1500] = -7
    y = np.mean([decompress(compressor.compress(hot, Draw(seed=s))) for s in range(200)], axis=0)
    if spec != "cq:range=max":  # zeros are rounded to plus or minus 7 there
        assert y[1500] == pytest.approx(-7, rel=1e-5)
    others = np.delete(y, 1500)
    assert abs(others.mean()) < 4 * 7 / np.sqrt(200 * 2999)
    tiny = np.full(100, np.nextafter(np.float32(0), np.float32(1)))
    assert np.isfinite(decompress(compressor.compress(tiny))).all()
    one = np.array([-0.3])
    means = [decompress(compressor.compress(one, Draw(seed=s)))[0] for s in range(2000)]
    assert np.mean(means) == pytest.approx(-0.3, abs=0.05)


def test_the_cohorts_range():
    """That of its norm is used from one to two times the own; else the sender has its own."""
    x = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    compressor, norm = make_compressor("cq:range=shared"), float(np.linalg.norm(x))
    own = 3 * norm / np.sqrt(4000)
    for times, used in ((0.0, own), (1.5, 1.5 * own), (0.9, own), (3, own)):
        packet = compressor.compress(x, Draw(norm=times * norm))
        assert Opened(packet).norm == pytest.approx(norm, rel=1e-6)
        most = max(used, np.abs(x).max())
        assert np.abs(decompress(packet)).max() == pytest.approx(most, rel=1e-6)


@pytest.mark.parametrize(
    ("spec", "tells"),
    [
        ("cq", True),
        ("cq:5,c=5,bucket=1024", True),
        ("cq:3,range=l2,bucket=1024", True),
        ("cq:range=l2", True),
        ("hadamard+cq:range=shared", True),
        ("cq:3,range=shared+rans", True),
        ("hadamard+cq:range=shared+huffman", True),
        ("hadamard+cq:5,c=5+rans", True),
        ("cq:range=max", False),
        ("cq:range=9", False),
        ("topk:0.5+cq", False),
        ("qsgd", False),
    ],
)
def test_packets_tell_the_vectors_norm(spec, tells):
    x = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    compressor = make_compressor(spec)
    norm = Opened(compressor.compress(x, Draw(norm=70.0))).norm
    assert norm == (pytest.approx(np.linalg.norm(x), rel=1e-5) if tells else None)


def test_the_cohorts_range_costs_little_where_norms_differ():
    rng = np.random.default_rng(0)
    scales = np.exp(0.3 * rng.standard_normal((100, 1))).astype(np.float32)
    rows = alike(100, 8192, 0.3) * scales
    norm = float(np.median(np.linalg.norm(rows, axis=1)))
    total, n = np.zeros(rows.shape[1]), len(rows)
    for rank, row in enumerate(rows):
        draw = Draw(rank=rank, cohort=n, norm=norm)
        add_to(CQ(range="shared").compress(row, draw), total, 1 / n)
    mean = rows.mean(axis=0)
    shared = ((total - mean) ** 2).sum() / (mean**2).sum()
    assert shared < 1.1 * mean_error(CQ(), rows)


def test_unbiased_whoever_is_absent_by_rms():
    """Of ten senders three are lost: the mean of the others' packets is that of their vectors."""
    rows = alike(10, 200, 0.5)
    there = [0, 1, 3, 4, 6, 7, 9]
    samples = np.zeros((400, 200))
    for seed in range(400):
        for rank in there:
            packet = CQ(3).compress(rows[rank], Draw(seed=seed, rank=rank, cohort=10))
            add_to(packet, samples[seed], 1 / len(there))
    error = samples.mean(axis=0) - rows[there].mean(axis=0)
    deviations = samples.std(axis=0) / np.sqrt(400)
    assert (error**2).sum() <= 16 * (deviations**2).mean() * 200 / 8
    assert np.abs(error / np.maximum(deviations, 1e-9)).max() < 5


def test_what_options_are_refused():
    for spec, says in {
        "cq:range=wide": "must be a number, rms, max, l2, shared",
        "cq:range=-1": "range must be a positive number or one of",
        "cq:c=0.5": "c must be a number of at least 1",
        "cq:c=2,range=max": "c is of range=rms and range=shared",
        "cq:bucket=100": "bucket must be a multiple of 1024",
        "cq:range=shared,bucket=1024": "bucket must be 0",
        "cq:range=2,bucket=1024": "bucket must be 0",
    }.items():
        with pytest.raises(ValueError, match=says):
            make_compressor(spec)
    with pytest.raises(ValueError, match="the range 1e-46 is zero in float32"):
        make_compressor("cq:range=1e-46").compress(np.zeros(3, dtype=np.float32))
    for spec in ("permk+cq", "permk+scaled(cq)", "permk+induced(topk:0.1; cq)"):
        with pytest.raises(ValueError, match="nothing to correlate"):
            make_compressor(spec)
    with pytest.raises(ValueError, match="norm must be a number"):
        Draw(norm=float("nan"))


def exact_variance(x, levels, c):
    """Return ``E |C(x) - x|^2 / |x|^2`` of a vector, by rms: what is beyond the range has none."""
    reach = min(c, np.sqrt(x.size)) * np.sqrt((x**2).mean())
    step = 2 * reach / (levels - 1)
    up = np.mod(x + reach, step)
    return np.where(np.abs(x) > reach, 0, up * (step - up)).sum() / (x**2).sum()


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 9])
@pytest.mark.parametrize("c", [1.0, 1.7, 3.0, 6.0, 20.0])
def test_omega_is_above_all_vectors_and_no_more_than_it_must(levels, c):
    """Vectors of one or two magnitudes are the worst: there are some within a tenth of it."""
    omega = CQ(levels, c=c).traits(400).omega
    rng = np.random.default_rng(0)
    found = []
    for _ in range(3000):
        few = rng.integers(0, 400)
        x = np.concatenate([np.full(few, rng.random() ** 3), np.full(400 - few, rng.random())])
        found.append(exact_variance(x, levels, c))
    found += [exact_variance(rng.standard_t(3, 400), levels, c) for _ in range(200)]
    found += [exact_variance(np.eye(1, 400)[0], levels, c)]
    assert 0.9 * omega <= max(found) <= omega * (1 + 1e-12)


def test_omega_does_not_depend_on_the_length():
    for spec in ("cq", "cq:3", "cq:5,c=5", "cq:bucket=1024", "hadamard+cq:5,c=5+rans"):
        compressor = make_compressor(spec)
        short, long = compressor.traits(10**4, 20), compressor.traits(10**9, 20)
        assert long.omega == pytest.approx(short.omega, rel=1e-3)
        assert long.ab == pytest.approx((short.omega / 20, 0.0), rel=1e-3)
        assert compressor.homogeneous(10**9, 20) == compressor.homogeneous(10**4, 20)


def test_buckets_are_whole_but_for_one():
    """As many as are said, none longer than 1023 more, and all edges at multiples of 1024."""
    for dim in (1, 1023, 1024, 1025, 2048, 2049, 3000, 4095, 4096, 4097, 50_890, 65_536, 100_000):
        for bucket in (0, 1024, 2048, 8192):
            edges = ranges.edges(dim, bucket)
            assert edges[0] == 0
            assert edges[-1] == dim
            assert edges.size == ranges.count(dim, bucket) + 1
            sizes = np.diff(edges)
            assert (sizes > 0).all()
            assert sizes.max() == CQ(bucket=bucket)._largest(dim)
            assert not (edges[:-1] % 1024).any()
            if bucket and dim > bucket:
                assert bucket <= sizes[-1] < bucket + 1024
                assert (sizes[:-2] == bucket).all()


@pytest.mark.parametrize("spec", ["cq", "cq:3,c=20", "cq:3,range=max", "hadamard+cq:3,c=16+rans"])
def test_the_constant_of_equal_vectors_is_no_worse_than_that_of_any(spec):
    compressor = make_compressor(spec)
    for n in (1, 2, 4, 10, 100):
        assert compressor.homogeneous(10**6, n) <= compressor.traits(10**6, n).ab[0] * (1 + 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_beyond_has_the_outermost_code_for_all_levels(dtype):
    """Also where 1 / (1 / (k - 1)) is not k - 1, as for 49."""
    x = np.random.default_rng(0).standard_t(2, 3000).astype(dtype)
    beyond = np.abs(x) > 1.00001 * np.sqrt((x.astype(float) ** 2).mean())
    for levels in range(2, 257):
        y = decompress(CQ(levels, c=1.0).compress(x))
        assert np.abs(y - x)[beyond].max() <= 1e-6 * np.abs(x).max()
