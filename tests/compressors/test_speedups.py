"""What was done for speed changes no byte: folded CRC, reused buffers, one-pass kernels."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from flowerpress.compressors import Draw, decompress, make_compressor
from flowerpress.compressors.kernels import philox, sums
from flowerpress.compressors.kernels.numba import common as numba_kernels
from flowerpress.compressors.kernels.numpy import common as numpy_kernels


@pytest.mark.parametrize("size", [0, 1, 4096, 4223, 4224, 4225, 12_416, 33_333, 300_001])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("carryless", [False, True])
def test_crc_is_that_of_zlib(size, offset, carryless, monkeypatch):
    if carryless and not numba_kernels.has_carryless():
        pytest.skip("the processor has no carry-less product")
    monkeypatch.setattr(numba_kernels, "_CARRYLESS", carryless)
    monkeypatch.setattr(numba_kernels, "_SHORT", 4096)
    data = np.random.default_rng(size).integers(0, 256, size + offset, dtype=np.uint8)[offset:]
    for start in (0, 1, 0xFFFFFFFF, 0x12345678):
        assert numba_kernels.crc32(data, start) == zlib.crc32(data, start)


def test_packets_do_not_share_memory():
    rng = np.random.default_rng(0)
    compressor = make_compressor("qsgd:127")
    vectors = [rng.standard_normal(200_000, dtype=np.float32) for _ in range(4)]
    packets = [compressor.compress(x) for x in vectors]
    parts = [compressor.encode(x, Draw()) for x in vectors]
    for x, packet, part in zip(vectors, packets, parts, strict=True):
        assert packet == compressor.compress(x)
        assert packet.payload == b"".join(bytes(each) for each in part)


@pytest.mark.parametrize("levels", [1, 2, 7, 127, 128, 32_767])
@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-19, 1.0, 1e30, 3e38])
def test_rounding_at_every_magnitude(levels, size):
    """One large coordinate is exact; the others have the right mean, whatever the norm."""
    x = np.zeros(512, dtype=np.float32)
    x[3], x[4:] = -size, size / 100
    compressor = make_compressor(f"qsgd:{levels}")
    if not np.isfinite(np.linalg.norm(x.astype(np.float64)).astype(np.float32)):
        with pytest.raises(ValueError, match="overflows"):
            compressor.compress(x)
        return
    means = [
        decompress(compressor.compress(x, Draw(seed=seed)))[4:].mean(dtype=np.float64)
        for seed in range(30)
    ]
    norm = np.sqrt((x.astype(np.float64) ** 2).sum())
    tiny = 2.0**-149  # a step is rounded to a multiple of it
    room = 5 * norm / levels / 2 / np.sqrt(30 * 508) + 2e-6 * norm + levels * tiny
    assert abs(np.mean(means) - np.float64(x[4])) < room


@pytest.mark.parametrize("levels", [1, 3, 127, 32_767])
def test_a_value_on_a_level_is_not_moved(levels):
    x = np.zeros(1024, dtype=np.float32)
    x[[3, 600]] = [2.5, -7.0]
    for seed in range(20):
        assert np.array_equal(decompress(make_compressor(f"qsgd:{levels}").compress(x)), x), seed


def test_one_pass_equals_two():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(5000, dtype=np.float32)
    x *= np.repeat(np.float32([1e-33, 1e-18, 1e-10, 1, 1e25]), 1000)
    for bucket in (4, 512, 1024):
        offsets = np.append(np.arange(0, x.size, bucket), x.size)
        norms = sums.quick_norms(x, bucket)
        exact = np.sqrt(np.add.reduceat(x.astype(np.float64) ** 2, offsets[:-1]))
        np.testing.assert_allclose(norms, exact, rtol=1e-6)
        codes = numba_kernels.levels_pack(x, norms, offsets, 7, 4, (1, 2))
        for kernels in (numpy_kernels, numba_kernels):
            got = kernels.norm_levels_pack(x, bucket, 7, 4, (1, 2))
            assert np.array_equal(got[0], norms)
            assert np.array_equal(got[1], codes)


def test_words_for_roundings_are_uniform_and_unrelated():
    words = philox.rounding_words((1, 2), 0, 2048)
    one, other = words[:, :512].reshape(-1), words[:, 512:].reshape(-1)
    for shift in (0, 24):
        pairs = ((one >> np.uint32(shift)) & 255).astype(np.int64) * 256
        pairs += (other >> np.uint32(shift)) & 255
        counts = np.bincount(pairs, minlength=1 << 16)
        expected = one.size / counts.size
        chi = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi - (counts.size - 1)) < 5 * np.sqrt(2 * counts.size)
