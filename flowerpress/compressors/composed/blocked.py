"""A vector cut into blocks, each compressed as a vector of its own."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors import vectors
from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.composed import nesting
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.identity import Dense
from flowerpress.compressors.wire import budget, reading
from flowerpress.compressors.wire.inputs import too_large
from flowerpress.compressors.wire.packet import (
    HEADER_BYTES,
    MAX_DIM,
    Buffer,
    Packet,
    PacketError,
)
from flowerpress.compressors.wire.payload import Reader, Sparse, require_weighted
from flowerpress.compressors.wire.tensors import add_to_tensor

_LONG = 10_000  # coordinates of a block that pay for its frame
# The length of a block.
_HEAD = struct.Struct("<I")


@dataclass(frozen=True)
class Blocks:
    """The decoded blocks of a vector, in order.

    Parameters
    ----------
    size, dim : int
        Length of a block, of which the last may be shorter, and of the vector.
    dtype : numpy.dtype
    parts : list of Decoded
    """

    size: int
    dim: int
    dtype: np.dtype[np.floating]
    parts: Sequence[Decoded]

    def __iter__(self) -> Iterator[tuple[slice, Decoded]]:
        """Yield where each block is, and what is there."""
        return zip(_blocks(self.dim, self.size), self.parts, strict=True)

    def vector(self) -> Vector:
        """Return the vector."""
        budget.hold(self.dim * self.dtype.itemsize)
        out: Vector = np.zeros(self.dim, self.dtype)
        for place, part in self:
            part.add_to(out[place], 1.0)
        return out

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * decoded``, block by block, once it is known that none overflows."""
        self._check(weight, out.dtype)
        for place, part in self:
            part.add_to(out[place], weight)

    def add_to_tensor(self, out: Any, weight: float) -> None:
        """Do that on a tensor."""
        self._check(weight, vectors.dtype_of(out))
        for place, part in self:
            add_to_tensor(part, out[place], weight)

    def _check(self, weight: float, dtype: np.dtype[Any]) -> None:
        """Raise `PacketError` where a number of a block overflows."""
        for place, part in self:
            if len(self.parts) == 1:
                break
            if isinstance(part, Dense | Sparse):
                require_weighted(part.values, weight, dtype)
            else:
                part.add_to(np.zeros(place.stop - place.start, dtype), weight)


@dataclass(frozen=True)
class Blocked(Compressor):
    """Compress each block of neighbouring coordinates by itself; written ``blocked(topk:0.01, N)``.

    A block is N coordinates, the last one what is left. It takes no memory but that of a block,
    however long the vector. It is another operator than the same compressor of the whole: top-k
    takes the largest of each block, not of all. Each block has randomness of its own.

    Parameters
    ----------
    inner : Compressor
        One that does not go by a model's tensors.
    size : int
        N, at least 1; of short blocks a receiver refuses many: from some 10,000 on it takes any
        number.

    Examples
    --------
    >>> from flowerpress.compressors import decompress, make_compressor
    >>> x = np.array([9.0, 8.0, 1.0, 2.0, 0.5], dtype=np.float32)
    >>> decompress(make_compressor("blocked(topk:k=1, 2)").compress(x))
    array([9. , 0. , 0. , 2. , 0.5], dtype=float32)
    """

    inner: Compressor
    size: int

    name: ClassVar[str] = "blocked"
    codec: ClassVar[int] = 30
    reading_work: ClassVar[float] = 0.5  # beside that of what is inside

    def __post_init__(self) -> None:
        nesting.require_depth(self)
        if not 1 <= self.size <= MAX_DIM:
            raise ValueError(f"size must be in [1, 2**32), not {self.size}")

    @property
    def encodes_tensors(self) -> bool:
        """Blocks are cut on the host."""
        return False

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the length of a block, and the blocks' packets."""
        self._require_readable(x)
        frames: list[Buffer] = [_HEAD.pack(self.size)]
        for i, place in enumerate(_blocks(x.size, self.size)):
            part = nesting.substream(draw, i)
            try:
                frames.append(self.inner.compress(x[place], part).data)
            except ValueError as error:
                raise ValueError(f"{error} (x: from x[{place.start}] on)") from None
        return frames

    def _require_readable(self, x: Vector) -> None:
        """Raise ValueError where it is known before anything is made that nobody would read it."""
        frames = 1 + math.ceil(x.size / self.size) * nesting.frames(self.inner)
        width = x.dtype.itemsize
        if budget.affords(frames, x.size, width):
            return
        size = self.traits(x.size).bits / 8 * width / 4  # stated for float32
        if not budget.affords(frames, x.size, width, 2 * size):  # twice what is expected
            raise self._unread(budget.TOO_MUCH_WORK)

    def _unread(self, why: object) -> ValueError:
        said = f"compress: nobody reads what {self.spec!r} sends: {why}"
        if str(why) == budget.TOO_MUCH_WORK:
            said += f"; make its blocks larger, of some {_LONG * nesting.frames(self.inner):,}"
        return ValueError(said)

    def _try(self, packet: Packet, x: Vector, extreme: bool) -> None:
        """Raise ValueError unless a receiver would decode what was made of `x`.

        Each block was tried by itself: what is left to try takes no vector.
        """
        try:
            with budget.of(packet):
                decoded = reading.decode(packet)
                if extreme:
                    decoded.add_to(np.zeros(x.size, x.dtype), 1.0)
        except PacketError as error:
            if extreme:
                raise too_large("what is decoded", x) from None
            raise self._unread(error) from None

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check every block."""
        size, frames = _take(packet)
        parts, kind = [], None
        for frame in frames:
            if kind not in (None, frame.header.codec):
                raise PacketError(f"{cls.name}: blocks of codecs {kind} and {frame.header.codec}")
            kind = frame.header.codec
            with budget.frames_again():
                parts.append(reading.decode(frame))
        return Blocks(size, packet.dim, packet.dtype, parts)

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``blocked(..., N)`` with the spec of the first block."""
        size, frames = _take(packet)
        return f"{cls.name}({reading.spec_of(next(frames))}, {size})"

    def bind(self, sizes: Sequence[int]) -> Compressor:
        """Return this; `ValueError` where what is inside would go by tensors of these sizes."""
        return self._same(self.inner.bind(sizes))

    def bind_shapes(self, shapes: Sequence[tuple[int, ...]]) -> Compressor:
        """Return this; `ValueError` where what is inside would go by tensors of these shapes."""
        return self._same(self.inner.bind_shapes(shapes))

    def _same(self, bound: Compressor) -> Compressor:
        if bound != self.inner:
            raise ValueError(
                f"{self.spec!r}: {self.inner.spec!r} goes by the model's tensors, which blocks cut"
            )
        return self

    @property
    def spec(self) -> str:
        """The spec inside and the length of a block, in parentheses."""
        return f"{self.name}({self.inner.spec}, {self.size})"

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants: those of the worst block, which hold for the sum of all."""
        counts = _counts(dim, self.size)
        each = {length: self.inner.traits(length, cohort) for length in counts}
        found = each.values()
        omegas, alphas = [t.omega for t in found], [t.alpha for t in found]
        pairs = [t.ab for t in found]
        head = 8.0 * HEADER_BYTES
        return Traits(
            all(t.unbiased for t in found),
            None if None in omegas else max(o for o in omegas if o is not None),
            None if None in alphas else min(a for a in alphas if a is not None),
            None if None in pairs else _worst([pair for pair in pairs if pair is not None]),
            8.0 * _HEAD.size + sum(n * (head + each[length].bits) for length, n in counts.items()),
        )

    def homogeneous(self, dim: int, cohort: int) -> float | None:
        """Return the worst block's, where each states one."""
        stated = [self.inner.homogeneous(length, cohort) for length in _counts(dim, self.size)]
        return None if None in stated else max(each for each in stated if each is not None)


def _worst(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return max(a for a, _ in pairs), min(b for _, b in pairs)


def _blocks(dim: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, dim)) for start in range(0, dim, size))


def _counts(dim: int, size: int) -> dict[int, int]:
    """Return how many blocks there are of each length.

    >>> _counts(10, 4), _counts(8, 4), _counts(3, 4)
    ({4: 2, 2: 1}, {4: 2}, {3: 1})
    """
    whole, rest = divmod(dim, size)
    counts = {size: whole} if whole else {}
    return {**counts, rest: 1} if rest else counts


def _take(packet: Packet) -> tuple[int, Iterator[Packet]]:
    """Return the length of a block, and the blocks' packets, each checked when it is met."""
    reader = Reader(packet, Blocked.name)
    (size,) = reader.unpack(_HEAD)
    count = math.ceil(packet.dim / size) if size else 0
    if not size:
        raise reader.error("blocks of no coordinates")
    if reader.left < count * HEADER_BYTES:
        raise reader.error(f"{reader.left} bytes are no {count} packets")

    def frames() -> Iterator[Packet]:
        for place in _blocks(packet.dim, size):
            length = reader.frame_length("a block")
            data = reader.take(length, "a block")
            yield reading.inner_packet(data, packet, place.stop - place.start)
        reader.done()

    return size, frames()
