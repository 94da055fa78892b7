"""fp16 and bf16: rounding to the nearest, for vectors of any magnitude."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import PacketError, add_to, decompress, make_compressor
from flowerpress.compressors.testing.conformance import forced_kernels

CAST = {"fp16": "float16", "bf16": "bfloat16"}
SIGNIFICANT = {"fp16": 11, "bf16": 8}
NAMES = sorted(CAST)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_codes_are_those_of_a_cast(name, dtype, kernels):
    """Scaled so that the power of two is one, the numbers are torch's own casts, ties included."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = np.ldexp(rng.standard_normal(5000), rng.integers(-40, 12, 5000)).astype(dtype)
    # Ties of both formats, and what is below the smallest numbers of fp16.
    x[:8] = [2**14, 2049, 2051, 257, 259, 2.0**-25, 3 * 2.0**-25, -(2.0**-26)]
    cast = torch.from_numpy(x).to(getattr(torch, CAST[name])).to(torch.float64).numpy()
    with forced_kernels(kernels):
        assert np.array_equal(decompress(make_compressor(name).compress(x)), cast.astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_relative_error_at_any_magnitude(name, dtype):
    limits = np.finfo(dtype)
    x = 1 + np.random.default_rng(1).random(1000)
    bound = 2.0 ** -SIGNIFICANT[name]
    for exponent in (limits.minexp, limits.minexp // 2, -14, 0, 16, limits.maxexp - 2):
        scaled = np.ldexp(x, exponent).astype(dtype)
        y = decompress(make_compressor(name).compress(scaled))
        assert (np.abs(y - scaled) <= bound * scaled).all(), exponent


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_numbers_are_exact(name):
    """Multiples of the smallest number, as many as have so few bits, are sent as they are."""
    for dtype in (np.float32, np.float64):
        x = np.arange(1, 1 << SIGNIFICANT[name]).astype(dtype) * np.finfo(dtype).smallest_subnormal
        assert np.array_equal(decompress(make_compressor(name).compress(x)), x)


@pytest.mark.parametrize("name", NAMES)
def test_largest_numbers(name):
    top = np.finfo(np.float32).max
    with pytest.raises(ValueError, match="value 0 overflows float32"):
        make_compressor(name).compress(np.array([top, 1], dtype=np.float32))
    x = np.array([-1.5 * 2.0**127, 2.0**104], dtype=np.float32)
    assert np.array_equal(decompress(make_compressor(name).compress(x)), x)


@pytest.mark.parametrize("name", NAMES)
def test_what_overflows_the_accumulator_is_refused(name):
    packet = make_compressor(name).compress(np.array([1e300, 1.0]))
    out = np.zeros(2, dtype=np.float32)
    with pytest.raises(PacketError, match="overflows float32"):
        add_to(packet, out)
    add_to(packet, out, weight=1e-280)
    assert out[0] == np.float32(decompress(packet)[0] * 1e-280)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("name", NAMES)
def test_every_code_decodes(name, kernels):
    """All finite codes, written by hand, against torch's reading of the same bits."""
    torch = pytest.importorskip("torch")
    codes = torch.from_numpy(np.arange(1 << 16, dtype=np.uint16).view(np.int16))
    values = codes.view(getattr(torch, CAST[name])).to(torch.float32).numpy()
    finite = np.isfinite(values)
    small = finite & (np.abs(values) < 2.0**15)
    x = values[small]
    with forced_kernels(kernels):
        packet = make_compressor(name).compress(np.append(x, np.float32(2**14)))
        assert np.array_equal(decompress(packet)[:-1], x)
