"""Hard threshold: what is kept, what is left out, and nothing at all."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import add_to, decompress, make_compressor
from flowerpress.compressors.sparse.threshold import Threshold


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_kept(dtype):
    x = np.random.default_rng(0).standard_normal(5000).astype(dtype)
    x[3] = 0.75
    y = decompress(Threshold(0.75).compress(x))
    assert np.array_equal(y, np.where(np.abs(x) >= 0.75, x, 0))
    assert y[3] == 0.75
    assert ((y - x) ** 2).sum() <= x.size * 0.75**2


def test_a_threshold_between_two_float32_numbers():
    """The threshold is not rounded to the vector's dtype."""
    x = np.array([0.1], dtype=np.float32)  # a little above a tenth
    assert decompress(Threshold(0.1).compress(x))[0] == x[0]
    assert not decompress(Threshold(0.10000001).compress(x))[0]


def test_nothing_is_kept():
    packet = Threshold(1e300).compress(np.ones(1000, dtype=np.float32))
    assert packet.nbytes == 24 + 16
    assert packet.compressor == "threshold:1e+300"
    out = np.ones(1000)
    add_to(packet, out)
    assert (out == 1).all()


def test_error_feedback_sends_everything_in_the_end():
    """What is left out piles up until it is large enough."""
    compressor, memory, sent = Threshold(1.0), np.zeros(3), np.zeros(3)
    x = np.array([0.3, -0.01, 2.0])
    for _ in range(500):
        memory += x
        y = decompress(compressor.compress(memory))
        memory -= y
        sent += y
        assert np.abs(memory).max() < 1
    assert sent + memory == pytest.approx(500 * x)


@pytest.mark.parametrize("spec", ["threshold:0", "threshold:-1", "threshold:nan", "threshold:inf"])
def test_parameters_out_of_range(spec):
    with pytest.raises(ValueError, match="positive number"):
        make_compressor(spec)
