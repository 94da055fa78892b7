"""Packets added to tensors where they are: the numbers of `add_to` on arrays, to the bit."""

import numpy as np
import pytest

from flowerpress.compressors import Draw, PacketError, add_to, make_compressor, vectors
from flowerpress.compressors.kernels import device
from flowerpress.compressors.wire import tensors
from flowerpress.protocol.rooms import zeros_like
from tests.compressors.test_torch_path import SPECS

torch = pytest.importorskip("torch")

OTHERS = (
    "identity",
    "terngrad",
    "loggrid",
    "randsign:1000",
    "signtopk:0.1",
    "threshold:0.5",
    "permk",
    "hadamard+sign",
    "drive",
    "eden",
    "countsketch:rows=3,columns=64",
    "powersgd:2",
    "induced(topk:0.1; randk:0.1)",
    "blocked(topk:0.1, 1000)",
    "blocked(qsgd, 1000)",
    "scaled(randk:0.2)",
    "topk:0.2+huffman",
)


@pytest.fixture(autouse=True)
def forced(monkeypatch):
    monkeypatch.setenv(device.VARIABLE, "1")


def same_sums(spec, target):
    rng = np.random.default_rng(3)
    for dtype in (np.float32, np.float64):
        x = (rng.standard_normal(5003) * np.exp(rng.uniform(-9, 3, 5003))).astype(dtype)
        x[::7] = 0
        compressor = make_compressor(spec).bind_shapes(((50, 100), (3,)))
        packet = compressor.compress(x, Draw(seed=2, rank=1, cohort=3))
        for weight in (1.0, -1.0, 0.37, -2.5):
            for kind in (np.float32, np.float64):
                before = rng.standard_normal(5003).astype(kind)
                before[::3] = -0.0
                want, tensor = before.copy(), torch.tensor(before, device=target)
                add_to(packet, want, weight)
                add_to(packet, tensor, weight)
                assert tensor.cpu().numpy().tobytes() == want.tobytes(), (weight, kind)


@pytest.mark.parametrize("spec", [*SPECS, *OTHERS])
def test_same_sums(spec, monkeypatch):
    monkeypatch.setattr(tensors, "_PART", 2048)
    same_sums(spec, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_sums_on_cuda():
    for spec in (*SPECS, *OTHERS):
        same_sums(spec, "cuda")


SOME = ("topk:0.1", "sign:block=1000", "qsgd", "fp16", "eden", "blocked(topk:0.1, 1000)")


@pytest.mark.parametrize("spec", SOME)
def test_what_overflows_or_is_damaged_changes_nothing(spec, monkeypatch):
    monkeypatch.setattr(tensors, "_PART", 1024)
    packet = make_compressor(spec).compress(np.geomspace(1e-9, 3e300, 4000))
    out = torch.ones(4000)
    with pytest.raises(PacketError, match="overflows"):
        add_to(packet, out)
    with pytest.raises(PacketError):
        add_to(packet.data[:-1] + bytes([packet.data[-1] ^ 1]), out)
    with pytest.raises(PacketError, match="dim is 4000, but out has length 3"):
        add_to(packet, torch.ones(3))
    assert (out == 1).all()


def test_only_plain_vectors_are_added_to(monkeypatch):
    packet = make_compressor("topk:k=1").compress(np.ones(4))
    for wrong in (torch.ones(2, 2), torch.ones(8)[::2], torch.ones(4, requires_grad=True)):
        with pytest.raises(ValueError, match="out must be"):
            add_to(packet, wrong)
    monkeypatch.setenv(device.VARIABLE, "0")
    with pytest.raises(ValueError, match="out must be"):
        add_to(packet, torch.ones(4))


@pytest.mark.parametrize("spec", ["topk:0.1", "sign", "cq", "blocked(topk:0.1, 1000)"])
def test_no_operation_mixes_devices(spec, monkeypatch):
    """On torch's device without values, which refuses operations with tensors of the host."""
    monkeypatch.setattr(device, "_KINDS", ("meta",))
    monkeypatch.setattr(tensors, "_PART", 1024)
    x = np.random.default_rng(1).standard_normal(5003)
    one, other = (torch.empty(5003, dtype=torch.float64, device="meta") for _ in range(2))
    add_to(make_compressor(spec).compress(x), one, 0.5)
    half = np.float64(0.5)
    vectors.mix(half, one, half, other, vectors.copied(one))
    found = [vectors.add(one, other), vectors.subtract(one, other), zeros_like(one)]
    found += [vectors.multiply(one, 0.1), vectors.divide(one, 3), vectors.copied(one, other)]
    assert {each.device.type for each in found} == {"meta"}
    with pytest.raises((RuntimeError, NotImplementedError)):
        vectors.add(one, torch.ones(5003, dtype=torch.float64))
