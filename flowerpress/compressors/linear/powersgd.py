"""PowerSGD: each tensor as a product of two thin matrices."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import require_whole, whole
from flowerpress.compressors.kernels import lowrank, twin
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.inputs import TooLargeError
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, weighted

MOST_RANK = 256
MOST_TENSORS = 1 << 16
_START = 44  # purpose of the key
# Steps of a product of two numbers, by their bytes; of a coordinate at most; of a matrix that is a
# product, and of any.
_RANK_WORK, _MOST_WORK, _MATRIX_WORK, _TENSOR_WORK = {4: 0.1, 8: 0.15}, 14.0, 2000.0, 120.0

_SIDES_ROOM = 48  # bytes of what is found of the sides of a matrix, six numbers at a time

Matrix: TypeAlias = tuple[int, int]
I64: TypeAlias = npt.NDArray[np.int64]

# Rank, two zero bytes, the number of matrices; rows and columns of each follow.
_HEAD = struct.Struct("<HHI")


@dataclass(frozen=True)
class Tensors:
    """The values of each matrix in turn, and its rows, columns and rank.

    `kernels.numpy.products` says how they follow one another.
    `largest` is what no number can be above, nor below its negative.
    """

    values: Vector
    rows: I64
    columns: I64
    ranks: I64
    largest: Vector

    def parts(self) -> Iterator[tuple[Vector, Vector]]:
        """Yield the two factors of each matrix; of one sent as it is, a one and its values."""
        at = 0
        for a, b, rank in zip(*(each.tolist() for each in self._shapes), strict=True):
            count = rank * (a + b) if rank else a * b
            part = self.values[at : at + count]
            at += count
            if rank:
                yield part[: rank * a].reshape(rank, a), part[rank * a :].reshape(rank, b)
            else:
                yield np.ones((1, 1), part.dtype), part.reshape(1, -1)

    def groups(self, most: int) -> Iterator[Tensors]:
        """Yield neighbouring matrices, of `most` numbers together, or one that has more."""
        sizes = self.rows * self.columns
        counts = np.where(self.ranks > 0, self.ranks * (self.rows + self.columns), sizes)
        ends, first, at = np.cumsum(sizes), 0, 0
        while first < sizes.size:
            limit = int(ends[first] - sizes[first]) + most
            last = max(first + 1, int(np.searchsorted(ends, limit, side="right")))
            count, these = int(counts[first:last].sum()), slice(first, last)
            rows, columns, ranks = self.rows[these], self.columns[these], self.ranks[these]
            yield Tensors(self.values[at : at + count], rows, columns, ranks, self.largest)
            first, at = last, at + count

    def bands(self, most: int) -> Iterator[Tensors]:
        """Yield the only matrix, or its transpose, a few rows at a time: of `most` numbers, or one.

        The rows are along the longer side, so that the factor which all bands share is short.
        """
        short, long = sorted(next(self.parts()), key=np.size)
        step = max(1, most // short.shape[1])
        for start in range(0, long.shape[1], step):
            some = long[:, start : start + step]
            values = np.concatenate([some.reshape(-1), short.reshape(-1)])
            rows, columns = np.array([some.shape[1]]), np.array([short.shape[1]])
            yield Tensors(values, rows, columns, self.ranks, self.largest)

    @property
    def dim(self) -> int:
        """How many numbers the matrices have."""
        return int((self.rows * self.columns).sum())

    @property
    def _shapes(self) -> tuple[I64, I64, I64]:
        return self.rows, self.columns, self.ranks

    def add_to(self, out: Vector, weight: float) -> None:
        """Add every tensor to its place."""
        weighted(self.largest, weight, out.dtype)  # raises before anything is changed
        factor = np.promote_types(self.values.dtype, out.dtype).type(weight)
        twin("products").add(self.values, *self._shapes, factor, out)


@dataclass(frozen=True)
class PowerSGD(Compressor):
    """Send a low-rank approximation of each tensor, from one step of power iteration.

    (Vogels, Karimireddy and Jaggi, "PowerSGD: practical low-rank gradient compression for
    distributed optimization", NeurIPS 2019). A tensor of two or more dimensions is a matrix M, the
    first by the others, a x b. For M with a >= b: with a random S of shape b x r, P is an
    orthonormal basis of M S and ``Q = M' P``; sent are P and Q, r (a + b) values, and ``P Q'`` is
    decoded. A matrix with a < b is treated as its transpose. Tensors of one dimension, and those
    with ``r (a + b) >= a b``, are sent as they are.

    Unlike the authors' method this keeps no state and each sender is on its own: S is drawn anew
    and not the last Q ("warm start"), and what is added up is the products, not the factors.

    Parameters
    ----------
    rank : int, default 2
        r, 1 to 256; for a smaller matrix its smaller side.
    rows : int, default 0
        0: the tensors' shapes, from :meth:`bind_shapes`. n: the whole vector as one matrix of n
        rows, whatever its tensors; the last d mod n coordinates are sent as they are.
    matrices : tuple of (int, int)
        Rows and columns of each tensor, set by :meth:`bind_shapes`; not part of the spec.

    Raises
    ------
    ValueError
        In `compress` and `traits`, if there are neither shapes nor `rows`, or shapes of another
        number of coordinates.

    Notes
    -----
    C is a projection, so ``|C(x) - x|^2 = |x|^2 - |C(x)|^2``. On average it keeps at least the
    share r / m of a matrix, m = min(a, b), with equality where all singular values are equal, so
    ``alpha = r / m`` of the worst tensor. Proof: let U be an orthonormal basis of the columns of S.
    M U lies in the span of P, hence ``|P' M| >= |P' M U| = |M U|``, and ``E |M U|^2`` is the trace
    of ``M' M`` times ``E U U'``. This matrix is a multiple of the identity, since the law of S is
    the same after a change of the rows' order and signs; its trace is the rank of S. That is r
    but for a chance of at most r / 2^32 (Schwartz and Zippel), which is neglected, as rounding is.

    Examples
    --------
    >>> x = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, -1.0]).reshape(-1)
    >>> packet = PowerSGD(rank=1).bind_shapes([(4, 3)]).compress(x)
    >>> len(packet.payload), packet.payload[:16].hex(" ", 4)
    (72, '01000000 01000000 04000000 03000000')
    >>> from flowerpress.compressors import decompress
    >>> bool(np.allclose(decompress(packet), x))
    True
    """

    rank: int = 2
    rows: int = 0
    matrices: tuple[Matrix, ...] = ()

    name: ClassVar[str] = "powersgd"
    codec: ClassVar[int] = 24
    reading_work: ClassVar[float] = 0.0  # that of the products
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {"rank": whole, "rows": whole}

    def __post_init__(self) -> None:
        require_whole("rank", self.rank, 1, MOST_RANK)
        require_whole("rows", self.rows, 0, (1 << 32) - 1)
        for size in (size for matrix in self.matrices for size in matrix):
            require_whole("a matrix's side", size, 1)
        if len(self.matrices) > MOST_TENSORS:
            raise ValueError(f"powersgd: {len(self.matrices)} tensors, at most {MOST_TENSORS}")

    def bind(self, sizes: Sequence[int]) -> Compressor:
        """Return the compressor for tensors of one dimension each, which go as they are."""
        return self.bind_shapes([(size,) for size in sizes])

    def bind_shapes(self, shapes: Sequence[tuple[int, ...]]) -> Compressor:
        """Return the compressor for tensors of these shapes; empty ones go."""
        full = (tuple(int(size) for size in shape) for shape in shapes if math.prod(shape))
        return replace(
            self, matrices=tuple((math.prod(each[:1]), math.prod(each[1:])) for each in full)
        )

    def _matrices(self, dim: int) -> Sequence[Matrix]:
        if self.rows:
            columns, rest = divmod(dim, self.rows)
            return [each for each in ((self.rows, columns), (rest, 1)) if math.prod(each)]
        if not self.matrices:
            raise ValueError(
                f"{self.spec!r} needs the tensors' shapes: call bind_shapes(layout.shapes) first, "
                "or give rows, for example powersgd:2,rows=100"
            )
        covered = sum(map(math.prod, self.matrices))
        if covered != dim:
            raise ValueError(f"bound to tensors of {covered} coordinates, got {dim}")
        return self.matrices

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the shapes, and the factors or values of each tensor."""
        matrices = self._matrices(x.size)
        sides = np.array(matrices, dtype="<u4")
        pieces: list[Buffer] = [_HEAD.pack(self.rank, 0, len(matrices)), sides.tobytes()]
        key, drawn = draw.key(_START), 0
        for start, (a, b), rank in _tensors(matrices, self.rank):
            part = x[start : start + a * b]
            if not rank:
                pieces.append(part)
                continue
            begin = lowrank.start(key, drawn, rank, min(a, b))
            drawn += begin.size
            factors = np.concatenate(
                [factor.reshape(-1) for factor in lowrank.factors(part.reshape(a, b), begin)]
            )
            one = np.array([[a], [b], [rank]], dtype=np.int64)
            if not twin("products").reach(factors, *one)[0] <= float(np.finfo(x.dtype).max):
                raise TooLargeError("a factor")
            pieces.append(factors)
        return pieces

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the shapes, every value, and that no product can overflow."""
        reader = Reader(packet, cls.name)
        rank, (rows, columns) = _read_head(reader, packet.dim)
        ranks = np.minimum(rows, columns)
        np.minimum(ranks, rank, out=ranks)
        dense, thin = rows * columns, rows + columns
        thin *= ranks
        ranks[thin >= dense] = 0
        budget.charge(_work(dense, ranks, packet.dtype.itemsize))
        count = int(np.where(ranks, thin, dense).sum())
        values = reader.finite(count, packet.dtype, "value")
        reader.done()
        reach = twin("products").reach(values, rows, columns, ranks)
        if not reach.max() <= float(np.finfo(packet.dtype).max):
            raise reader.error(f"matrix {np.argmax(reach)} overflows {packet.dtype}")
        return Tensors(values, rows, columns, ranks, reach.max(keepdims=True).astype(packet.dtype))

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``powersgd`` with its rank."""
        rank, _ = _read_head(Reader(packet, cls.name), packet.dim)
        return cls(rank).spec

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants: alpha is the worst tensor's."""
        del cohort
        matrices = self._matrices(dim)
        tensors = list(_tensors(matrices, self.rank))
        alpha = min(r / min(each) if r else 1.0 for _, each, r in tensors)
        values = sum(_values(each, r) for _, each, r in tensors)
        bits = 8.0 * (_HEAD.size + 8 * len(matrices)) + 32 * values
        if any(r for _, _, r in tensors):
            return Traits(False, None, alpha, None, bits)
        return Traits(True, 0.0, 1.0, (0.0, 0.0), bits)


def _tensors(matrices: Sequence[Matrix], rank: int) -> Iterator[tuple[int, Matrix, int]]:
    """Yield the first coordinate, the sides and the rank of each; rank 0: sent as it is."""
    start = 0
    for a, b in matrices:
        r = min(rank, a, b)
        yield start, (a, b), r if r * (a + b) < a * b else 0
        start += a * b


def _values(matrix: Matrix, rank: int) -> int:
    return rank * sum(matrix) if rank else math.prod(matrix)


def _work(sizes: I64, ranks: I64, width: int) -> float:
    """Return the steps of the products of numbers of `width` bytes, and of each matrix."""
    dense, products = float(sizes.sum()), float((ranks * sizes).sum())
    work = 1.5 * dense + _RANK_WORK[width] * products
    if budget.current().level == 1:  # any rank is read, by itself, and any number of tensors
        work = min(_MOST_WORK * dense, work)
    else:
        work += _TENSOR_WORK * ranks.size
    return work + _MATRIX_WORK * np.count_nonzero(ranks)


def _read_head(reader: Reader, dim: int) -> tuple[int, tuple[I64, I64]]:
    """Return the rank, and the rows and the columns of the matrices."""
    rank, spare, count = reader.unpack(_HEAD)
    if not 1 <= rank <= MOST_RANK:
        raise reader.error(f"rank is {rank}, must be in [1, {MOST_RANK}]")
    if spare:
        raise reader.error("bytes 2 and 3 must be zero")
    if not 1 <= count <= MOST_TENSORS:
        raise reader.error(f"{count} matrices, must be 1 to {MOST_TENSORS}")
    sides = reader.array(2 * count, np.dtype("<u4"), "the matrices' sides")
    if budget.current().level > 1:  # by itself, its bytes and the least that any may cost are more
        budget.hold(_SIDES_ROOM * count)
    sizes = sides[::2].astype(np.uint64)
    sizes *= sides[1::2]  # below 2**64
    if not sides.all() or sizes.max() > dim or sizes.sum() != dim:
        raise reader.error(f"the matrices do not make up {dim} coordinates")
    return rank, (sides[::2].astype(np.int64), sides[1::2].astype(np.int64))
