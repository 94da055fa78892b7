"""Whatever is given to a compressor: a packet that decodes right, or the stated ValueError."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

from flowerpress.compressors import Draw, add_to, decompress, make_compressor, norm
from flowerpress.compressors.kernels import device
from flowerpress.compressors.kernels.choice import forced_kernels
from tests.compressors.table import COMPRESSORS

torch = pytest.importorskip("torch")
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

DTYPES = (np.float32, np.float64)
SHAPES = ((20, 30), (400,))
X = np.random.default_rng(0).standard_normal(1000)
DRAW = Draw(seed=1, rank=1, cohort=2)
SPECS = (*COMPRESSORS, "randsign:4", "cq:range=8", "scaled(hadamard+qsgd:1,bucket=0)")


@pytest.fixture(params=["numpy", "numba", "torch"])
def backend(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setenv(device.VARIABLE, "1")
    else:
        with forced_kernels(request.param):
            yield request.param
        return
    yield request.param


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def odd_address(x):
    raw = np.zeros(x.nbytes + 1, dtype=np.uint8)
    raw[1:] = x.view(np.uint8)
    return raw[1:].view(x.dtype)


class Mine(np.ndarray):
    """A subclass with arithmetic of its own."""

    def __mul__(self, other):
        raise AssertionError("an encoder used the subclass")

    __rmul__ = __truediv__ = __add__ = __sub__ = __mul__


def negative_view(x):
    """A view of which torch only remembers that its numbers are the negatives."""
    kind = torch.complex64 if x.dtype == np.float32 else torch.complex128
    return (
        torch.complex(torch.zeros(x.size, dtype=torch.tensor(x).dtype), -torch.tensor(x))
        .to(kind)
        .conj()
        .imag
    )


# The same vector, in other hands: always the same packet.
ARRAYS = {
    "read-only": read_only,
    "every second": lambda x: np.repeat(x, 2)[::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "a column": lambda x: np.stack([x, x], axis=1)[:, 0],
    "odd address": odd_address,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "a subclass": lambda x: x.view(Mine),
    "masked, but nothing is": np.ma.masked_array,
    "in a file": lambda x: np.memmap("/dev/zero", dtype=x.dtype, mode="c", shape=x.shape) + x,
}
TENSORS = {
    "tensor": torch.tensor,
    "parameter": lambda x: torch.nn.Parameter(torch.tensor(x)),
    "with a gradient": lambda x: torch.tensor(x, requires_grad=True) * 1,
    "every second of a tensor": lambda x: torch.tensor(np.repeat(x, 2))[::2],
    "a row of a matrix": lambda x: torch.tensor(np.stack([x, x]))[1],
    "negative view": negative_view,
    "inference": torch.inference_mode()(lambda x: torch.tensor(x) * 1),
}


@pytest.mark.parametrize("spec", SPECS)
def test_the_same_vector_in_other_hands(spec, backend):
    compressor = make_compressor(spec).bind_shapes(SHAPES)
    for dtype in DTYPES:
        x = X.astype(dtype)
        packet = compressor.compress(x, DRAW)
        for name, given in (TENSORS if backend == "torch" else ARRAYS).items():
            assert compressor.compress(given(x), DRAW) == packet, name


WRONG = {
    "masked": (lambda: np.ma.masked_less(X, 0), r"masked array \d+ numbers are masked.*filled"),
    "matrix": (lambda: np.asmatrix(X), r"one dimension, got shape \(1, 1000\).*reshape"),
    "number": (lambda: np.array(1.0), r"one dimension, got shape \(\)"),
    "objects": (lambda: X.astype(object), r"got object: convert it first, as in x.astype"),
    "halves": (lambda: X.astype(np.float16), "got float16: convert it first"),
    "long doubles": (lambda: X.astype(np.longdouble), r"dtype must be|got float"),
    "integers": (lambda: X.astype(np.int64), "got int64"),
    "complex": (lambda: X.astype(complex), "got complex128"),
    "truths": (lambda: X > 0, "got bool"),
    "records": (lambda: np.zeros(3, dtype=[("a", "f4")]), "dtype must be float32"),
    "nothing": (lambda: X[:0], "length must be in"),
    "list": (lambda: [1.0, 2.0], "expected a numpy array or a torch tensor, got list"),
    "none": (lambda: None, "got NoneType"),
    "sparse": (lambda: torch.tensor(X).to_sparse(), r"layout torch.sparse_coo.*to_dense"),
    "meta": (lambda: torch.tensor(X).to("meta"), "device 'meta' has no numbers"),
    "half tensor": (lambda: torch.tensor(X).half(), r"got torch.float16.*x.float\(\)"),
    "bf16 tensor": (lambda: torch.tensor(X).bfloat16(), "got torch.bfloat16"),
    "integer tensor": (lambda: torch.arange(9), "got torch.int64"),
    "complex tensor": (lambda: torch.zeros(9, dtype=torch.complex64).conj(), "got torch.complex64"),
    "0-d tensor": (lambda: torch.tensor(1.0), r"got shape \(\)"),
    "matrix tensor": (lambda: torch.ones(2, 2), r"got shape \(2, 2\)"),
    "empty tensor": (lambda: torch.ones(0), "length must be in"),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "cannot be read as an array|one dimension",
    ),
    "fake": (lambda: FakeTensorMode().from_tensor(torch.ones(9)), "cannot be read as an array"),
}


@pytest.mark.parametrize(("given", "says"), WRONG.values(), ids=WRONG)
def test_what_is_refused(given, says, backend):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch: nested tensors are a prototype
        x = given()
    for spec in ("sign", "identity", "hadamard+sign", "topk:0.1+qsgd:7"):
        with pytest.raises(ValueError, match=says):
            make_compressor(spec).compress(x)


def extremes(dtype):
    """Vectors near the largest number, by name."""
    top = np.finfo(dtype).max
    rng = np.random.default_rng(1)
    ones = np.ones(1000, dtype=dtype)
    for name, size in (("max", 1.0), ("half", 0.5), ("0.01", 0.01), ("1e-4", 1e-4)):
        peak = ones.copy()
        peak[3] = -top * dtype(size)
        yield f"one {name}", peak
        yield f"all {name}", top * dtype(size) * np.where(rng.random(1000) < 0.5, -ones, ones)
        yield f"uniform {name}", (top * size * rng.uniform(-1, 1, 1000)).astype(dtype)
    yield "a root", np.full(1000, np.sqrt(top), dtype=dtype)


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_sent_can_be_read(spec, backend):
    """Or it is refused by the sender, which names the position and what to do."""
    compressor = make_compressor(spec).bind_shapes(SHAPES)
    for dtype in DTYPES:
        for name, x in extremes(dtype):
            given = torch.tensor(x) if backend == "torch" else x
            with np.errstate(all="raise"):  # of the caller's arithmetic alone
                packet = sent_or_refused(compressor, given)
                if packet is not None:
                    assert np.isfinite(decompress(packet)).all(), name
                    assert norm(packet) >= 0, name


def sent_or_refused(compressor, x):
    try:
        return compressor.compress(x, DRAW)
    except ValueError as error:
        said = str(error)
    assert re.search(r"x\[\d+\].*(scale the vector down|outside of the range)", said), said
    return None


@pytest.mark.parametrize("spec", ["hadamard+sign", "drive", "eden", "countsketch:3,ratio=0.5"])
def test_the_largest_number_is_named(spec):
    x = np.ones(1000)
    x[[3, 701]] = 1e300, -np.finfo(np.float64).max
    with pytest.raises(ValueError, match=r"overflows float64: the largest number, x\[701\], is -1"):
        make_compressor(spec).compress(np.where(np.arange(1000) % 2, x, 1e308))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("spec", SPECS)
def test_positions_are_those_of_the_whole_vector(spec, value, backend):
    x = X.astype(np.float32)
    x[[777, 900]] = value
    given = torch.tensor(x) if backend == "torch" else x
    with pytest.raises(ValueError, match=r"compress: x\[777\] is (nan|inf); nothing was sent$"):
        make_compressor(spec).bind_shapes(SHAPES).compress(given, DRAW)


def test_positions_in_a_stage_are_said_to_be_its_own():
    with pytest.raises(ValueError, match=r"x\[1\] is 3.0.* \(x: the values that topk:k=2"):
        make_compressor("topk:k=2+randsign").compress(np.array([0.0, 0.5, 0.0, 3.0]))


OUTS = {
    "masked": (np.ma.masked_array([0.0]), "masked"),
    "list": ([0.0], "out must be"),
    "read-only": (read_only(np.zeros(1)), "out must be"),
    "every second": (np.zeros(4)[::2], "out must be"),
    "other byte order": (np.zeros(1).astype(">f8"), "out must be"),
    "integers": (np.zeros(1, int), "out must be"),
    "matrix": (np.zeros((1, 1)), "out must be"),
}


@pytest.mark.parametrize(("out", "says"), OUTS.values(), ids=OUTS)
def test_accumulators_that_are_refused(out, says):
    with pytest.raises(ValueError, match="out must be a writeable, contiguous"):
        add_to(make_compressor("sign").compress(np.ones(1)), out)


@pytest.mark.parametrize("spec", COMPRESSORS)
def test_accumulators_that_are_taken(spec):
    x = X.astype(np.float32)
    packet = make_compressor(spec).bind_shapes(SHAPES).compress(x, DRAW)
    for kernels in ("numpy", "numba"):
        with forced_kernels(kernels):
            wanted = decompress(packet)
            for given in (odd_address(np.zeros_like(x)), np.zeros_like(x).view(np.memmap)):
                add_to(packet, given)
                assert np.asarray(given).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("weight", [None, "1", np.nan, np.inf, 1j, [1.0]])
def test_weights_that_are_refused(weight):
    with pytest.raises(ValueError, match="weight must be a finite number"):
        add_to(make_compressor("sign").compress(np.ones(1)), np.zeros(1), weight)
