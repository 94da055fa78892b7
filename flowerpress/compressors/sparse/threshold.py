"""Hard threshold: the values that are large enough, and their places."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import real
from flowerpress.compressors.kernels.packing import U8, U32, pieces
from flowerpress.compressors.wire.ids import RAW, decode_ids, encode_ids, expected_id_bits
from flowerpress.compressors.wire.packet import Buffer, Packet, PacketError
from flowerpress.compressors.wire.payload import Reader, Sparse

# The number of values, the ids' code and its parameter, two zero bytes; the threshold.
_HEAD = struct.Struct("<IBBHd")


@dataclass(frozen=True)
class Threshold(Compressor):
    """Keep the coordinates whose magnitude is at least a given number.

    The error is at most ``d threshold^2`` whatever the vector, which suits error feedback: what is
    left out piles up until it is sent (Sahu et al., "Rethinking gradient sparsification as total
    error minimization", NeurIPS 2021). It is no share of ``|x|^2``, so there is no alpha: of a
    small vector nothing is sent.

    Parameters
    ----------
    threshold : float
        The least magnitude that is kept, positive.

    Raises
    ------
    ValueError
        If the threshold is not a positive number.

    Examples
    --------
    >>> from flowerpress.compressors import decompress
    >>> decompress(Threshold(0.5).compress(np.array([0.5, -0.4, -2.0])))
    array([ 0.5,  0. , -2. ])
    """

    threshold: float

    name: ClassVar[str] = "threshold"
    codec: ClassVar[int] = 14
    reading_work: ClassVar[float] = 0.0  # that of the values
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {"threshold": real}

    def __post_init__(self) -> None:
        if not 0 < self.threshold < math.inf:
            raise ValueError(f"threshold must be a positive number, got {self.threshold!r}")

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the count, the threshold, the values in order of their places, and the places."""
        del draw
        ids: U32 = np.flatnonzero(np.abs(x) >= np.float64(self.threshold)).astype(np.uint32)
        tag, parameter, code = RAW, 0, np.empty(0, dtype=np.uint8)
        if ids.size:
            tag, parameter, code = encode_ids(ids, x.size)
        return [_HEAD.pack(ids.size, tag, parameter, 0, self.threshold), x[ids], code]

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the count, the values and the places."""
        reader = Reader(packet, cls.name)
        k, tag, parameter, threshold = _read_head(reader)
        if k > packet.dim:
            raise reader.error(f"the count is {k}, must be at most {packet.dim}")
        values = reader.finite(k, packet.dtype, "value")
        for start, stop in pieces(k):
            small = np.abs(values[start:stop]) < np.float64(threshold)
            if small.any():
                position = start + int(np.argmax(small))
                raise reader.error(f"value {position} is {values[position]}, below {threshold}")
        code: U8 = reader.take(reader.left, "ids")
        if not k and (tag, parameter, code.size) != (RAW, 0, 0):
            raise reader.error("there are ids, but no values")
        try:
            ids = decode_ids(tag, parameter, code, k, packet.dim)
        except ValueError as error:
            raise reader.error(str(error)) from error
        return Sparse(ids, values)

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``threshold`` with its number."""
        *_, threshold = _read_head(Reader(packet, cls.name))
        return cls(threshold).spec

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the bits, which are those of standard normal coordinates; nothing else holds."""
        del cohort
        k = dim * math.erfc(self.threshold / math.sqrt(2))
        places = expected_id_bits(max(1, round(k)), dim) if k else 0.0
        return Traits(False, None, None, None, 8.0 * _HEAD.size + 32 * k + places)


def _read_head(reader: Reader) -> tuple[int, int, int, float]:
    k, tag, parameter, spare, threshold = reader.unpack(_HEAD)
    if spare:
        raise reader.error(f"bytes 6 and 7 are {spare:#06x}, must be zero")
    if not 0 < threshold < math.inf:
        raise PacketError(f"threshold: the threshold is {threshold}, must be a positive number")
    return k, tag, parameter, threshold
