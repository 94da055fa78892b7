"""Perm-k: shares that make up the vector, in both regimes, and what a missing sender means."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import Draw, PacketError, add_to, decompress, make_compressor
from flowerpress.compressors.sparse.permk import PermK, missing_ranks

SIZES = [(8, 4), (10, 4), (5, 5), (1000, 7), (3000, 1), (4, 9), (8, 16), (1, 3), (7, 100)]


def packets(rows, seed=0):
    draws = (Draw(seed=seed, rank=rank, cohort=len(rows)) for rank in range(len(rows)))
    return [PermK().compress(row, draw) for row, draw in zip(rows, draws, strict=True)]


def mean(sent, dim):
    total = np.zeros(dim)
    for packet in sent:
        add_to(packet, total, 1 / len(sent))
    return total


@pytest.mark.parametrize(("dim", "cohort"), SIZES)
def test_equal_vectors_are_averaged_without_error(dim, cohort):
    x = np.random.default_rng(0).standard_normal(dim)
    for seed in range(5):
        sent = packets([x] * cohort, seed)
        assert mean(sent, dim) == pytest.approx(x, rel=1e-12)
        assert missing_ranks(sent) == []


@pytest.mark.parametrize(("dim", "cohort"), SIZES)
def test_shares_are_disjoint_and_even(dim, cohort):
    """n <= d: a partition. n > d: every coordinate has n / d senders, rounded up or down."""
    supports = [np.flatnonzero(decompress(packet)) for packet in packets([np.ones(dim)] * cohort)]
    sizes = {support.size for support in supports}
    senders = np.bincount(np.concatenate(supports), minlength=dim)
    assert sizes <= {max(1, dim // cohort), -(-dim // cohort)}
    assert set(senders) <= {max(1, cohort // dim), -(-cohort // dim)}


@pytest.mark.parametrize(("dim", "cohort"), [(8, 4), (10, 4), (8, 16), (4, 9), (5, 7)])
def test_exact_error_of_a_cohort(dim, cohort):
    """E |mean C_i(a_i) - mean a_i|^2 = A (mean |a_i|^2 - |mean a_i|^2), not only at most."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((cohort, dim)) * np.arange(1, cohort + 1)[:, None]
    average = rows.mean(axis=0)
    errors = np.array(
        [((mean(packets(rows, seed), dim) - average) ** 2).sum() for seed in range(1500)]
    )
    a, b = PermK().traits(dim, cohort).ab
    want = a * (rows**2).sum(axis=1).mean() - b * (average**2).sum()
    assert a == b
    assert abs(errors.mean() - want) < 4 * errors.std() / np.sqrt(errors.size)
    if cohort % dim == 0:
        assert a == pytest.approx((dim - 1) / (cohort - 1))


@pytest.mark.parametrize(("dim", "cohort"), [(6, 3), (7, 3), (3, 6), (3, 5)])
def test_each_packet_alone_is_unbiased_with_the_stated_variance(dim, cohort):
    x = np.arange(1.0, dim + 1)
    for rank in (0, cohort - 1):
        samples = np.array(
            [
                decompress(PermK().compress(x, Draw(seed=seed, rank=rank, cohort=cohort)))
                for seed in range(3000)
            ]
        )
        deviation = samples.std(axis=0) / np.sqrt(len(samples))
        assert (np.abs(samples.mean(axis=0) - x) < 4.5 * deviation).all()
        errors = ((samples - x) ** 2).sum(axis=1) / (x**2).sum()
        omega = PermK().traits(dim, cohort).omega
        assert abs(errors.mean() - omega) < 4 * errors.std() / np.sqrt(len(errors))


def test_error_with_missing_senders():
    """s of n answer: the mean over them is unbiased for theirs, with A = n / s and B = 1."""
    dim, cohort, answered = 9, 4, [0, 1, 3]
    rows = np.random.default_rng(2).standard_normal((cohort, dim))
    theirs = rows[answered]
    average = theirs.mean(axis=0)
    means = []
    for seed in range(2000):
        sent = packets(rows, seed)
        received = [sent[rank] for rank in answered]
        means.append(mean(received, dim))
        assert missing_ranks(received) == [2]
    errors = ((np.array(means) - average) ** 2).sum(axis=1)
    want = 4 / 3 * (theirs**2).sum(axis=1).mean() - (average**2).sum()
    assert abs(errors.mean() - want) < 4 * errors.std() / np.sqrt(errors.size)
    deviation = np.std(means, axis=0) / np.sqrt(len(means))
    assert (np.abs(np.mean(means, axis=0) - average) < 4.5 * deviation).all()


def test_what_is_not_one_cohort():
    x = np.ones(6)
    first, second = packets([x, x])
    other = PermK().compress(x, Draw(seed=5, rank=1, cohort=2))
    with pytest.raises(ValueError, match="two packets"):
        missing_ranks([first, first])
    with pytest.raises(ValueError, match="2 cohorts or rounds"):
        missing_ranks([first, other])
    with pytest.raises(ValueError, match="0 cohorts"):
        missing_ranks([])
    with pytest.raises(PacketError, match="is of identity"):
        missing_ranks([first, make_compressor("identity").compress(x)])
    assert missing_ranks([second]) == [0]


def test_values_that_overflow_when_scaled():
    x = np.full(4, 3e38, dtype=np.float32)
    with pytest.raises(ValueError, match="scaled value 0 overflows"):
        PermK().compress(x, Draw(cohort=2))


def test_quantized_shares():
    """Shares may be quantized: then the cohort's mean has the error of the quantizer alone."""
    dim, cohort = 50, 4
    chain = make_compressor("permk+uniform:2,bucket=0")
    x = np.random.default_rng(3).standard_normal(dim)
    errors = []
    for seed in range(400):
        total = np.zeros(dim)
        for rank in range(cohort):
            packet = chain.compress(x, Draw(seed=seed, rank=rank, cohort=cohort))
            assert packet.compressor == chain.spec
            add_to(packet, total, 1 / cohort)
        errors.append(((total - x) ** 2).sum())
    a, b = chain.traits(dim, cohort).ab
    assert np.mean(errors) <= (a - b) * (x**2).sum()
    assert not np.allclose(errors, 0)


def test_a_round_and_a_seed_deal_anew():
    shares = {
        tuple(np.flatnonzero(decompress(PermK().compress(np.ones(40), draw))))
        for draw in (Draw(seed=s, round=r, cohort=4) for s in range(3) for r in range(3))
    }
    assert len(shares) == 9


def test_bytes_per_sender():
    packet = PermK().compress(np.ones(10_000, dtype=np.float32), Draw(rank=7, cohort=100))
    assert packet.nbytes == 24 + 16 + 4 * 100
    packet = PermK().compress(np.ones(10, dtype=np.float32), Draw(rank=7, cohort=100))
    assert packet.nbytes == 24 + 12 + 4
