"""Signs of the largest values: places, one bit for each, and one scale."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import kept, real, require_share, whole
from flowerpress.compressors.kernels import kernels
from flowerpress.compressors.kernels.packing import packed_bytes
from flowerpress.compressors.quantized import blocks
from flowerpress.compressors.quantized.sign import Signs
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.ids import decode_ids, encode_ids, expected_id_bits
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, Sparse

# k, the ids' code and its parameter, two zero bytes.
_HEAD = struct.Struct("<IBBH")


@dataclass(frozen=True)
class SignTopK(Compressor):
    """Keep the signs of the k coordinates of largest magnitude, and the mean of their magnitudes.

    ``|C(x) - x|^2 = |x|^2 - |T|_1^2 / k`` with T the kept values, so ``alpha = min(1 / k, k / d)``,
    reached by one-hot vectors and by those of equal magnitudes (Basu et al., "Qsparse-local-SGD",
    NeurIPS 2019; Singh et al., "SQuARM-SGD", JSAIT 2021). Ties go to the lowest place.

    Parameters
    ----------
    ratio : float, optional
        The share of coordinates that is kept, in (0, 1]; rounded to the nearest count, at least 1.
    k : int, optional
        The count, at least 1; more than d keeps all. Exactly one of `ratio` and `k` is given.

    Raises
    ------
    ValueError
        If neither or both are given, or one is out of range.

    Examples
    --------
    >>> packet = SignTopK(k=2).compress(np.array([1.0, -2.0, 0.0, 4.0], dtype=np.float32))
    >>> packet.payload.hex(" ", -4)
    '02000000 01000000 00004040 020a'
    """

    ratio: float | None = None
    k: int | None = None

    name: ClassVar[str] = "signtopk"
    codec: ClassVar[int] = 11
    reading_work: ClassVar[float] = 0.0  # that of the values
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {"ratio": real, "k": whole}

    def __post_init__(self) -> None:
        require_share(self.ratio, self.k, f"{self.name}:k=")

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return k, the scale, the signs in order of their places, and the places."""
        del draw
        ids = kernels().top_ids(x, kept(self.ratio, self.k, x.size))
        values = x[ids]
        scale = blocks.mean_magnitudes(values, blocks.equal_blocks(values.size, 0))
        tag, parameter, code = encode_ids(ids, x.size)
        head = _HEAD.pack(ids.size, tag, parameter, 0)
        return [head, scale, kernels().sign_pack(values), code]

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check k, the scale, the signs and the places."""
        reader = Reader(packet, cls.name)
        k, tag, parameter, spare = reader.unpack(_HEAD)
        if not 1 <= k <= packet.dim:
            raise reader.error(f"k is {k}, must be in [1, {packet.dim}]")
        if spare:
            raise reader.error(f"bytes 6 and 7 are {spare:#06x}, must be zero")
        (scale,) = reader.scales(1, packet.dtype, "scale")
        packed = reader.codes(k, 1)
        try:
            ids = decode_ids(tag, parameter, reader.take(reader.left, "ids"), k, packet.dim)
        except ValueError as error:
            raise reader.error(str(error)) from error
        budget.hold(k * packet.dtype.itemsize)
        values: Vector = np.zeros(k, packet.dtype)
        Signs(packed, np.array([scale]), blocks.Blocks(k)).add_to(values, 1.0)
        return Sparse(ids, values)

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``signtopk:k=...``."""
        (k, *_) = Reader(packet, cls.name).unpack(_HEAD)
        return f"{cls.name}:k={k}"

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants; the bits of the places assume that they are spread evenly."""
        del cohort
        k = kept(self.ratio, self.k, dim)
        bits = 8.0 * (_HEAD.size + packed_bytes(k, 1)) + 32 + expected_id_bits(k, dim)
        return Traits(False, None, min(1 / k, k / dim), None, bits)
