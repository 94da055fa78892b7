"""Top-k: the largest values and their places."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Decoded, Traits, Vector, refuse_nonfinite
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import kept, real, require_share, whole
from flowerpress.compressors.front import Expander, Front, Places, Unread
from flowerpress.compressors.identity import Dense
from flowerpress.compressors.kernels import kernels_of
from flowerpress.compressors.kernels.packing import U32
from flowerpress.compressors.wire.ids import decode_ids, encode_ids, expected_id_bits
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, Sparse

# k, the ids' code and its parameter, two zero bytes.
_HEAD = struct.Struct("<IBBH")


@dataclass(frozen=True)
class TopK(Front):
    """Keep the k coordinates of largest magnitude, exactly; ties go to the lowest place.

    Contractive with ``alpha = k / d`` (Stich et al., "Sparsified SGD with memory", NeurIPS 2018).

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
    >>> import numpy as np
    >>> packet = TopK(k=1).compress(np.array([1.0, -2.0, 2.0], dtype=np.float32))
    >>> packet.payload.hex(" ", -4)
    '01000000 01000000 000000c0 02'
    """

    ratio: float | None = None
    k: int | None = None

    name: ClassVar[str] = "topk"
    codec: ClassVar[int] = 2
    reading_work: ClassVar[float] = 0.0  # that of the values
    finds_nonfinite: ClassVar[bool] = True
    torch_kernels: ClassVar[bool] = True
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {"ratio": real, "k": whole}

    def __post_init__(self) -> None:
        require_share(self.ratio, self.k, f"{self.name}:k=")

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return k, the values in order of their places, and the places."""
        (head, code), values = self.split(x, draw)
        return [head, values, code]

    def split(self, x: Vector, draw: Draw) -> tuple[Sequence[Buffer], Vector]:
        """Return k and the places, and the values."""
        del draw
        ids = kernels_of(x).top_ids(x, self.length(x.size))
        tag, parameter, code = encode_ids(ids, x.size)
        values = x[ids]
        if not np.isfinite(values).all():  # NaN and infinity are kept first
            refuse_nonfinite(x)
        return [_HEAD.pack(ids.size, tag, parameter, 0), code], values

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check k, the values and the places."""
        reader, k, tag, parameter, values = _read_values(packet, cls.name)
        return Sparse(_read_ids(reader, tag, parameter, k, packet.dim), values)

    @classmethod
    def glance(cls, packet: Packet) -> Decoded:
        """Check k and the values; the places take most of the time."""
        *_, values = _read_values(packet, cls.name)
        return Dense(values)

    @classmethod
    def expander(cls, header: Reader, dim: int) -> Expander:
        """Check k and the places."""
        k, tag, parameter = _read_head(header, dim)
        return Places(_read_ids(header, tag, parameter, k, dim))

    @classmethod
    def expander_at_a_glance(cls, header: Reader, dim: int) -> Expander:
        """Check k."""
        k, tag, parameter = _read_head(header, dim)
        return Unread(k, lambda: _read_ids(header, tag, parameter, k, dim))

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``topk:k=...``."""
        return cls.spec_of_header(Reader(packet, cls.name))

    @classmethod
    def spec_of_header(cls, header: Reader) -> str:
        """Return ``topk:k=...``."""
        (k, *_) = header.unpack(_HEAD)
        return f"{cls.name}:k={k}"

    def length(self, dim: int, cohort: int = 1) -> int:
        """Return k."""
        return kept(self.ratio, self.k, dim)

    def header_bits(self, dim: int) -> float:
        """Return the bits of k and of places that are spread evenly."""
        return 8.0 * _HEAD.size + expected_id_bits(self.length(dim), dim)

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants; the bits of the places assume that they are spread evenly."""
        del cohort
        k = self.length(dim)
        bits = self.header_bits(dim) + 32 * k
        return Traits(k == dim, 0.0 if k == dim else None, k / dim, None, bits)


def _read_values(packet: Packet, name: str) -> tuple[Reader, int, int, int, Vector]:
    """Return what comes before the places, and a reader of these."""
    reader = Reader(packet, name)
    k, tag, parameter = _read_head(reader, packet.dim)
    return reader, k, tag, parameter, reader.finite(k, packet.dtype, "value")


def _read_head(reader: Reader, dim: int) -> tuple[int, int, int]:
    k, tag, parameter, spare = reader.unpack(_HEAD)
    if not 1 <= k <= dim:
        raise reader.error(f"k is {k}, must be in [1, {dim}]")
    if spare:
        raise reader.error(f"bytes 6 and 7 are {spare:#06x}, must be zero")
    return k, tag, parameter


def _read_ids(reader: Reader, tag: int, parameter: int, k: int, dim: int) -> U32:
    try:
        return decode_ids(tag, parameter, reader.rest(), k, dim)
    except ValueError as error:
        raise reader.error(str(error)) from error
