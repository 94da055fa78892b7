"""Tensors compressed by torch operations give the bytes of the arrays."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import Draw, make_compressor
from flowerpress.compressors.kernels import device, packing, philox, sums
from flowerpress.compressors.kernels.numpy import affine
from flowerpress.compressors.kernels.numpy import common as numpy_kernels

torch = pytest.importorskip("torch")
from flowerpress.compressors.kernels.torch import common as torch_encode  # noqa: E402
from flowerpress.compressors.kernels.torch import sums as torch_sums  # noqa: E402
from flowerpress.compressors.kernels.torch import words as torch_words  # noqa: E402

DTYPES = (np.float32, np.float64)
SPECS = (
    "sign",
    "sign:block=1",
    "sign:block=100",
    "sign:block=1024",
    "sign:block=1500",
    "sign:block=tensor",
    "sign:l2",
    "sign:l2,block=300",
    "uniform",
    "uniform:1,bucket=0",
    "uniform:2,bucket=100",
    "uniform:3,bucket=64",
    "uniform:5,bucket=3000",
    "uniform:8,bucket=1",
    "uniform:1,rounding=nearest",
    "uniform:4,rounding=nearest",
    "uniform:7,bucket=50,rounding=nearest",
    "qsgd",
    "qsgd:1,bucket=0",
    "qsgd:1,bucket=1",
    "qsgd:2,bucket=64",
    "qsgd:100,bucket=1000",
    "qsgd:1000,bucket=3000",
    "qsgd:32767,bucket=1024",
    "cq",
    "cq:3,c=1.5,rounding=independent",
    "cq:5,c=5+rans",
    "cq:16,range=max,bucket=1024",
    "cq:range=shared",
    "cq:4,range=l2",
    "natural",
    "fp16",
    "bf16",
    "topk:0.1",
    "topk:k=3",
    "topk:1.0",
    "randk:0.2",
    "randk:k=5,law=stratified",
    "topk:0.2+qsgd:7",
    "randk:0.2+natural",
    "scaled(uniform:4)",
    "qsgd:3+rans",
)


@pytest.fixture(autouse=True)
def forced(monkeypatch):
    monkeypatch.setenv(device.VARIABLE, "1")
    monkeypatch.setattr(torch_words, "PIECE", 3072)


def vectors(dtype):
    """Vectors of awkward lengths and values, by name."""
    rng = np.random.default_rng(7)
    limits = np.finfo(dtype)
    wide = rng.standard_normal(3000) * np.exp2(rng.uniform(-100, 10, 3000))
    everything = rng.integers(0, 1 << 63, 2500, dtype=np.uint64)
    any_bits = (everything.view(np.uint32)[:2500] if dtype == np.float32 else everything).view(
        dtype
    )
    any_bits = np.where(np.isfinite(any_bits), any_bits, dtype(1)) * dtype(2.0**-20)
    any_bits[::2] *= dtype(-1)
    sparse = np.zeros(4100)
    sparse[[0, 1023, 1024, 4099]] = [1, -2, 3, -1e-30]
    yield "one", np.array([-1.5])
    yield "zeros", np.zeros(1030)
    yield "negative zeros", -np.zeros(33)
    yield "halves", rng.integers(-4, 5, 1500) / 2
    yield "wide", wide
    yield "any bits", any_bits
    yield "sparse", sparse
    yield "tiny", rng.standard_normal(1111) * float(limits.tiny)
    yield "subnormal", rng.integers(-9, 10, 1111) * float(limits.smallest_subnormal)
    yield "huge", rng.uniform(-1, 1, 1200) * float(limits.max) * 0.01
    for size in (2, 7, 31, 32, 1023, 1024, 1025, 2048, 5003):
        yield str(size), rng.standard_normal(size)


def outcome(compressor, x, draw):
    """Return the packet, or why there is none."""
    try:
        return compressor.compress(x, draw)
    except ValueError as error:
        return str(error)


def same_for_all_vectors(spec, dtype, target):
    packets = 0
    for name, values in vectors(dtype):
        x = np.asarray(values, dtype=dtype)
        compressor = make_compressor(spec).bind((x.size // 3, x.size - x.size // 3))
        draw = Draw(seed=x.size, rank=2, cohort=4)
        got = outcome(compressor, torch.tensor(x, device=target), draw)
        assert got == outcome(compressor, x, draw), name
        packets += not isinstance(got, str)
    assert packets >= 18  # of 19; what random-k scales up may overflow


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bytes(spec, dtype):
    assert make_compressor(spec).encodes_tensors
    same_for_all_vectors(spec, dtype, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_bytes_on_cuda():
    for spec in SPECS:
        for dtype in DTYPES:
            same_for_all_vectors(spec, dtype, "cuda")


@pytest.mark.parametrize("spec", ["qsgd", "qsgd:100,bucket=90", "uniform", "natural", "randk:0.1"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bytes_for_many_draws(spec, dtype):
    x = np.random.default_rng(1).standard_normal(1600).astype(dtype)
    tensor, compressor = torch.tensor(x), make_compressor(spec)
    for seed in range(20):
        draw = Draw(seed=seed << 40 | seed, round=seed)
        assert compressor.compress(tensor, draw) == compressor.compress(x, draw)


@pytest.mark.parametrize("spec", ["sign", "qsgd:7,bucket=0", "uniform:4", "topk:0.01", "fp16"])
def test_same_bytes_of_a_long_vector(spec, monkeypatch):
    monkeypatch.setattr(torch_words, "PIECE", 1 << 17)
    x = np.random.default_rng(2).standard_normal(300_001, dtype=np.float32)
    compressor = make_compressor(spec)
    assert compressor.compress(torch.tensor(x)) == compressor.compress(x)


@pytest.mark.parametrize("spec", [*SPECS[:24:3], "natural", "bf16", "topk:0.1", "randk:0.2"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_alike(spec, value):
    for dtype in DTYPES:
        x = np.ones(2500, dtype=dtype)
        x[[2200, 2400]] = value
        compressor = make_compressor(spec).bind((2500,))
        with pytest.raises(ValueError, match=r"x\[2200\]") as expected:
            compressor.compress(x)
        with pytest.raises(ValueError, match=r"x\[2200\]") as raised:
            compressor.compress(torch.tensor(x))
        assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize(
    "spec", ["sign:l2", "qsgd", "qsgd:7,bucket=0", "uniform", "natural", "bf16"]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_numbers_are_treated_alike(spec, dtype):
    x = np.full(1500, np.finfo(dtype).max, dtype=dtype)
    compressor = make_compressor(spec)
    assert outcome(compressor, torch.tensor(x), Draw()) == outcome(compressor, x, Draw())


@pytest.mark.parametrize("spec", ["sign", "qsgd", "topk:0.1", "randk:0.5", "qsgd:3+rans"])
def test_the_vector_is_not_copied_to_the_host(spec, monkeypatch):
    x = np.linspace(-1, 2, 10_000, dtype=np.float32)
    compressor, tensor = make_compressor(spec), torch.tensor(x)
    want = compressor.compress(x)
    sent = []

    def counted(values):
        sent.append(values.numel() * values.element_size())
        return values.numpy()

    monkeypatch.setattr("flowerpress.compressors.wire.inputs._to_array", None)
    for module in (device, torch_encode, torch_sums, torch_words):
        monkeypatch.setattr(module, "to_host", counted)
    assert compressor.compress(tensor) == want
    assert 0 < sum(sent) < 0.8 * x.nbytes


@pytest.mark.parametrize("spec", ["identity", "permk", "hadamard+cq"])
def test_the_others_fall_back_to_the_host(spec):
    compressor = make_compressor(spec)
    x = np.linspace(-1, 2, 100, dtype=np.float32)
    assert not compressor.encodes_tensors
    assert compressor.compress(torch.tensor(x)) == compressor.compress(x)


def test_strides_gradients_and_shapes():
    x = torch.arange(3000.0).sub(1000)
    compressor = make_compressor("qsgd")
    assert compressor.compress(x[::2]) == compressor.compress(x.numpy()[::2])
    assert compressor.compress(x.clone().requires_grad_()) == compressor.compress(x.numpy())
    for wrong in (torch.ones(2, 2), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="a vector has one dimension"):
            compressor.compress(wrong)
    with pytest.raises(ValueError, match="length must be"):
        compressor.compress(torch.ones(0))
    with pytest.raises(ValueError, match=r"got torch.bfloat16"):
        compressor.compress(torch.ones(3, dtype=torch.bfloat16))


def test_ties_go_to_the_lowest_place():
    x = np.tile(np.array([1, -1, 0.5, 2], dtype=np.float32), 700)
    vector = device.device_vector(torch.tensor(x))
    for k in (1, 5, 700, 701, 1500, 2799):
        ids = torch_encode.top_ids(vector, k)
        assert ids.tolist() == numpy_kernels.top_ids(x, k).tolist()


def test_random_words_are_philox_words():
    for key in ((0, 0), (0xFFFFFFFF, 0x80000000), (12345, 0xDEADBEEF)):
        got = torch_words.unsigned(torch_words.rounding_words(key, 5 * 1024, 7 * 1024 + 3, "cpu"))
        want = philox.rounding_words(key, 5, 3).reshape(-1)[: 2 * 1024 + 3]
        assert got.tolist() == want.tolist()


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 9, 13, 16])
def test_packing(width):
    for count in (1, 7, 1023, 1024, 1025, 5000):
        codes = np.random.default_rng(count).integers(0, 1 << width, count, dtype=np.int32)
        tensor = torch.tensor(codes)
        got = torch_words.packed(count, width, tensor.device, lambda a, b, t=tensor: t[a:b])
        assert got.tobytes() == packing.pack(codes.astype(np.uint32), width).tobytes()


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize(
    "sizes", [[5], [1, 31, 32, 33], [1024, 1025], [512] * 7 + [100], [1500] * 4 + [1], [30_000]]
)
def test_sums_have_one_order(sizes, square):
    rng = np.random.default_rng(len(sizes))
    x = rng.standard_normal(sum(sizes)) * np.exp(5 * rng.standard_normal(sum(sizes)))
    offsets = np.cumsum([0, *sizes], dtype=np.int64)
    vector = device.device_vector(torch.tensor(x))
    got = torch_sums.block_sums(vector, offsets, square)
    assert got.tolist() == sums.block_sums(x, offsets, square).tolist()
    maxima = torch_sums.block_maxima(vector, offsets)
    assert maxima.tolist() == affine.block_maxima(x, offsets).tolist()


def test_blocks_are_scaled_like_ldexp():
    rng = np.random.default_rng(3)
    exponents = np.array([-1024, -1023, -1022, -700, -1, 0, 1, 300, 1022, 1023, 1024, 1073])
    offsets = np.arange(0, 12 * 200 + 1, 200)
    x = np.ldexp(rng.standard_normal(2400), np.repeat(-exponents, 200) - rng.integers(3, 90, 2400))
    vector = device.device_vector(torch.tensor(x))
    got = torch_sums.scaled_blocks(vector, exponents, offsets).tensor.numpy()
    assert np.array_equal(got, np.ldexp(x, np.repeat(exponents, 200)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_natural_at_the_edge_of_a_carry(dtype):
    """Mantissas that the random bits just carry over, and one less, which they do not."""
    word = philox.rounding_words(Draw().key(7), 0, 1).reshape(-1).astype(np.uint64)
    bits, noise = (23, word >> 9) if dtype == np.float32 else (52, (word << 20) + (1 << 19))
    for less in (0, 1):
        mantissa = (1 << bits) - noise.astype(np.int64) - less
        share = np.ldexp(mantissa.clip(0, (1 << bits) - 1).astype(np.float64), -bits)
        x = (1 + share).astype(dtype)
        packet = make_compressor("natural").compress(torch.tensor(x), Draw())
        assert packet == make_compressor("natural").compress(x, Draw())
        codes = np.frombuffer(packet.payload, np.uint8)[4:]
        assert (codes[noise > 0] == 127 - less).all()
