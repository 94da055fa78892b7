"""Rotations, and the codecs that are built on them: hadamard, drive, eden."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowerpress.compressors import Draw, add_to, decompress, make_compressor
from flowerpress.compressors.kernels.numba import hadamard as jit_hadamard
from flowerpress.compressors.kernels.numpy import eden as centroids
from flowerpress.compressors.kernels.numpy import hadamard
from flowerpress.compressors.rotated.rotation import Rotation, block_size, edges

DIMS = [1, 2, 3, 8, 31, 64, 100, 513, 1024, 5000, 8192, 8193, 20_000]


def matrix(kernels, dim, size, key=(1, 2)):
    return np.stack([kernels.rotate(row, size, key) for row in np.eye(dim)])


@pytest.mark.parametrize("kernels", [hadamard, jit_hadamard])
@pytest.mark.parametrize(("dim", "size"), [(1, 1), (2, 2), (3, 2), (8, 8), (64, 64), (100, 64)])
def test_the_map_is_orthogonal(kernels, dim, size):
    rows = matrix(kernels, dim, size)
    np.testing.assert_allclose(rows @ rows.T, np.eye(dim), atol=1e-12)
    back = np.stack([kernels.unrotate(row, size, (1, 2)) for row in rows])
    np.testing.assert_allclose(back, np.eye(dim), atol=1e-12)


def test_a_block_is_signs_times_a_hadamard_matrix():
    rows = matrix(hadamard, 16, 16)
    h = np.array([[1.0]])
    for _ in range(4):
        h = np.block([[h, h], [h, -h]])
    signs = rows[:, 0] * 4  # the first row of a Hadamard matrix is all ones
    assert set(signs) == {-1, 1}
    np.testing.assert_allclose(rows, signs[:, None] * h / 4, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", DIMS)
def test_twins(dim, dtype):
    x = np.random.default_rng(dim).standard_normal(dim).astype(dtype)
    size = block_size(dim)
    results = []
    for kernels in (hadamard, jit_hadamard):
        y = kernels.rotate(x, size, (7, 8))
        results.append((y.tobytes(), kernels.unrotate(y, size, (7, 8)).tobytes()))
    assert results[0] == results[1]


def test_every_coordinate_is_mixed():
    """Also in the last, overlapping block: no value of a one-hot vector stays as large."""
    for place in (0, 5000, 8192, 9999):
        x = np.zeros(10_000)
        x[place] = 1
        assert abs(Rotation((3, 4), 10_000).apply(x)).max() <= 6 / math.sqrt(8192)


def test_all_senders_share_hadamard_but_not_drive():
    x = np.random.default_rng(0).standard_normal(100)
    for spec, shared in (("hadamard", True), ("drive", False), ("eden", False)):
        packets = [
            make_compressor(spec).compress(x, Draw(seed=1, rank=rank, cohort=2)) for rank in (0, 1)
        ]
        assert (packets[0] == packets[1]) == shared


def test_hadamard_helps_sign_where_few_values_are_large():
    x = np.zeros(4096, dtype=np.float32)
    x[:4] = [9, -7, 5, 3]
    errors = {
        spec: ((decompress(make_compressor(spec).compress(x)) - x) ** 2).sum() / (x**2).sum()
        for spec in ("sign", "hadamard+sign")
    }
    assert errors["sign"] > 0.99
    assert errors["hadamard+sign"] < 0.5


def relative_errors(spec, dim, draws, seed=0):
    rng = np.random.default_rng(seed)
    compressor = make_compressor(spec)
    errors = np.empty(draws)
    for i in range(draws):
        x = rng.standard_normal(dim)
        y = decompress(compressor.compress(x, Draw(seed=i)))
        errors[i] = ((x - y) ** 2).sum() / (x**2).sum()
    return errors.mean(), errors.std() / math.sqrt(draws)


def test_drive_biased_has_the_error_of_its_paper():
    """For n Gaussian values (1 - 2 / pi) (1 - 1 / n) exactly: 0.3634 in the limit."""
    for dim in (64, 1024):
        mean, error = relative_errors("drive:biased", dim, 400)
        assert abs(mean - (1 - 2 / math.pi) * (1 - 1 / dim)) < 4 * error
    mean, error = relative_errors("drive:biased", 8192, 100)
    assert abs(mean - (1 - 2 / math.pi)) < 4 * error


def test_drive_unbiased_has_the_error_of_its_paper():
    """pi / 2 - 1 = 0.5708 in the limit; blocks of 8192 are within 0.0002 of it."""
    mean, error = relative_errors("drive", 8192, 200)
    assert abs(mean - (math.pi / 2 - 1)) < 4 * error + 2e-4


@pytest.mark.parametrize("spec", ["drive", "eden", "eden:1"])
@pytest.mark.parametrize("tail", [0, 0.5], ids=["gaussian", "tailed"])
def test_the_unbiased_scale_has_no_visible_bias_where_values_are_even(spec, tail):
    rng = np.random.default_rng(4)
    x = rng.standard_normal(1024) * np.exp(tail * rng.standard_normal(1024))
    draws = 600
    samples = np.array(
        [decompress(make_compressor(spec).compress(x, Draw(seed=s))) for s in range(draws)]
    )
    error, spread = samples.mean(axis=0) - x, samples.std(axis=0) / math.sqrt(draws)
    # Of 1024 coordinates, none is 5 standard errors off; the sum of squares is a chi-square.
    assert (abs(error) < 5 * spread).all()
    assert abs(((error / spread) ** 2).mean() - 1) < 4 * math.sqrt(2 / 1024)


def test_drive_of_two_coordinates_is_biased():
    """Why no omega is stated: the smaller of two values is lost, whatever the signs."""
    x = np.array([3.0, 1.0])
    for seed in range(20):
        assert decompress(make_compressor("drive").compress(x, Draw(seed=seed)))[1] == 0


def test_errors_of_senders_average_out():
    """Ten senders of one vector: a tenth of the error, since each rotates its own way."""
    x = np.random.default_rng(2).standard_normal(4096)
    errors = []
    for seed in range(40):
        mean = np.zeros_like(x)
        for rank in range(10):
            packet = make_compressor("drive").compress(x, Draw(seed=seed, rank=rank, cohort=10))
            add_to(packet, mean, 0.1)
        errors.append(((mean - x) ** 2).sum() / (x**2).sum())
    spread = np.std(errors) / math.sqrt(len(errors))
    assert abs(np.mean(errors) - (math.pi / 2 - 1) / 10) < 4 * spread + 1e-3


@pytest.mark.parametrize("bits", range(1, 7))
def test_centroids_are_optimal_for_the_normal_distribution(bits):
    """Each is the mean of what is nearest to it, and the error is Max's."""
    half = np.array(centroids.CENTROIDS[bits])
    edge = np.array([0, *(half[1:] + half[:-1]) / 2, np.inf])
    density = np.exp(-(edge**2) / 2) / math.sqrt(2 * math.pi)
    tail = np.array([math.erfc(e / math.sqrt(2)) / 2 for e in edge])
    chance = tail[:-1] - tail[1:]
    means = (density[:-1] - density[1:]) / chance
    np.testing.assert_allclose(half, means, atol=3e-5)
    error = 1 - 2 * (chance * (2 * half * means - half**2)).sum()
    published = [0.3634, 0.1175, 0.03454, 0.009497, 0.002499, 0.0006442]
    assert error == pytest.approx(published[bits - 1], rel=4e-3)


@pytest.mark.parametrize("bits", [1, 2, 4, 6])
def test_eden_reaches_the_error_of_its_centroids(bits):
    half = np.array(centroids.CENTROIDS[bits])
    biased, spread = relative_errors(f"eden:{bits},scale=biased", 8192, 40)
    edge = np.array([0, *(half[1:] + half[:-1]) / 2, np.inf])
    tail = np.array([math.erfc(e / math.sqrt(2)) / 2 for e in edge])
    limit = 1 - 2 * ((tail[:-1] - tail[1:]) * half**2).sum()
    assert abs(biased - limit) < 4 * spread + 0.002 * limit
    unbiased, spread = relative_errors(f"eden:{bits}", 8192, 40)
    assert abs(unbiased - limit / (1 - limit)) < 4 * spread + 0.002 * limit


def test_edges_cover_the_vector():
    for dim in DIMS:
        cut = edges(dim)
        assert cut[0] == 0
        assert cut[-1] == dim
        assert (np.diff(cut) > 0).all()
        assert np.diff(cut).max() <= block_size(dim)


@pytest.mark.parametrize("spec", ["drive", "eden", "hadamard"])
def test_what_overflows_is_refused(spec):
    """The norm of the vector is above the largest number; a value of some rotation is, too."""
    x = np.full(4096, 3e38, dtype=np.float32)
    x[::2] *= -1
    draw = Draw(seed=1)
    key = draw.shared_key(40)
    largest = abs(Rotation(key, 4096).apply(x.astype(np.float64))).max()
    assert largest > np.finfo(np.float32).max
    with pytest.raises(ValueError, match=r"rotated value .* overflows float32"):
        make_compressor(spec).compress(x, draw)
