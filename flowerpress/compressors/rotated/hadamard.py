"""A random rotation that all senders share."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from flowerpress.compressors.base import Decoded, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.front import Expander, Front
from flowerpress.compressors.rotated.rotation import BLOCK, Rotation
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, require_finite

_SIGNS = 40  # purpose of the key

# Two words of the key.
_HEAD = struct.Struct("<II")


@dataclass(frozen=True)
class Hadamard(Front):
    """Rotate at random, the same way for all senders of a round; for use before ``+``.

    A rotation spreads a few large values over all coordinates, so that what follows, ``sign`` or a
    quantizer with one scale, loses less (Suresh et al., "Distributed mean estimation with limited
    communication", ICML 2017). Blocks of 8192 coordinates are multiplied by random signs and a
    Hadamard matrix (Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform", SIAM J.
    Comput. 2009); a last block ends with the vector and overlaps the one before. Nothing is padded
    and norms are kept, so the constants of ``hadamard+c`` are those of ``c``.

    A vector whose values already have equal magnitudes may become worse by a rotation.

    Examples
    --------
    >>> import numpy as np
    >>> from flowerpress.compressors import decompress, make_compressor
    >>> x = np.array([8.0, 0.0, 0.0, 0.0], dtype=np.float32)
    >>> decompress(make_compressor("sign").compress(x))
    array([2., 2., 2., 2.], dtype=float32)
    >>> decompress(make_compressor("hadamard+sign").compress(x))
    array([8., 0., 0., 0.], dtype=float32)
    """

    name: ClassVar[str] = "hadamard"
    codec: ClassVar[int] = 20
    shared_map: ClassVar[bool] = True
    mixed: ClassVar[int] = BLOCK

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the key and the rotated values."""
        header, values = self.split(x, draw)
        return [*header, values]

    def split(self, x: Vector, draw: Draw) -> tuple[Sequence[Buffer], Vector]:
        """Return the key, and the rotated values."""
        key = draw.shared_key(_SIGNS)
        values = Rotation(key, x.size).apply(x)
        require_finite(values, "the rotated value")
        return [_HEAD.pack(*key)], values

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check that every value is there, and turn them back."""
        reader = Reader(packet, cls.name)
        rotation = Rotation(reader.unpack(_HEAD), packet.dim)
        values = reader.finite(packet.dim, packet.dtype, "value")
        reader.done()
        budget.keep(values.nbytes)
        return rotation.expand(values)

    @classmethod
    def expander(cls, header: Reader, dim: int) -> Expander:
        """Read the key."""
        rotation = Rotation(header.unpack(_HEAD), dim)
        header.done()
        return rotation

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``hadamard``."""
        return cls.spec_of_header(Reader(packet, cls.name))

    @classmethod
    def spec_of_header(cls, header: Reader) -> str:
        """Return ``hadamard``."""
        header.unpack(_HEAD)
        return cls.name

    def length(self, dim: int, cohort: int = 1) -> int:
        """Return `dim`."""
        return dim

    def header_bits(self, dim: int) -> float:
        """Return the bits of the key."""
        return 8.0 * _HEAD.size

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants: no error but rounding."""
        return Traits(True, 0.0, 1.0, (0.0, 0.0), self.header_bits(dim) + 32 * dim)
