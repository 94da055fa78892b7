"""Packets do not depend on whether the process takes subnormal numbers for zero."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from flowerpress.compressors import Draw, Packet, add_to, decompress, make_compressor, norm
from flowerpress.compressors.kernels import arithmetic, device
from flowerpress.compressors.kernels.choice import forced_kernels
from flowerpress.compressors.linear.countsketch import CountSketch, merge
from flowerpress.compressors.testing import conformance as testing
from tests.compressors.table import COMPRESSORS
from tests.golden.make import CASES
from tests.golden.test_golden import load

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this processor does not flush subnormal numbers"
)
DTYPES = (np.float32, np.float64)


@pytest.fixture
def flushing():
    """Flush subnormal numbers in this thread."""
    torch.set_flush_denormal(True)
    assert arithmetic.flushed()
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(params=["numpy", "numba", "torch"])
def backend(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setenv(device.VARIABLE, "1")
        yield torch.tensor
        return
    with forced_kernels(request.param):
        yield np.asarray


def vectors(dtype):
    """Vectors whose values, scales, norms, products or steps are subnormal; from their bits."""
    unsigned = np.uint32 if dtype == np.float32 else np.uint64
    mantissa = np.finfo(dtype).nmant
    rng = np.random.default_rng(5)
    whole = rng.integers(0, 1 << mantissa, 1100, dtype=unsigned)
    whole[::3] |= unsigned(1 << 63 >> (64 - 8 * np.dtype(dtype).itemsize))  # the sign
    yield "subnormal", whole.view(dtype)
    yield "a few units", (whole & ~unsigned((1 << mantissa) - 9)).view(dtype)
    yield "smallest normal", np.full(1100, np.finfo(dtype).tiny)
    mixed = rng.standard_normal(1100).astype(dtype)
    mixed[100:900] = whole[:800].view(dtype)
    yield "beside normal", mixed
    yield "at the edge", np.ldexp(mixed, np.finfo(dtype).minexp)


def written(compressor, values, backend):
    """Return the bytes of a packet and all that is read from it; or the refusal."""
    try:
        packet = compressor.compress(backend(values), Draw(seed=3, rank=1, cohort=3))
    except ValueError as error:
        return str(error)
    out = np.full(values.size, 0.25, dtype=np.float32)
    add_to(packet, out, 0.5)
    return packet.data, decompress(packet).tobytes(), out.tobytes(), norm(packet), packet.compressor


@pytest.mark.parametrize("spec", COMPRESSORS)
def test_the_same_bytes(spec, backend, flushing):
    compressor = make_compressor(spec).bind((300, 800))
    if backend is torch.tensor and not compressor.encodes_tensors:
        return  # copied to the host first
    for dtype in DTYPES:
        torch.set_flush_denormal(False)
        inputs = list(vectors(dtype))
        wanted = [written(compressor, values, backend) for _, values in inputs]
        torch.set_flush_denormal(True)
        for (name, values), want in zip(inputs, wanted, strict=True):
            assert written(compressor, values, backend) == want, (name, dtype)
        assert arithmetic.flushed()  # the caller's rules are its own again


@pytest.mark.parametrize("name", sorted(CASES))
def test_golden_packets(name, backend, flushing):
    case = load(name)
    x = np.frombuffer(case["input"], dtype=case["dtype"])
    compressor = make_compressor(case["spec"]).bind(tuple(case["sizes"]))
    assert decompress(case["packet"]).tobytes() == case["decoded"]
    assert compressor.compress(backend(x.copy()), Draw(**case["draw"])).data == case["packet"]


@pytest.mark.parametrize(("spec", "error"), [("fp16", 2**-11), ("bf16", 2**-8), ("natural", 1)])
def test_ordinary_numbers_come_back(spec, error, flushing):
    """Bounds of exponents are whole numbers: none is derived from the smallest subnormal."""
    for scale in (1.0, 1e-3, 1e-30):
        x = np.linspace(0.5, 1.0, 10, dtype=np.float32) * np.float32(scale)
        assert decompress(make_compressor(spec).compress(x)) == pytest.approx(x, rel=error)


def test_sketches(flushing):
    torch.set_flush_denormal(False)
    (_, x), *_ = vectors(np.float32)
    sketch = CountSketch(columns=100)
    packets = [sketch.compress(x * k) for k in (1, 2)]
    table = sketch.empty(x.size, x.dtype)
    want = merge(packets).data
    torch.set_flush_denormal(True)
    assert merge(packets).data == want
    for packet in packets:
        table.add(packet)
    assert table.cells.tobytes() == Packet(want).payload[16:].tobytes()
    assert table.estimates().view(np.uint32).any()


@pytest.mark.slow
@pytest.mark.parametrize("spec", COMPRESSORS)
def test_the_conformance_kit(spec, flushing):
    compressor = make_compressor(spec)
    testing.check_compressor(compressor, draws=100)


def test_rules_are_those_of_a_thread(flushing):
    """Another thread than the one that compresses keeps its own rules, in both directions."""
    seen = []
    inside, done = threading.Event(), threading.Event()

    def other():
        with arithmetic.kept_subnormals():
            inside.set()
            done.wait(10)
            seen.append(arithmetic.flushed())

    torch.set_flush_denormal(False)
    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    torch.set_flush_denormal(True)
    assert arithmetic.flushed()
    done.set()
    thread.join()
    assert seen == [False]


def test_a_failure_restores_the_rules(flushing):
    with pytest.raises(ValueError, match=r"x\[0\] is nan"):
        make_compressor("sign").compress(np.array([np.nan]))
    assert arithmetic.flushed()


def test_a_platform_without_the_switch(flushing, monkeypatch):
    """Packets are valid there too, if not always equal in the last bit."""
    monkeypatch.setattr(arithmetic, "_environment", lambda: None)
    for spec in ("fp16", "bf16", "natural", "sign", "qsgd", "uniform", "drive"):
        x = np.linspace(-1, 1, 50, dtype=np.float32)
        back = decompress(make_compressor(spec).compress(x))
        assert np.isfinite(back).all()
        assert back.any()
