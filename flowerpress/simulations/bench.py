"""The benchmark of the compressors: time against a copy of the vector, bits, and error.

All times are of one thread in one process. Each repetition times a copy of the vector, then one
operation, and so on through all operations: what else the machine does meets all of them alike.
The process is a plain one: what the system takes to give it memory again and again is in the times.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import Draw, add_to, compressor_names, decompress, make_compressor
from flowerpress.compressors.kernels import packing
from flowerpress.compressors.kernels.choice import waiting_for_the_compiler
from flowerpress.compressors.wire.codecs import codec
from flowerpress.compressors.wire.packet import Packet
from flowerpress.compressors.wire.payload import Sparse
from flowerpress.simulations.bench_forms import naive
from flowerpress.simulations.bench_shared_forms import COHORT, RANK
from flowerpress.suggestions import unknown

Vector = npt.NDArray[np.float32]

DATA = ("gaussian", "heavy-tailed", "mnist")
CALLS_OF = 2_000_000  # coordinates that the calls of one repetition go through, at least
DRAW = Draw(seed=1, rank=RANK, cohort=COHORT)  # of all packets: one sender of many
DIMS = (100_000, 10_000_000, 25_000_000)
# Of compressors that have several regimes or need a value; any other is run by its bare name.
SPECS: dict[str, tuple[str, ...]] = {
    "sign": ("sign", "sign:block=1024"),
    "qsgd": ("qsgd:1", "qsgd:3", "qsgd:7", "qsgd:127"),
    "uniform": ("uniform:1", "uniform:2", "uniform:4", "uniform:8"),
    "topk": ("topk:0.01", "topk:0.001"),
    "randk": ("randk:0.01,law=stratified", "randk:0.01"),
    "cq": ("cq:2", "cq:16", "cq:5,c=5"),
    "countsketch": ("countsketch:ratio=0.004",),
}


@dataclass(frozen=True)
class Timing:
    """Seconds of an operation and of the copies before it, of every repetition."""

    seconds: list[float] = field(default_factory=list)
    copies: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median time."""
        return statistics.median(self.seconds)

    @property
    def ratio(self) -> float:
        """The median over repetitions of the copy's time over the operation's."""
        pairs = zip(self.copies, self.seconds, strict=True)
        return statistics.median(copy / own for copy, own in pairs)

    @property
    def best_ratio(self) -> float:
        """The fastest copy over the fastest repetition."""
        return min(self.copies) / min(self.seconds)


@dataclass(frozen=True)
class Row:
    """One compressor on one vector.

    Attributes
    ----------
    encode_gbs, decode_gbs : float
        GB of the float32 vector a second; decoding adds to a buffer.
    encode_ratio, decode_ratio : float
        Times the speed of a copy of the vector: the larger of the median ratio and of the ratio of
        the fastest repetitions.
    numpy, torch : tuple of float or None
        Times as fast as the plain form, encoding and decoding, by medians.
    bits, entropy : float, float or None
        Bits a coordinate, of the whole packet; and what an ideal code of the same codes and places,
        each drawn alone, would take.
    error : float
        ``|C(x) - x|^2 / |x|^2``.
    """

    spec: str
    dim: int
    data: str
    encode_ms: float
    decode_ms: float
    encode_gbs: float
    decode_gbs: float
    encode_ratio: float
    decode_ratio: float
    numpy: tuple[float, float] | None
    torch: tuple[float, float] | None
    bits: float
    entropy: float | None
    error: float

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return asdict(self)


def specs() -> list[str]:
    """Return what is run: every registered compressor that can be made for any vector."""
    chosen: list[str] = []
    for name in compressor_names():
        for spec in SPECS.get(name, (name, f"{name}:0.01")):
            try:
                make_compressor(spec).compress(np.ones(8, dtype=np.float32))
            except (TypeError, ValueError):  # needs a value, or the shapes of tensors
                continue
            chosen.append(spec)
            if name not in SPECS:
                break
    return chosen


def vectors(dim: int, names: Iterable[str] = DATA) -> Iterator[tuple[str, Vector]]:
    """Yield each kind of vector by name, of length `dim`."""
    rng = np.random.default_rng(0)
    for name in names:
        if name == "gaussian":
            yield name, rng.standard_normal(dim, dtype=np.float32)
        elif name == "heavy-tailed":  # layers of unlike scales, Student's t with 3 degrees
            scales = np.exp(2 * rng.standard_normal(64)).astype(np.float32)
            edges = np.linspace(0, dim, 65).astype(np.int64)
            yield (
                name,
                rng.standard_t(3, dim).astype(np.float32)
                * np.repeat(scales, np.diff(edges).astype(int)),
            )
        elif name == "mnist":
            yield name, _gradients(dim)
        else:
            raise ValueError(unknown(f"unknown data {name!r}", name, DATA))


def _gradients(dim: int) -> Vector:
    """Return gradients of the mnist task at its initial model, batch after batch."""
    from flowerpress.simulations.tasks import make_task_fn

    task = make_task_fn("mnist", seed=0)(0, 10)
    arrays = task.initial_arrays()
    kept = [a.numpy() for name, a in arrays.items() if name not in task.buffer_names()]
    x = np.concatenate([array.reshape(-1) for array in kept]).astype(np.float32)
    rng = np.random.default_rng(0)
    count = min(-(-dim // x.size), 16)
    batches = [task.gradient(x, task.draw(rng))[1] for _ in range(count)]
    return np.resize(np.concatenate(batches).astype(np.float32), dim)


def measure(
    wanted: Iterable[str], dim: int, data: str, x: Vector, *, repetitions: int, forms: bool = True
) -> list[Row]:
    """Time the compressors on one vector, all interleaved.

    Parameters
    ----------
    wanted : iterable of str
        Specs.
    dim, data : int, str
        Length and name of the vector, for the rows.
    x : ndarray of float32, shape (dim,)
    repetitions : int
        How often each operation is timed, after one call that is not.
    forms : bool
        Time the plain numpy and torch forms too.
    """
    wanted = list(wanted)
    with waiting_for_the_compiler():
        return _measured(wanted, dim, data, x, repetitions, forms)


def _measured(
    wanted: list[str], dim: int, data: str, x: Vector, repetitions: int, forms: bool
) -> list[Row]:
    out = np.empty_like(x)  # numpy asks for large pages here, but not for zeros
    out[:] = 0
    operations: dict[tuple[str, ...], Callable[[], object]] = {}
    packets = {}
    for spec in wanted:
        compressor = make_compressor(spec).bind((dim,))
        packet = packets[spec] = compressor.compress(x, DRAW)
        operations[spec, "encode"] = lambda c=compressor: c.compress(x, DRAW)  # type: ignore[misc]
        operations[spec, "decode"] = lambda data=packet.data: add_to(data, out)  # type: ignore[misc]
        for library, (encode, add) in (naive(spec, x) if forms else {}).items():
            code = encode()
            operations[spec, library, "encode"] = encode
            operations[spec, library, "decode"] = lambda add=add, code=code: add(code, out)  # type: ignore[misc]
    timings = interleaved(operations, x, repetitions)
    return [_row(spec, data, x, packets[spec], timings) for spec in wanted]


def interleaved(
    operations: dict[tuple[str, ...], Callable[[], object]], x: Vector, repetitions: int
) -> dict[tuple[str, ...], Timing]:
    """Time every operation `repetitions` times, each time after a copy of `x`.

    Operations that take more than a third of a second get three repetitions.
    """
    copy = np.empty_like(x)
    calls = max(1, CALLS_OF // x.size)  # short ones in a row: alone, they would find cold caches
    timings = {key: Timing() for key in operations}
    slow: set[tuple[str, ...]] = set()
    for repetition in range(repetitions + 1):
        for key, operation in operations.items():
            if key in slow and repetition > 3:
                continue
            timing, start = timings[key], time.perf_counter()
            for _ in range(calls):
                np.copyto(copy, x)
            middle = time.perf_counter()
            for _ in range(calls):
                operation()
            end = time.perf_counter()
            if repetition:  # the first round warms up
                timing.copies.append((middle - start) / calls)
                timing.seconds.append((end - middle) / calls)
            if end - middle > 1 / 3:
                slow.add(key)
    return timings


def _row(
    spec: str, data: str, x: Vector, packet: Packet, timings: dict[tuple[str, ...], Timing]
) -> Row:
    encode, decode = timings[spec, "encode"], timings[spec, "decode"]
    faster = {}
    for library in ("numpy", "torch"):
        if (spec, library, "encode") in timings:
            faster[library] = (
                timings[spec, library, "encode"].median / encode.median,
                timings[spec, library, "decode"].median / decode.median,
            )
    error = decompress(packet).astype(np.float64) - x
    norm = float(np.square(x, dtype=np.float64).sum())
    return Row(
        spec=spec,
        dim=x.size,
        data=data,
        encode_ms=encode.median * 1e3,
        decode_ms=decode.median * 1e3,
        encode_gbs=x.nbytes / encode.median / 1e9,
        decode_gbs=x.nbytes / decode.median / 1e9,
        encode_ratio=max(encode.ratio, encode.best_ratio),
        decode_ratio=max(decode.ratio, decode.best_ratio),
        numpy=faster.get("numpy"),
        torch=faster.get("torch"),
        bits=8 * packet.nbytes / x.size,
        entropy=entropy(packet),
        error=float(np.square(error).sum()) / norm,
    )


def entropy(packet: Packet) -> float | None:
    """Return the bits a coordinate of an ideal code; None where codes cannot be told.

    For packed codes, the empirical entropy of single codes; for places that are sent,
    ``log2 C(d, k)`` and the values; scales are left out.
    """
    decoded: Any = codec(packet.header.codec).decode(packet)
    dim, bits = packet.dim, 8 * packet.dtype.itemsize
    if isinstance(decoded, Sparse):
        k = decoded.ids.size
        places = (math.lgamma(dim + 1) - math.lgamma(k + 1) - math.lgamma(dim - k + 1)) / math.log(
            2
        )
        sent = 8 * packet.nbytes > bits * k + 512  # more than values, a key and headers
        return (bits * k + (places if sent else 0.0)) / dim
    codes = getattr(decoded, "packed", getattr(decoded, "codes", None))
    if codes is None or codes.dtype != np.uint8:
        return None
    width = 8 * codes.size // dim
    if not 1 <= width <= 16 or packing.packed_bytes(dim, width) != codes.size:
        return None
    counts = np.bincount(packing.unpack(codes, dim, width))
    shares = counts[counts > 0] / dim
    return float(-(shares * np.log2(shares)).sum()) + 0.0
