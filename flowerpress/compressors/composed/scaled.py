"""An unbiased compressor, scaled down until it is a contraction."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.composed import nesting
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.wire import reading
from flowerpress.compressors.wire.packet import HEADER_BYTES, Buffer, Packet
from flowerpress.compressors.wire.payload import Reader
from flowerpress.compressors.wire.tensors import add_to_tensor

# The factor.
_HEAD = struct.Struct("<d")


@dataclass(frozen=True)
class Shrunk:
    """A packet and what it is multiplied by."""

    inner: Decoded
    factor: float

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * factor * decoded``."""
        self.inner.add_to(out, weight * self.factor)

    def add_to_tensor(self, out: Any, weight: float) -> None:
        """Do that on a tensor."""
        add_to_tensor(self.inner, out, weight * self.factor)


@dataclass(frozen=True)
class Scaled(Compressor):
    """Multiply an unbiased compressor by ``1 / (1 + omega)``; written ``scaled(randk:0.1)``.

    An unbiased C with constant omega becomes a contraction with ``alpha = 1 / (1 + omega)``, as
    error feedback needs (Beznosikov et al., "On biased compression for distributed learning",
    JMLR 2023): ``E |s C(x) - x|^2 = s^2 E |C(x) - x|^2 + (1 - s)^2 |x|^2`` is at most
    ``(omega s^2 + (1 - s)^2) |x|^2``, which is least, ``omega / (1 + omega)``, at this s.

    Parameters
    ----------
    inner : Compressor
        An unbiased compressor.

    Raises
    ------
    ValueError
        If `inner` is not unbiased, in `compress` and `traits`: it may depend on the length.

    Examples
    --------
    >>> from flowerpress.compressors import make_compressor
    >>> make_compressor("scaled(randk:k=1)").traits(4).alpha
    0.25
    """

    inner: Compressor

    name: ClassVar[str] = "scaled"
    codec: ClassVar[int] = 27
    reading_work: ClassVar[float] = 0.0  # that of what is inside

    def __post_init__(self) -> None:
        nesting.require_depth(self)

    def _factor(self, dim: int, cohort: int) -> float:
        traits = self.inner.traits(dim, cohort)
        if not traits.unbiased or traits.omega is None:
            raise ValueError(
                f"{self.spec!r}: {self.inner.spec!r} is not unbiased; "
                "scaled takes what states an omega, for example scaled(randk:0.1)"
            )
        return 1 / (1 + traits.omega)

    @property
    def encodes_tensors(self) -> bool:
        """Whether what is inside compresses tensors on their device."""
        return self.inner.encodes_tensors

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the factor and the packet inside."""
        factor = self._factor(x.size, draw.cohort)
        return [_HEAD.pack(factor), self.inner.compress(x, draw).data]

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the factor and the packet inside."""
        reader = Reader(packet, cls.name)
        (factor,) = reader.unpack(_HEAD)
        if not (math.isfinite(factor) and 0 < factor <= 1):
            raise reader.error(f"factor is {factor}, must be in (0, 1]")
        inner = reading.inner_packet(reader.take(reader.left, "packet"), packet, packet.dim)
        return Shrunk(reading.decode(inner), factor)

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the codes of the packet inside, which comes last."""
        return reading.codes_of(Packet.view(packet.payload[_HEAD.size :]))

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``scaled(...)`` with the spec inside."""
        reader = Reader(packet, cls.name)
        reader.unpack(_HEAD)
        inner = reading.spec_of(Packet.view(reader.take(reader.left, "packet").data))
        return f"{cls.name}({inner})"

    def after_rotation(self, block: int) -> Compressor:
        """Return it with what is inside for such a vector."""
        return replace(self, inner=self.inner.after_rotation(block))

    def bind(self, sizes: Sequence[int]) -> Compressor:
        """Bind what is inside."""
        return Scaled(self.inner.bind(sizes))

    def bind_shapes(self, shapes: Sequence[tuple[int, ...]]) -> Compressor:
        """Bind what is inside."""
        return Scaled(self.inner.bind_shapes(shapes))

    @property
    def spec(self) -> str:
        """The spec inside, in parentheses."""
        return f"{self.name}({self.inner.spec})"

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants: alpha is the factor."""
        factor = self._factor(dim, cohort)
        bits = 8.0 * (_HEAD.size + HEADER_BYTES) + self.inner.traits(dim, cohort).bits
        exact = factor == 1
        return Traits(exact, 0.0 if exact else None, factor, None, bits)
