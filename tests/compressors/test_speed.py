"""Speed, on whatever machine the tests run on: only what holds with a wide margin.

The bars themselves are checked by ``flowerpress bench compressors --gate``.
"""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import make_compressor
from flowerpress.simulations import bench, bench_report


@pytest.mark.slow
def test_compressors_keep_up_with_a_copy_and_beat_plain_forms():
    """A third of each bar: a shared machine may be that slow, a lost vector loop is slower."""
    bench_report.single_thread()
    ((_, x),) = bench.vectors(4_000_000, ["gaussian"])
    specs = [spec for spec in bench_report.BARS if spec in bench.specs()]
    assert len(specs) >= 8
    for row in bench.measure(specs, x.size, "gaussian", x, repetitions=7):
        encode, decode = bench_report.BARS[row.spec]
        assert row.encode_ratio > encode / 3, row
        assert row.decode_ratio > (decode or 0) / 3, row
        assert row.numpy is None or row.numpy[0] > 1, row


def test_rows_say_what_was_measured():
    ((_, x),) = bench.vectors(20_000, ["gaussian"])
    rows = bench.measure(["qsgd:7", "topk:0.01"], x.size, "gaussian", x, repetitions=2)
    quantized, sparse = rows
    assert quantized.bits == pytest.approx(4 + 32 / 512, rel=0.02)
    assert quantized.entropy == pytest.approx(1.05, abs=0.05)
    assert quantized.error == pytest.approx(1.57, rel=0.1)
    assert sparse.entropy == pytest.approx(0.32 + 0.0807, abs=0.002)
    assert sparse.entropy < sparse.bits
    for row in rows:
        assert row.encode_gbs == pytest.approx(x.nbytes / row.encode_ms / 1e6)
        assert min(row.encode_ratio, row.decode_ratio, *row.numpy, *row.torch) > 0
    assert len(bench_report.table(rows).columns) == 8


@pytest.mark.parametrize("name", bench.DATA)
def test_vectors(name):
    ((got, x),) = bench.vectors(150_000, [name])
    assert (got, x.shape, x.dtype) == (name, (150_000,), np.float32)
    assert np.isfinite(x).all()
    assert x.std() > 0


def test_every_compressor_that_needs_no_shapes_is_run():
    specs = bench.specs()
    for name in ("identity", "sign", "qsgd:7", "topk:0.01", "randk:0.01", "natural"):
        assert name in specs
    assert all(make_compressor(spec) for spec in specs)


def test_bars_are_judged():
    row = bench.Row(
        "sign", 1000, "gaussian", 1.0, 1.0, 1.0, 1.0, 0.91, 0.5, (2.0, 0.1), None, 1.0, 1.0, 0.4
    )
    assert bench_report.misses(row) == [
        "decode: 0.50 of a copy, bar 0.9",
        "numpy: 2.0 times as fast, bar 3.0",
    ]
    assert bench_report.slower_than_numpy(row) == []
    with pytest.raises(ValueError, match="unknown data 'noise'; choose from gaussian"):
        next(bench.vectors(10, ["noise"]))
