"""Uniform quantization: its points, their chances, and the constants that it states."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import Draw, PacketError, add_to, decompress, make_compressor
from flowerpress.compressors.quantized.uniform import Uniform
from flowerpress.compressors.testing.conformance import forced_kernels

DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", range(1, 9))
def test_values_are_points_of_the_range(bits, dtype):
    x = np.random.default_rng(bits).uniform(-1, 2, 6000).astype(dtype)
    y = decompress(Uniform(bits, bucket=0).compress(x, Draw(seed=1)))
    top = 2**bits - 1
    places = (y / np.abs(x).max() + 1) * top / 2
    assert np.abs(places - np.round(places)).max() < 1e-4
    assert np.abs(y - x).max() <= 2 * np.abs(x).max() / top * (1 + 1e-6)
    assert len(np.unique(y)) == len(np.unique(np.round(places)))
    assert np.round(places).max() == top


@pytest.mark.parametrize("dtype", DTYPES)
def test_chances_of_the_two_nearest_points(dtype):
    """With two bits and M = 3 the points are -3, -1, 1, 3; 0.5 becomes 1 with chance 3/4."""
    x = np.tile(np.array([3.0, 0.5, -1.5, 1.0], dtype=dtype), 20_000)
    y = decompress(Uniform(2, bucket=0).compress(x, Draw(seed=4))).reshape(-1, 4)
    assert (np.abs(y - [3, 1, -1, 1]) < 1e-6).mean(axis=0)[[0, 3]] == pytest.approx([1, 1], abs=0)
    room = 5 * np.sqrt(0.25 * 0.75 / 20_000)
    assert abs((y[:, 1] > 0).mean() - 0.75) < room
    assert abs((y[:, 2] > -2).mean() - 0.75) < room
    together = ((y[:, 1] > 0) & (y[:, 2] > -2)).mean()
    assert abs(together - 0.75**2) < room


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiny_values_are_not_lost_on_average(dtype):
    """The mean is right to a small part of a step: 2**-13 of it shifts 2**20 roundings by 128."""
    x = np.full(1 << 20, 2.0**-13, dtype=dtype)
    x[0] = 1
    y = decompress(Uniform(1, bucket=0).compress(x, Draw(seed=2)))
    surplus = int((y[1:] > 0).sum()) - (y.size - 1) / 2
    assert abs(surplus - 2.0**-14 * y.size) < 5 * np.sqrt(y.size) / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", range(2, 9))
def test_nearest(bits, dtype):
    """Zero is a point, each coordinate goes to its nearest point, and nothing is random."""
    x = np.append(np.random.default_rng(bits).standard_normal(2000), [0.0, -0.0]).astype(dtype)
    compressor = Uniform(bits, bucket=0, rounding="nearest")
    y = decompress(compressor.compress(x, Draw(seed=1)))
    step = np.abs(x).max() / (2 ** (bits - 1) - 1)
    assert np.abs(y - x).max() <= step / 2 * (1 + 1e-5)
    assert not y[-2:].any()
    assert compressor.compress(x, Draw(seed=1)) == compressor.compress(x, Draw(seed=2))


@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
@pytest.mark.parametrize("bits", [1, 2, 5])
def test_stated_constants_are_reached(bits, rounding):
    """The worst vector's expected error is the bound itself, so no smaller bound is true."""
    n, top = 30, 2**bits - (1 if rounding == "stochastic" or bits == 1 else 2)
    # Zero is midway between two random points; for the nearest, half a step of M is.
    x = np.full(n, 0.0 if rounding == "stochastic" else (1 - 1e-9) / top)
    x[0] = 1
    compressor = Uniform(bits, bucket=0, rounding=rounding)
    errors = [
        ((decompress(compressor.compress(x, Draw(seed=seed))) - x) ** 2).sum() for seed in range(20)
    ]
    traits = compressor.traits(n)
    share = np.mean(errors) / (x**2).sum()
    if rounding == "stochastic":
        assert share == pytest.approx(traits.omega)
    elif bits == 1:
        assert traits.alpha is None
    else:
        assert share == pytest.approx(1 - traits.alpha, rel=1e-6)


def test_gaussian_error_of_four_bits():
    """A step of 2 M / 15 and a random rounding: a sixth of its square, on average."""
    x = np.random.default_rng(0).standard_normal(1 << 17, dtype=np.float32)
    y = decompress(Uniform().compress(x, Draw(seed=1)))
    largest = np.abs(x.reshape(-1, 1024)).max(axis=1)
    want = ((2 * largest / 15) ** 2 / 6).mean()
    assert ((y - x) ** 2).mean() == pytest.approx(want, rel=0.02)
    assert ((y - x) ** 2).sum() / (x**2).sum() == pytest.approx(0.0356, rel=0.03)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_one_pass_and_two_passes_agree(kernels):
    """Buckets that divide a block are ranged and rounded in one pass, others in two."""
    x = np.random.default_rng(0).standard_normal(5000, dtype=np.float32)
    with forced_kernels(kernels):
        one = Uniform(4, bucket=1024).compress(x[:1000], Draw(seed=1)).payload[8:]
        two = Uniform(4, bucket=1001).compress(x[:1000], Draw(seed=1)).payload[8:]
    assert one == two


def test_tiny_and_huge_ranges():
    top = np.finfo(np.float32).max
    y = decompress(Uniform(8).compress(np.array([1e-35, -1e-35, 0], dtype=np.float32)))
    assert y[:2] == pytest.approx([1e-35, -1e-35], rel=1e-6, abs=0)
    with pytest.raises(ValueError, match="bucket 0 overflows float32"):
        # max / 31 is rounded up.
        make_compressor("uniform:5").compress(np.array([top], dtype=np.float32))
    packet = Uniform(8).compress(np.array([1e300]))
    out = np.zeros(1, dtype=np.float32)
    with pytest.raises(PacketError, match="overflow"):
        add_to(packet, out)


@pytest.mark.parametrize(
    "spec", ["uniform:0", "uniform:9", "uniform:4,bucket=-1", "uniform:4,rounding=up"]
)
def test_parameters_out_of_range(spec):
    with pytest.raises(ValueError, match="must be"):
        make_compressor(spec)
