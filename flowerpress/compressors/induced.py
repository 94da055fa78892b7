"""Induced compressors: what one loses, another sends."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowerpress.compressors import nesting
from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.front import require_finite_values
from flowerpress.compressors.identity import Dense
from flowerpress.compressors.packet import HEADER_BYTES, Buffer, Packet
from flowerpress.compressors.payload import Reader

# The length of the first packet.
_HEAD = struct.Struct("<Q")


@dataclass(frozen=True)
class Sum:
    """Two packets of one vector."""

    first: Decoded
    second: Decoded
    dim: int
    dtype: np.dtype[np.floating]

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * (first + second)``, with a temporary as long as the vector."""
        # Either could be right and the other not: `out` is touched only once both are known to be.
        total: Vector = np.zeros(self.dim, dtype=self.dtype)
        self.first.add_to(total, 1.0)
        self.second.add_to(total, 1.0)
        require_finite_values(total)
        Dense(total).add_to(out, weight)


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

    def __post_init__(self) -> None:
        nesting.require_depth(self)

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return both packets."""
        packet = self.first.compress(x, nesting.substream(draw, 1))
        lost = x.copy()
        with np.errstate(over="ignore", under="ignore"):
            nesting.decode(packet).add_to(lost, -1.0)
        rest = self.second.compress(lost, nesting.substream(draw, 2))
        self._require_a_finite_sum(packet, rest)
        return [_HEAD.pack(packet.nbytes), packet.data, rest.data]

    @staticmethod
    def _require_a_finite_sum(packet: Packet, rest: Packet) -> None:
        total: Vector = np.zeros(packet.dim, dtype=packet.dtype)
        with np.errstate(over="ignore", under="ignore"):
            nesting.decode(packet).add_to(total, 1.0)
            nesting.decode(rest).add_to(total, 1.0)
        if not np.isfinite(total).all():
            raise ValueError(f"compress: the sum overflows {total.dtype}; scale the vector down")

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check both packets."""
        first, second = _take(packet)
        return Sum(nesting.decode(first), nesting.decode(second), packet.dim, packet.dtype)

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the codes of the second packet, which comes last."""
        return nesting.codes_of(_take(packet)[1])

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``induced(...; ...)`` with both specs."""
        first, second = _take(packet)
        return f"{cls.name}({nesting.spec_of(first)}; {nesting.spec_of(second)})"

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
    first = nesting.inner_packet(reader.take(size, "the first packet"), packet, packet.dim)
    second = reader.take(reader.left, "the second packet")
    return first, nesting.inner_packet(second, packet, packet.dim)
