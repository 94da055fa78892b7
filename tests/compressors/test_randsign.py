"""Random signs: their mean, their variance, and what may lie outside of the range."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import Draw, decompress, make_compressor
from flowerpress.compressors.quantized.randsign import RandSign
from flowerpress.compressors.testing import conformance as testing
from flowerpress.compressors.testing.conformance import forced_kernels
from flowerpress.compressors.testing.hostile import check_hostile

DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_and_variance(dtype):
    """E = x and Var = 1 - x^2, for each coordinate."""
    values = np.array([0.5, -0.25, 0.0, 1.0, -1.0])
    x = np.tile(values.astype(dtype), 40_000)
    y = decompress(RandSign().compress(x, Draw(seed=1))).reshape(-1, 5)
    assert set(np.unique(y)) == {-1.0, 1.0}
    deviation = np.sqrt(1 - values**2)
    assert (np.abs(y.mean(axis=0) - values) <= 5 * deviation / 200 + 1e-9).all()
    assert y.var(axis=0) == pytest.approx(1 - values**2, abs=0.02)


def test_two_stages_keep_the_mean():
    """The mean of workers' signs is a ratio again, and may be sent as signs."""
    x = np.tile([0.5, -0.25, 0.75], 20_000)
    draws = [Draw(seed=2, rank=rank, cohort=4) for rank in range(4)]
    first = np.mean([decompress(RandSign().compress(x, draw)) for draw in draws], axis=0)
    second = decompress(RandSign().compress(first, Draw(seed=3)))
    assert second.reshape(-1, 3).mean(axis=0) == pytest.approx([0.5, -0.25, 0.75], abs=0.04)


def test_range():
    x = np.array([1.0, -1.0]) * (1 + 2e-16)
    assert decompress(RandSign().compress(x)).tolist() == [1.0, -1.0]
    packet = RandSign(4.0).compress(np.array([4.0, -4.0], dtype=np.float32))
    assert packet.compressor == "randsign:4.0"
    assert decompress(packet).tolist() == [4.0, -4.0]
    with pytest.raises(ValueError, match=r"x\[1\] is 1.5, outside of the range 1.0"):
        RandSign().compress(np.array([0.0, 1.5]))
    with pytest.raises(ValueError, match="range 0 overflows float32"):
        RandSign(1e300).compress(np.zeros(1, dtype=np.float32))
    for wrong in ("randsign:0", "randsign:nan", "randsign:inf"):
        with pytest.raises(ValueError, match="positive number"):
            make_compressor(wrong)


def test_promises():
    """Those of the kit that do not take it past its range."""
    testing.check_spec(RandSign())
    testing.check_refusals(RandSign())
    testing.check_bits(RandSign(10.0))
    check_hostile(RandSign(10.0))
    traits = RandSign().traits(100)
    assert traits.unbiased
    assert (traits.omega, traits.alpha, traits.bits) == (None, None, 32 + 8 * 13)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_agree(dtype):
    x = np.random.default_rng(0).uniform(-1, 1, 70_000).astype(dtype)
    packets = []
    for name in ("numpy", "numba"):
        with forced_kernels(name):
            packets.append(RandSign().compress(x, Draw(seed=9)))
    assert packets[0] == packets[1]
    assert packets[0] != RandSign().compress(x, Draw(seed=9, rank=1, cohort=2))
