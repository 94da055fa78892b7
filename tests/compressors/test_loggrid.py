"""The logarithmic grid: nearest points, and the contraction that it states."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import decompress, make_compressor
from flowerpress.compressors.quantized.loggrid import LogGrid
from flowerpress.compressors.testing.conformance import forced_kernels


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2, 3, 7, 63])
def test_nearest_point(k, dtype, kernels):
    x = np.random.default_rng(k).standard_normal(3000).astype(dtype)
    with forced_kernels(kernels):
        y = decompress(LogGrid(k).compress(x))
    powers = np.abs(x).max() * 2.0 ** -np.arange(k)
    grid = np.concatenate([-powers, [0], powers])
    best = np.abs(x.astype(float)[:, None] - grid).min(axis=1)
    assert np.abs(y - x).astype(float) == pytest.approx(best, rel=1e-4, abs=1e-9)
    assert set(np.abs(y)) <= set(np.append(powers, 0).astype(dtype))


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("d", [2, 10, 1000])
def test_contraction_is_reached(k, d):
    """By coordinates just below the lowest power's reach, or midway between the two highest."""
    losses = []
    for rest in (2.0**-k * (1 - 1e-9), 0.75 * (1 - 1e-9)):
        x = np.full(d, rest)
        x[0] = 1
        y = decompress(LogGrid(k).compress(x))
        losses.append(((y - x) ** 2).sum() / (x**2).sum())
    assert max(losses) == pytest.approx(1 - LogGrid(k).traits(d).alpha, rel=1e-6)


def test_no_vector_is_worse():
    rng = np.random.default_rng(0)
    for k in (1, 2, 3):
        compressor = LogGrid(k)
        for _ in range(300):
            x = 2.0 ** rng.uniform(-k - 1, 0, 20)
            x[0] = 1
            y = decompress(compressor.compress(x))
            assert ((y - x) ** 2).sum() <= (1 - compressor.traits(20).alpha) * (x**2).sum()


def test_midpoints_go_up_and_extremes():
    y = decompress(LogGrid(2).compress(np.array([1.0, 0.75, -0.75, 0.25, -0.25, 0.2])))
    assert y.tolist() == [1.0, 1.0, -1.0, 0.5, -0.5, 0.0]
    top = np.finfo(np.float32).max
    x = np.array([top, -top, 0], dtype=np.float32)
    assert np.array_equal(decompress(LogGrid().compress(x)), x)
    with pytest.raises(ValueError, match="must be"):
        make_compressor("loggrid:64")
