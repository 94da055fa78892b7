"""Rand-k: the law of its subsets, and what reaches the wire."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from flowerpress.compressors import Draw, decompress, make_compressor
from flowerpress.compressors.kernels.numba import common as numba_kernels
from flowerpress.compressors.kernels.numpy import common as numpy_kernels

KERNELS = [numpy_kernels, numba_kernels]
DRAWS = 20_000


def keys(count):
    return [Draw(seed=seed).key(1) for seed in range(count)]


def chi2_bound(cells):
    """Return the mean of chi-squared with five deviations of room."""
    return cells - 1 + 5 * np.sqrt(2 * (cells - 1))


@pytest.mark.parametrize(("dim", "k"), [(5, 2), (6, 3), (4, 1), (9, 8)])
def test_every_subset_is_equally_likely(dim, k):
    subsets = dict.fromkeys(combinations(range(dim), k), 0)
    for key in keys(DRAWS):
        subsets[tuple(sorted(numba_kernels.uniform_ids(k, dim, key).tolist()))] += 1
    counts, expected = np.array(list(subsets.values())), DRAWS / len(subsets)
    assert ((counts - expected) ** 2 / expected).sum() < chi2_bound(len(subsets))


def test_pairs_of_a_larger_vector_are_equally_likely():
    dim, k, draws = 300, 6, 20_000
    together = np.zeros((dim, dim))
    for key in keys(draws):
        ids = numba_kernels.uniform_ids(k, dim, key)
        together[np.ix_(ids, ids)] += 1
    pairs = together[np.triu_indices(dim, 1)]
    expected = draws * k * (k - 1) / (dim * (dim - 1))
    assert ((pairs - expected) ** 2 / expected).sum() < chi2_bound(pairs.size)
    singles, expected = np.diag(together), draws * k / dim
    assert ((singles - expected) ** 2 / expected).sum() < chi2_bound(dim)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dim", [1, 2, 3, 255, 256, 257, 1000, 65_537])
def test_all_of_k_equal_to_dim(kernels, dim):
    assert sorted(kernels.uniform_ids(dim, dim, (3, 4)).tolist()) == list(range(dim))
    assert kernels.stratified_ids(dim, dim, (3, 4)).tolist() == list(range(dim))


@pytest.mark.parametrize("kernels", KERNELS)
def test_places_of_a_very_long_vector(kernels):
    dim = (1 << 32) - 1
    for ids in (kernels.uniform_ids(2000, dim, (1, 2)), kernels.stratified_ids(2000, dim, (1, 2))):
        assert np.unique(ids).size == 2000
        assert (ids < dim).all()
        assert abs(ids.mean() / dim - 0.5) < 5 * 0.29 / np.sqrt(2000)


@pytest.mark.parametrize(("dim", "k"), [(10, 3), (7, 7), (2048, 1500), (12, 4)])
def test_strata(dim, k):
    """One place in each group, each place of a group equally often."""
    edges = [j * dim // k for j in range(k + 1)]
    draws = 4000 if dim < 100 else 50
    counts = np.zeros(dim)
    for key in keys(draws):
        ids = numpy_kernels.stratified_ids(k, dim, key)
        assert all(edges[j] <= ids[j] < edges[j + 1] for j in range(k))
        counts[ids] += 1
    sizes = np.repeat(np.diff(edges), np.diff(edges))
    deviation = np.sqrt(draws * (1 / sizes) * (1 - 1 / sizes)) + 1e-9
    assert (np.abs(counts - draws / sizes) <= 6 * deviation + 1).all()


@pytest.mark.parametrize("law", ["uniform", "stratified"])
def test_kept_values_are_scaled_exactly(law):
    x = np.arange(1.0, 13.0)
    y = decompress(make_compressor(f"randk:k=3,law={law}").compress(x, Draw(seed=1)))
    assert np.count_nonzero(y) == 3
    assert np.array_equal(y[y != 0], 4 * x[y != 0])


def test_senders_keep_different_places():
    x = np.ones(1000)
    packets = [
        make_compressor("randk:k=10").compress(x, Draw(rank=rank, cohort=3)) for rank in range(3)
    ]
    supports = {tuple(np.flatnonzero(decompress(packet))) for packet in packets}
    assert len(supports) == 3


def test_overflow_is_refused_by_place():
    with pytest.raises(ValueError, match="scaled value 0 overflows float32"):
        make_compressor("randk:k=1").compress(np.full(10, 3e38, dtype=np.float32))
