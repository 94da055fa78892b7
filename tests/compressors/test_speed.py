"""Speed, on whatever machine the tests run on: only what holds with a wide margin.

The bars themselves are checked by ``flowerpress bench compressors --gate``.
"""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import make_compressor
from flowerpress.simulations import bench, bench_forms, bench_report

pytest.importorskip("torch")  # whose plain forms are timed


@pytest.mark.slow
def test_compressors_keep_up_with_a_copy_and_beat_plain_forms():
    """A third of each bar: a shared machine may be that slow, a lost vector loop is slower."""
    bench_report.single_thread()
    ((_, x),) = bench.vectors(4_000_000, ["gaussian"])
    for row in bench.measure(bench_report.BARS, x.size, "gaussian", x, repetitions=7):
        encode, decode, *_ = bench_report.BARS[row.spec]
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
    for name in ("identity", "sign", "qsgd:7", "topk:0.01", "randk:0.01", *bench_report.BARS):
        assert name in specs
    assert all(make_compressor(spec) for spec in specs)


def row_of(spec, ratio, faster, milliseconds=0.1):
    times, ratios = (milliseconds, milliseconds, 1.0, 1.0), (ratio, ratio)
    return bench.Row(
        spec, 10**7, "gaussian", *times, *ratios, (faster, faster), (faster, faster), 1.0, 1.0, 0.4
    )


@pytest.mark.parametrize("spec", bench_report.BARS)
def test_every_bar_can_be_missed(spec):
    bar = bench_report.BARS[spec]
    assert bench_report.misses(row_of(spec, 9.0, 999.0)) == []
    missed = bench_report.misses(row_of(spec, 0.01, 0.5, 50.0))
    kinds = {sentence.split(":")[0] for sentence in missed}
    wanted = {"encode", "decode"}
    for library in ("numpy", "torch"):
        pair = zip(("encode", "decode"), getattr(bar, library), strict=True)
        wanted |= {f"{library} {what}" for what, least in pair if least}
    assert kinds == wanted
    assert len(missed) == len(wanted)


def test_a_bar_against_a_plain_form_has_one():
    x = np.ones(10_000, dtype=np.float32)
    for spec, bar in bench_report.BARS.items():
        compared = {name for name in ("numpy", "torch") if any(getattr(bar, name))}
        assert compared <= set(bench_forms.naive(spec, x)), spec


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("spec", ["cq:2", "cq:16", "permk", "countsketch:ratio=0.05", "hadamard"])
def test_plain_forms_of_shared_randomness_do_what_they_are_compared_with(spec, library):
    """Their errors are those of the compressors."""
    ((_, x),) = bench.vectors(20_000, ["gaussian"])
    encode, add = bench_forms.naive(spec, x)[library]
    out = np.zeros_like(x)
    add(encode(), out)
    (row,) = bench.measure([spec], x.size, "gaussian", x, repetitions=1)
    error = float(np.square(out - x, dtype=np.float64).sum() / np.square(x).sum())
    assert error == pytest.approx(row.error, rel=0.35, abs=1e-9)


def test_bars_are_judged():
    row = bench.Row(
        "sign", 1000, "gaussian", 1.0, 1.0, 1.0, 1.0, 0.91, 0.5, (2.0, 5.1), None, 1.0, 1.0, 0.4
    )
    assert bench_report.misses(row) == [
        "decode: 0.50 of a copy, bar 0.9",
        "numpy encode: 2.0 times as fast, bar 3.0",
    ]
    row = bench.Row(
        "sign", 1000, "gaussian", 1.0, 1.0, 1.0, 1.0, 0.91, 0.5, (0.5, 0.1), None, 1.0, 1.0, 0.4
    )
    assert bench_report.slower_than_numpy(row) == [
        "short: 0.30 times as fast as numpy at d = 1000, bar 1"
    ]
    with pytest.raises(ValueError, match="unknown data 'noise': did you mean 'mnist'"):
        next(bench.vectors(10, ["noise"]))
