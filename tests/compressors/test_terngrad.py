"""TernGrad: three values, their chances, and its exact variance."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import Draw, PacketError, add_to, decompress
from flowerpress.compressors.quantized.terngrad import TernGrad


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_chances(dtype):
    x = np.tile(np.array([4, 1, -1, 0], dtype=dtype), 20_000)
    y = decompress(TernGrad().compress(x, Draw(seed=1))).reshape(-1, 4)
    assert (y[:, 0] == 4).all()
    assert not y[:, 3].any()
    for column, sign in ((1, 4), (2, -4)):
        assert set(y[:, column]) == {0, sign}
        room = 5 * np.sqrt(0.25 * 0.75 / 20_000)
        assert abs((y[:, column] == sign).mean() - 0.25) < room


def test_second_moment_is_that_of_the_paper():
    """E |C(x)|^2 = |x|_inf |x|_1; the worst vector reaches omega."""
    d = 64
    worst = np.full(d, 1 / (1 + np.sqrt(d)))
    worst[0] = 1
    for x in (np.random.default_rng(0).standard_normal(d), worst):
        moments = np.array(
            [(decompress(TernGrad().compress(x, Draw(seed=s))) ** 2).sum() for s in range(1500)]
        )
        want = np.abs(x).max() * np.abs(x).sum()
        assert abs(moments.mean() - want) < 4 * moments.std() / np.sqrt(moments.size)
    assert want / (worst**2).sum() - 1 == pytest.approx(TernGrad().traits(d).omega)


def test_overflow():
    top = np.finfo(np.float32).max
    x = np.array([top, -top], dtype=np.float32)
    assert np.array_equal(decompress(TernGrad().compress(x)), x)
    with pytest.raises(PacketError, match="overflow"):
        add_to(TernGrad().compress(np.array([1e300])), np.zeros(1, dtype=np.float32))
