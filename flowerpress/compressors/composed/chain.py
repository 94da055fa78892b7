"""Composition: ``a+b`` compresses with b the values that a leaves."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.composed import nesting
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.front import Expander, Front
from flowerpress.compressors.identity import Dense
from flowerpress.compressors.kernels.packing import U8
from flowerpress.compressors.quantized.cq import CQ
from flowerpress.compressors.sparse.permk import PermK
from flowerpress.compressors.wire import budget, reading
from flowerpress.compressors.wire.codecs import codec
from flowerpress.compressors.wire.packet import HEADER_BYTES, Buffer, Packet, total_bytes
from flowerpress.compressors.wire.payload import Reader
from flowerpress.compressors.wire.tensors import add_to_tensor

# The front's codec, three zero bytes, the length of its header.
_HEAD = struct.Struct("<B3sI")


@dataclass(frozen=True)
class Expanded:
    """A packet of values, and what turns the values into a vector."""

    inner: Decoded
    expander: Expander
    dtype: np.dtype[np.floating]

    dim: int

    def expanded(self) -> Decoded:
        """Return the vector of the values, with one temporary of as many values."""
        with budget.released():
            values = reading.vector_of(self.inner, self.expander.size, self.dtype)
        budget.keep(values.nbytes)
        return self.expander.expand(values)

    @property
    def norm(self) -> float | None:
        """The norm of the vector that was compressed, where an orthogonal map kept it."""
        kept = getattr(self.expander, "keeps_norm", False)
        return reading.norm_of(self.inner) if kept else None

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * expand(values)``."""
        self.expanded().add_to(out, weight)

    def add_to_tensor(self, out: Any, weight: float) -> None:
        """Do that on a tensor."""
        add_to_tensor(self.expanded(), out, weight)

    def vector(self) -> Vector:
        """Return ``expand(values)``."""
        decoded = self.expanded()
        if isinstance(decoded, Dense):  # a rotation's own: as if added to zeros
            decoded.values[:] += decoded.values.dtype.type(0)
            return decoded.values
        return reading.vector_of(decoded, self.dim, self.dtype)


@dataclass(frozen=True)
class Chain(Compressor):
    """Compress with `rest` the values that `front` leaves; written ``front+rest``.

    Parameters
    ----------
    front : Front
        What comes first: a choice of coordinates or a rotation.
    rest : Compressor
        What compresses the values; it may be a chain again.

    Raises
    ------
    ValueError
        If `front` does not leave values for another, the chain is too long, or `permk` is followed
        by correlated `cq`: that is no composition of the papers, whose errors cancel.

    Notes
    -----
    With P the front and Q the rest, and their errors independent:

    - P an orthogonal projection with alpha, Q with alpha': the errors of P and Q are orthogonal, so
      ``|x - Q(Px)|^2 <= |x|^2 - alpha' |Px|^2 <= (1 - alpha alpha') |x|^2``. An unbiased Q with
      omega' < 1 counts as alpha' = 1 - omega'.
    - both unbiased: ``omega + omega' (1 + omega)``, and ``A + omega' (1 + omega) / n`` for n
      senders whose errors of Q do not add up (Szlendak et al., "Permutation compressors for
      provably faster distributed nonconvex optimization", ICLR 2022, for the constants A and B).
    - P one orthogonal map for all senders: the constants of Q.

    Examples
    --------
    >>> from flowerpress.compressors import decompress, make_compressor
    >>> chain = make_compressor("topk:k=2+sign")
    >>> chain
    Chain(front=TopK(ratio=None, k=2), rest=Sign(scale='l1', block=0, sizes=()))
    >>> decompress(chain.compress(np.array([0.1, -3.0, 0.0, 2.0], dtype=np.float32)))
    array([ 0. , -2.5,  0. ,  2.5], dtype=float32)
    """

    front: Front
    rest: Compressor

    name: ClassVar[str] = "+"
    codec: ClassVar[int] = 25
    reading_work: ClassVar[float] = 0.0  # that of its parts

    def __post_init__(self) -> None:
        if not isinstance(self.front, Front):
            raise ValueError(f"{self.front.spec!r} leaves no values for what follows the '+'")
        if isinstance(self.front, PermK) and _correlates(self.rest):
            raise ValueError(
                f"{self.spec}: with permk each coordinate has one sender, so cq has nothing to "
                "correlate; write permk, cq, or permk+cq:rounding=independent"
            )
        if self.front.mixed:
            object.__setattr__(self, "rest", self.rest.after_rotation(self.front.mixed))
        nesting.require_depth(self)

    @property
    def encodes_tensors(self) -> bool:
        """Whether the front chooses from tensors on their device."""
        return self.front.encodes_tensors

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the front's header and the packet of the values."""
        header, values = self.front.split(x, draw)
        try:
            packet = self.rest.compress(values, nesting.substream(draw, 1))
        except ValueError as error:  # whose positions are those of the values
            raise ValueError(f"{error} (x: the values that {self.front.spec} leaves)") from None
        return [_HEAD.pack(self.front.codec, bytes(3), total_bytes(header)), *header, packet.data]

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the header and the packet inside."""
        expander, inner = cls._parts(packet)
        return Expanded(reading.decode(inner), expander, packet.dtype, packet.dim)

    @classmethod
    def glance(cls, packet: Packet) -> Decoded:
        """Check the same, but for places in either."""
        expander, inner = cls._parts(packet, glance=True)
        decoded = reading.decode(inner, glance=True)
        return Expanded(decoded, expander, packet.dtype, packet.dim)

    @classmethod
    def _parts(cls, packet: Packet, *, glance: bool = False) -> tuple[Expander, Packet]:
        front, header, rest = _take(packet)
        read = front.expander_at_a_glance if glance else front.expander
        expander = read(header, packet.dim)
        return expander, reading.inner_packet(rest, packet, expander.size)

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the codes of the packet inside, which comes last."""
        return reading.codes_of(cls._parts(packet)[1])

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return both specs, with a ``+`` between."""
        front, header, rest = _take(packet)
        return f"{front.spec_of_header(header)}+{reading.spec_of(Packet.view(rest.data))}"

    def bind(self, sizes: Sequence[int]) -> Compressor:
        """Bind the front; what follows sees no tensors."""
        return Chain(cast(Front, self.front.bind(sizes)), self.rest)

    def bind_shapes(self, shapes: Sequence[tuple[int, ...]]) -> Compressor:
        """Bind the front; what follows sees no tensors."""
        return Chain(cast(Front, self.front.bind_shapes(shapes)), self.rest)

    @property
    def spec(self) -> str:
        """Both specs, with a ``+`` between."""
        return f"{self.front.spec}+{self.rest.spec}"

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants that follow from those of the parts; see the class."""
        first = self.front.traits(dim, cohort)
        then = self.rest.traits(self.front.length(dim, cohort), cohort)
        omega = None
        if first.unbiased and then.unbiased and first.omega is not None and then.omega is not None:
            omega = first.omega + then.omega * (1 + first.omega)
        bits = 8.0 * (_HEAD.size + HEADER_BYTES) + self.front.header_bits(dim) + then.bits
        ab = self._cohort_constants(first, then, cohort)
        return Traits(omega is not None, omega, _contraction(first, then), ab, bits)

    def homogeneous(self, dim: int, cohort: int) -> float | None:
        """Return the constant of the rest, after one orthogonal map for all senders."""
        if not self.front.shared_map:
            return None
        return self.rest.homogeneous(self.front.length(dim, cohort), cohort)

    def _cohort_constants(
        self, first: Traits, then: Traits, cohort: int
    ) -> tuple[float, float] | None:
        if self.front.shared_map:
            return then.ab
        if first.ab is None or then.ab is None or first.omega is None or then.omega is None:
            return None
        # At most omega / n: the errors of different senders do not add up.
        if then.ab[0] > then.omega / cohort * (1 + 1e-12):
            return None
        return first.ab[0] + then.omega * (1 + first.omega) / cohort, first.ab[1]


def _correlates(rest: Compressor) -> bool:
    return any(isinstance(part, CQ) and part.correlates for part in nesting.parts(rest))


def _contraction(first: Traits, then: Traits) -> float | None:
    """Return the alpha of a projection followed by something, if there is one."""
    alpha = then.alpha or 0.0
    if then.omega is not None:
        alpha = max(alpha, 1 - then.omega)
    product = (first.alpha or 0.0) * alpha
    return product if product > 0 else None


def _take(packet: Packet) -> tuple[type[Front], Reader, U8]:
    """Return the front's class, a reader of its header, and the bytes of the packet inside."""
    reader = Reader(packet, "chain")
    number, spare, size = reader.unpack(_HEAD)
    if spare != bytes(3):
        raise reader.error("bytes 1 to 3 must be zero")
    front = codec(number)
    budget.check(number)
    if not issubclass(front, Front):
        raise reader.error(f"codec {number} ({front.name}) leaves no values for another")
    header = Reader.over(reader.take(size, "the front's header"), front.name)
    return front, header, reader.take(reader.left, "the packet inside")
