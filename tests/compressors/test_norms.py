"""The norm of a packet is that of the vector it holds, and takes no vector to find."""

import ast
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import flowerpress
from flowerpress.compressors import (
    Draw,
    PacketError,
    compressor_names,
    decompress,
    make_compressor,
    norm,
)
from flowerpress.compressors.norms import square_sum
from flowerpress.compressors.sparse.topk import TopK
from flowerpress.compressors.testing.conformance import forced_kernels
from flowerpress.compressors.testing.hostile import damaged, resealed
from flowerpress.compressors.wire.packet import HEADER_BYTES
from flowerpress.compressors.wire.payload import Sparse
from flowerpress.compressors.wire.reading import decode
from tests.compressors.table import COMPRESSORS

SHAPES = ((30, 40), (7,))
DIM = 1207
SPECS = (*COMPRESSORS, "randsign", "randsign+rans")


def vectors(dtype):
    rng = np.random.default_rng(3)
    one = np.zeros(DIM)
    one[5] = -0.7
    for x in (rng.standard_normal(DIM), rng.standard_cauchy(DIM), one, np.zeros(DIM)):
        yield (x / max(1.0, np.abs(x).max())).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spec", SPECS)
def test_it_is_that_of_the_decoded_vector(spec, dtype):
    compressor = make_compressor(spec).bind_shapes(SHAPES)
    for x in vectors(dtype):
        packet = compressor.compress(x, Draw(seed=2))
        found = norm(packet)
        assert norm(packet, glance=True) == found
        actual = float(np.linalg.norm(decompress(packet).astype(np.float64)))
        if "countsketch" in spec:  # of a sketch it is the vector's, not that of its estimates
            actual = float(np.linalg.norm(x.astype(np.float64)))
            assert found == pytest.approx(actual, rel=0.5)
        elif "induced" in spec:  # a bound
            assert actual * (1 - 1e-5) <= found <= 3 * actual + 1e-12
        else:
            assert found == pytest.approx(actual, rel=1e-5 if dtype == np.float32 else 1e-12)


def test_the_table_has_all_compressors():
    """Whatever has a name is measured above, alone or in a composition."""
    tested = " ".join(SPECS)
    assert not [name for name in compressor_names() if name not in tested]


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e-21, 1e21, 1e37, 1e200])
@pytest.mark.parametrize("spec", ["identity", "topk:k=9", "sign", "powersgd:2", "drive"])
def test_squares_may_leave_the_range_of_the_dtype(spec, size):
    dtype = np.float32 if 1e-37 < size < 1e38 else np.float64
    x = (size * np.linspace(0.1, 1, DIM)).astype(dtype)
    packet = make_compressor(spec).bind_shapes(SHAPES).compress(x)
    unit = np.linalg.norm(decompress(packet).astype(np.float64) / size)
    assert norm(packet) == pytest.approx(size * unit, rel=1e-5)


@pytest.mark.parametrize("spec", ["topk:k=50", "randk:k=50", "signtopk:k=50", "topk:k=50+qsgd:7"])
def test_no_vector_is_made_of_a_short_packet(spec):
    x = np.random.default_rng(0).standard_normal(1_000_000)
    packet = make_compressor(spec).compress(x)
    norm(packet)  # a kernel's first call compiles it
    tracemalloc.start()
    norm(packet)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Places of rand-k are drawn again, which takes a bit for each coordinate.
    assert peak < 1_000_000 * (0.3 if "randk" in spec else 0.1)


@pytest.mark.parametrize("spec", SPECS)
def test_damaged_packets_are_refused_or_have_a_norm(spec):
    data = make_compressor(spec).bind((40,)).compress(np.linspace(-0.5, 0.9, 40)).data
    for bad in damaged(data, count=60):
        if len(bad) >= 24 and bad[16:20] == data[16:20]:  # the dim is checked before
            try:
                assert norm(resealed(bad)) >= 0
            except PacketError:
                continue


@pytest.mark.parametrize(("spec", "tag"), [("topk:k=300", 4), ("topk:k=300+qsgd:7", 12)])
def test_a_glance_leaves_places_unread(spec, tag):
    """They are most of the work; whoever adds the packet reads and checks them."""
    packet = make_compressor(spec).compress(np.random.default_rng(0).standard_normal(DIM))
    bad = bytearray(packet.data)
    bad[HEADER_BYTES + tag] = 7  # of the places' code
    bad = resealed(bytes(bad))
    assert norm(bad, glance=True) == norm(packet)
    for read in (norm, decompress):
        with pytest.raises(PacketError, match="id code 7 is not known"):
            read(bad)


def test_what_a_glance_left_is_read_when_it_is_needed():
    x = np.random.default_rng(0).standard_normal(DIM)
    packet = make_compressor("topk:k=300+qsgd:7").compress(x)
    out = np.zeros(DIM)
    decode(packet, glance=True).add_to(out, 1.0)
    np.testing.assert_array_equal(out, decompress(packet))


class HalfTopK(TopK):
    """Sends halves, and is read as doubles of them; registered nowhere."""

    name = "half"

    @classmethod
    def decode(cls, packet):
        found = super().decode(packet)
        return Sparse(found.ids, found.values * 2)

    @classmethod
    def expander(cls, header, dim):
        return "its own"


def test_who_reads_in_another_way_is_looked_at_in_that_way():
    x = np.linspace(-1, 1, 50)
    packet = TopK(k=5).compress(x)
    np.testing.assert_array_equal(HalfTopK.glance(packet).values, 2 * TopK.glance(packet).values)
    assert HalfTopK.expander_at_a_glance(None, 50) == "its own"


def in_order(x):
    """|x|^2 by the order that ``kernels/sums.py`` documents, one addition after the other."""
    total = None
    for start in range(0, len(x), 1024):
        lanes = [0.0] * 32
        for place, value in enumerate(x[start : start + 1024].tolist()):
            lanes[place % 32] += value * value
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [a + b for a, b in zip(lanes[:half], lanes[half:], strict=True)]
        total = lanes[0] if total is None else total + lanes[0]
    return total


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squares_are_summed_in_one_order(dtype, kernels):
    """To the last bit, whatever adds up on a machine: what is sent depends on it."""
    for size in (1, 31, 1024, 1025, 5000):
        x = np.random.default_rng(size).standard_normal(size).astype(dtype)
        with forced_kernels(kernels):
            assert square_sum(x) == in_order(x)


# Not in what is sent, nor in what decides it: the guard compares norms with a limit a thousand
# times as large, and the spectral gap says how long to wait.
ROUGH = {"compressors/norms.py", "protocol/buffers.py", "strategies/gossip/topology.py"}
BLAS = {"dot", "vdot", "matmul", "einsum", "tensordot", "linalg"}


def test_nothing_that_is_sent_comes_from_blas():
    """Its sums differ from one numpy to the next, and between machines."""
    root = Path(flowerpress.__file__).parent
    for folder in ("compressors", "protocol", "server", "worker", "clients", "strategies"):
        for path in sorted((root / folder).rglob("*.py")):
            nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
            products = [n for n in nodes if isinstance(getattr(n, "op", None), ast.MatMult)]
            named = {n.attr for n in nodes if isinstance(n, ast.Attribute)} & BLAS
            if str(path.relative_to(root)) not in ROUGH:
                assert not products, path
                assert not named, path
