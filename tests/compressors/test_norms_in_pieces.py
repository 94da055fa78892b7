"""Norms that are found half a million numbers at a time are those of the whole vector."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from flowerpress.compressors import Draw, Opened, PacketError, add_to, make_compressor, norm, norms
from flowerpress.compressors.composed.chain import Expanded
from flowerpress.compressors.kernels.choice import waiting_for_the_compiler
from flowerpress.compressors.quantized.blocks import Blocks
from flowerpress.compressors.testing.conformance import forced_kernels
from flowerpress.compressors.wire.reading import Divisible

PIECE = 1 << 16
DIM = 2 * PIECE + 1500  # three pieces, and no whole number of 1024s
SPECS = (
    "qsgd:7",
    "qsgd:1,bucket=0",
    "qsgd:2,bucket=8",
    "qsgd:1000,bucket=3000",
    "uniform:4",
    "uniform:3,bucket=100",
    "uniform:1,bucket=0",
    "cq",
    "cq:3,c=2.5",
    "cq:16,range=l2,bucket=1024",
    "cq:range=shared",
    "natural",
    "fp16",
    "bf16",
    "terngrad",
    "loggrid",
    "loggrid:7",
    "randsign",
    "eden:3",
    "qsgd:7+rans",
    "scaled(qsgd:7)",
)
MATRICES = ((300, 200), (7,), (250, 500), (40, 30), (20, 10))


def values(decoded):
    """What was decoded, without what leaves the norm as it is."""
    return decoded.inner if isinstance(decoded, Expanded) else decoded


@pytest.fixture(params=["numpy", "numba"])
def kernels(request):
    with forced_kernels(request.param):
        yield request.param


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spec", SPECS)
def test_they_are_the_same_to_the_last_bit(spec, dtype, kernels, monkeypatch):
    """So no answer is judged otherwise than when a vector was made."""
    monkeypatch.setattr(norms, "_PIECE", PIECE)
    x = np.random.default_rng(0).standard_normal(DIM).astype(dtype)
    x[70_000:90_000] = 0
    opened = Opened(make_compressor(spec).compress(x / 10, Draw(seed=3)))
    factor = getattr(opened.decoded, "factor", 1.0)
    decoded = values(getattr(opened.decoded, "inner", opened.decoded))
    assert isinstance(decoded, Divisible)
    whole = np.zeros(DIM, dtype)
    decoded.add_to(whole, 1.0)
    expected = factor * np.sqrt(norms.square_sum(whole))
    assert norm(opened) == expected
    for start, stop in ((0, 1024), (PIECE, 2 * PIECE), (2 * PIECE + 1024, DIM)):
        part = np.zeros(stop - start, dtype)
        decoded.part(start, stop).add_to(part, 1.0)
        np.testing.assert_array_equal(part, whole[start:stop])


@pytest.mark.parametrize("spec", ["qsgd:7", "uniform:4", "natural", "loggrid", "eden:2"])
@pytest.mark.parametrize("size", [1e-300, 1e-170, 1e170])
def test_squares_may_leave_the_range_of_float64(spec, size, monkeypatch):
    monkeypatch.setattr(norms, "_PIECE", PIECE)
    x = size * np.random.default_rng(1).standard_normal(DIM)
    opened = Opened(make_compressor(spec).compress(x))
    whole = np.zeros(DIM)
    values(opened.decoded).add_to(whole, 1.0)
    assert norm(opened) == pytest.approx(size * np.linalg.norm(whole / size), rel=1e-12)


@pytest.mark.parametrize("many", [0, 64])
@pytest.mark.parametrize("rank", [1, 3, 24])
def test_matrices_are_measured_a_few_at_a_time(rank, many, monkeypatch):
    monkeypatch.setattr(norms, "_PIECE", 40_000)
    monkeypatch.setattr(norms, "_MANY", many)
    count = sum(int(np.prod(shape)) for shape in MATRICES)
    x = np.random.default_rng(2).standard_normal(count).astype(np.float32)
    compressor = make_compressor(f"powersgd:{rank}").bind_shapes(MATRICES)
    opened = Opened(compressor.compress(x))
    groups = list(opened.decoded.groups(40_000))
    assert [group.rows.size for group in groups] == [1, 1, 1, 2]
    assert sum(group.dim for group in groups) == count
    whole = np.zeros(count, np.float32)
    add_to(opened, whole)
    assert norm(opened) == pytest.approx(np.sqrt(norms.square_sum(whole)), rel=1e-6)


@pytest.mark.parametrize("spec", [*SPECS, "sign", "topk:0.01", "drive", "powersgd:rows=1000"])
def test_no_vector_is_made(spec, monkeypatch):
    monkeypatch.setattr(norms, "_PIECE", PIECE)
    dim = 700_000
    x = np.random.default_rng(0).standard_normal(dim, dtype=np.float32)
    opened = Opened(make_compressor(spec).compress(x / 10))
    with waiting_for_the_compiler():  # numpy's kernels, in use until then, take temporaries
        norm(opened)  # a kernel's first call compiles it
        tracemalloc.start()
        norm(opened)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < dim, f"{peak} bytes for a vector of {4 * dim}"


class Ones:
    """What a compressor of another package may decode to: no part of it can be had."""

    def add_to(self, out, weight):
        out += weight


class Alternating(Ones):
    """One of which parts can be had."""

    def part(self, start, stop):
        assert start % 1024 == 0
        assert stop - start <= PIECE
        return self


@pytest.mark.parametrize("kind", [Ones, Alternating])
def test_another_packages_compressor_is_measured(kind, monkeypatch):
    monkeypatch.setattr(norms, "_PIECE", PIECE)
    assert norms._norm(kind(), 90_000, np.dtype(np.float32)) == 300.0


def test_what_overflows_has_no_norm():
    """A frame may be right, and its numbers too large: either way says so."""
    x = np.full(4096, 1e30, np.float32)
    levels = Opened(make_compressor("qsgd:127,bucket=0").compress(x)).decoded
    with np.errstate(over="ignore"):
        largest = np.nextafter(np.float32(np.inf), np.float32(0), dtype=np.float32)
    huge = replace(levels, norms=np.array([largest]))
    for way in (lambda: list(huge.squares()), lambda: huge.add_to(np.zeros(4096, np.float32), 1.0)):
        with np.errstate(over="ignore"), pytest.raises(PacketError, match="a norm times 1"):
            way()


@pytest.mark.parametrize(
    ("blocks", "start", "stop"),
    [
        (Blocks(10_000), 1024, 5000),
        (Blocks(10_000, 300), 2048, 10_000),
        (Blocks(10_000, 512), 1024, 4096),
    ],
)
def test_parts_of_blocks_have_their_edges(blocks, start, stop):
    (whole,) = blocks.segments()
    part, which = blocks.part(start, stop)
    (segment,) = part.segments()
    np.testing.assert_array_equal(
        segment.offsets + start, np.clip(whole.offsets[which.start : which.stop + 1], start, stop)
    )
