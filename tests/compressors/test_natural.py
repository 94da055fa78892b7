"""Natural compression: powers of two, their chances, and the ends of the range."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import Draw, PacketError, add_to, decompress
from flowerpress.compressors.quantized.natural import Natural

DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_number_goes_to_a_neighbouring_power(dtype):
    rng = np.random.default_rng(0)
    x = np.ldexp(rng.standard_normal(5000), rng.integers(-50, 50, 5000)).astype(dtype)
    y = decompress(Natural().compress(x, Draw(seed=1)))
    mantissas, exponents = np.frexp(y)
    assert set(np.abs(mantissas)) == {0.5}
    assert np.array_equal(np.sign(y), np.sign(x))
    assert ((exponents - np.frexp(x)[1] == 0) | (exponents - np.frexp(x)[1] == 1)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_powers_of_two_are_exact(dtype):
    """All 127 exponents below the largest, at the least and the greatest end of the dtype."""
    limits = np.finfo(dtype)
    for top in (limits.minexp - limits.nmant + 126, -3, 0, limits.maxexp - 1):
        x = np.append(np.ldexp(dtype(1), np.arange(top - 126, top + 1)), [0, 0]).astype(dtype)
        x[::3] *= -1
        for seed in range(5):
            assert np.array_equal(decompress(Natural().compress(x, Draw(seed=seed))), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_chances_are_those_of_the_paper(dtype):
    """1.25 becomes 2 with chance 1/4."""
    x = np.full(40_000, 1.25, dtype=dtype)
    y = decompress(Natural().compress(x, Draw(seed=3)))
    assert set(y) == {1.0, 2.0}
    assert abs((y == 2).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 40_000)


@pytest.mark.parametrize("dtype", DTYPES)
def test_below_the_lowest_exponent_the_mean_is_right(dtype):
    """A quarter of the lowest power is that power with chance 1/4, else zero."""
    x = np.full(40_000, 2.0**-128, dtype=dtype)
    x[0] = 1
    y = decompress(Natural().compress(x, Draw(seed=3)))[1:]
    assert set(y) == {0.0, 2.0**-126}
    assert abs((y > 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 40_000)


def test_variance_is_reached_at_four_thirds():
    x = np.full(1000, 4 / 3)
    errors = np.array(
        [
            ((decompress(Natural().compress(x, Draw(seed=s))) - x) ** 2).sum() / (x**2).sum()
            for s in range(200)
        ]
    )
    assert abs(errors.mean() - 1 / 8) < 4 * errors.std() / np.sqrt(200)
    assert Natural().traits(1000).omega == 1 / 8


def test_gaussian_error():
    x = np.random.default_rng(0).standard_normal(1 << 17, dtype=np.float32)
    y = decompress(Natural().compress(x, Draw(seed=1)))
    assert ((y - x) ** 2).sum() / (x**2).sum() == pytest.approx(0.0823, rel=0.02)


def test_what_may_round_beyond_the_dtype_is_refused():
    for dtype in DTYPES:
        greatest = np.finfo(dtype).maxexp - 1
        exact = np.array([np.ldexp(dtype(1), greatest)])
        assert np.array_equal(decompress(Natural().compress(exact)), exact)
        with pytest.raises(ValueError, match=f"overflows {exact.dtype}"):
            Natural().compress(np.nextafter(exact, np.inf))
    packet = Natural().compress(np.array([1e300]))
    with pytest.raises(PacketError, match="overflows float32"):
        add_to(packet, np.zeros(1, dtype=np.float32))


def test_weights_and_dtypes():
    x = np.array([1.0, -0.5, 0.0, 2.0**-100])
    for dtype in DTYPES:
        for out_dtype in DTYPES:
            out = np.zeros(4, dtype=out_dtype)
            add_to(Natural().compress(x.astype(dtype)), out, -3.0)
            assert np.array_equal(out, -3 * x)
