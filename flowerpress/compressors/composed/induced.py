"""Induced compressors: what one loses, another sends."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.composed import nesting
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.front import require_finite_values
from flowerpress.compressors.identity import Dense
from flowerpress.compressors.wire import budget, reading
from flowerpress.compressors.wire.inputs import TooLargeError
from flowerpress.compressors.wire.packet import HEADER_BYTES, Buffer, Packet
from flowerpress.compressors.wire.payload import Reader

# The length of the first packet.
_HEAD = struct.Struct("<Q")


@dataclass(frozen=True)
class Sum:
    """Two packets of one vector, read one after the other when they are wanted.

    Parameters
    ----------
    first, second : Packet
    level : int
        How many frames are around them.
    """

    first: Packet
    second: Packet
    level: int

    def vector(self) -> Vector:
        """Return the sum, in memory of one vector and of what reading one of the packets takes."""
        total = self.unchecked()
        require_finite_values(total)
        return total

    def unchecked(self) -> Vector:
        """Return the sum, which may have overflowed."""
        # A sum inside this one goes first, so that there is one sum at a time: which number is
        # added to which does not matter.
        order = [self.first, self.second]
        if self.second.header.codec == Induced.codec:
            order.reverse()
        with budget.at(self.level):
            total = self._one(order[0])
            budget.keep(total.nbytes)
            with budget.released():
                reading.decode(order[1]).add_to(total, 1.0)
        return total

    @staticmethod
    def _one(packet: Packet) -> Vector:
        with budget.released():
            return reading.vector_of(reading.decode(packet), packet.dim, packet.dtype)

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * (first + second)``, once both are known to be right.

        It takes a temporary as long as the vector.
        """
        Dense(self.vector()).add_to(out, weight)


@dataclass(frozen=True)
class Induced(Compressor):
    """Send ``C1(x) + C2(x - C1(x))``; written ``induced(topk:0.01; randk:0.01)``.

    With an unbiased C2 the sum is unbiased, whatever C1, with ``omega = omega2 (1 - alpha1)``: the
    best of a biased compressor without its bias (Horváth and Richtárik, "A better alternative to
    error feedback for communication-efficient distributed learning", ICLR 2021).

    Parameters
    ----------
    first : Compressor
        Often a contraction such as top-k; its randomness is independent of the second's.
    second : Compressor
        Sends what the first lost. If it is a contraction rather than unbiased, so is the sum, with
        ``1 - alpha = (1 - alpha1) (1 - alpha2)``.

    Examples
    --------
    >>> from flowerpress.compressors import make_compressor
    >>> make_compressor("induced(topk:k=2; randk:k=1)").traits(4).omega
    1.5
    """

    first: Compressor
    second: Compressor

    name: ClassVar[str] = "induced"
    codec: ClassVar[int] = 26
    reading_work: ClassVar[float] = 0.5  # beside that of both

    def __post_init__(self) -> None:
        nesting.require_depth(self)

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return both packets."""
        packet = self.first.compress(x, nesting.substream(draw, 1))
        lost = x.copy()
        reading.decode(packet).add_to(lost, -1.0)
        try:
            rest = self.second.compress(lost, nesting.substream(draw, 2))
        except ValueError as error:
            raise ValueError(f"{error} (x: what {self.first.spec} lost)") from None
        if not np.isfinite(Sum(packet, rest, budget.current().level).unchecked()).all():
            raise TooLargeError("the sum")
        return [_HEAD.pack(packet.nbytes), packet.data, rest.data]

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check that both packets are there; each is checked when it is read."""
        return Sum(*_take(packet), budget.current().level)

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the codes of the second packet, which comes last."""
        return reading.codes_of(_take(packet)[1])

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``induced(...; ...)`` with both specs."""
        first, second = _take(packet)
        return f"{cls.name}({reading.spec_of(first)}; {reading.spec_of(second)})"

    def bind(self, sizes: Sequence[int]) -> Compressor:
        """Bind both."""
        return Induced(self.first.bind(sizes), self.second.bind(sizes))

    def bind_shapes(self, shapes: Sequence[tuple[int, ...]]) -> Compressor:
        """Bind both."""
        return Induced(self.first.bind_shapes(shapes), self.second.bind_shapes(shapes))

    @property
    def spec(self) -> str:
        """Both specs, in parentheses."""
        return f"{self.name}({self.first.spec}; {self.second.spec})"

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants that follow from those of both."""
        first, second = self.first.traits(dim, cohort), self.second.traits(dim, cohort)
        left = _left(first)  # at most this share of |x|^2 is left for the second
        omega = alpha = ab = None
        if second.unbiased and second.omega is not None and left is not None:
            omega = second.omega * left
            if second.ab is not None and second.ab[0] <= second.omega / cohort * (1 + 1e-12):
                ab = (omega / cohort, 0.0)
        if second.alpha is not None and left is not None and left <= 1:
            alpha = 1 - left * (1 - second.alpha)
        bits = 8.0 * (_HEAD.size + 2 * HEADER_BYTES) + first.bits + second.bits
        return Traits(omega is not None, omega, alpha if alpha else None, ab, bits)


def _left(traits: Traits) -> float | None:
    """Return a bound on ``E |x - C(x)|^2 / |x|^2``."""
    bounds = [traits.omega] if traits.unbiased and traits.omega is not None else []
    bounds += [1 - traits.alpha] if traits.alpha is not None else []
    return min(bounds, default=None)


def _take(packet: Packet) -> tuple[Packet, Packet]:
    reader = Reader(packet, Induced.name)
    (size,) = reader.unpack(_HEAD)
    first = reading.inner_packet(reader.take(size, "the first packet"), packet, packet.dim)
    second = reader.take(reader.left, "the second packet")
    return first, reading.inner_packet(second, packet, packet.dim)
