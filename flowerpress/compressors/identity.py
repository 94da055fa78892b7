"""The dense vector as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from flowerpress.compressors.base import Compressor, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.kernels.packing import pieces
from flowerpress.compressors.kernels.paging import sweep
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, require_weighted, weighted


@dataclass(frozen=True)
class Dense:
    """All values, in order."""

    values: Vector
    at_hand: ClassVar[bool] = True

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * values``, in pieces that stay in the cache."""
        require_weighted(self.values, weight, out.dtype)
        for first, last in sweep(self.values):
            values, sums = self.values[first:last], out[first:last]
            for start, stop in pieces(values.size):
                sums[start:stop] += weighted(values[start:stop], weight, out.dtype)


@dataclass(frozen=True)
class Identity(Compressor):
    """Send every value. ``C(x) = x``, with omega = 0 and alpha = 1.

    Examples
    --------
    >>> import numpy as np
    >>> Identity().compress(np.array([1.0, -2.0], dtype=np.float32)).payload.hex()
    '0000803f000000c0'
    """

    name: ClassVar[str] = "identity"
    codec: ClassVar[int] = 1

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the values."""
        del draw
        return [x]

    @classmethod
    def decode(cls, packet: Packet) -> Dense:
        """Check that every value is there and finite."""
        reader = Reader(packet, cls.name)
        values = reader.finite(packet.dim, packet.dtype, "value")
        reader.done()
        return Dense(values)

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``identity``."""
        del packet
        return cls.name

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants: no error."""
        del cohort
        return Traits(unbiased=True, omega=0.0, alpha=1.0, ab=(0.0, 0.0), bits=32.0 * dim)
