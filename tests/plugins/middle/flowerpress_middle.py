"""A compressor as another package writes it: the middle of the vector's range, and nothing else."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowerpress.compressors import Compressor, PacketError, Traits

_HEAD = struct.Struct("<H")


@dataclass(frozen=True)
class Constants:
    values: np.ndarray
    size: int

    def add_to(self, out, weight):
        terms = (self.values.astype(np.float64) * weight).astype(out.dtype)
        if not np.isfinite(terms).all():
            raise PacketError(f"middle: a mean times {weight} overflows {out.dtype}")
        out += np.repeat(terms, self.size)[: out.size]


@dataclass(frozen=True)
class Middle(Compressor):
    """Send the mean of each block, exactly a projection.

    Its alpha is zero in the worst case, so none is stated.

    Parameters
    ----------
    block : int
        Coordinates that share a mean, 1 to 65535.
    """

    block: int = 4

    name: ClassVar[str] = "middle"
    codec: ClassVar[int] = 200
    parsers: ClassVar = {"block": int}

    def encode(self, x, draw):
        count = -(-x.size // self.block)
        padded = np.zeros(count * self.block, dtype=np.float64)
        padded[: x.size] = x
        sizes = np.minimum(self.block, x.size - self.block * np.arange(count))
        # Divided first: the sum of large numbers overflows, their mean does not.
        means = (padded.reshape(count, self.block) / sizes[:, None]).sum(axis=1)
        return [_HEAD.pack(self.block), means.astype(x.dtype)]

    @classmethod
    def decode(cls, packet):
        if len(packet.payload) < _HEAD.size:
            raise PacketError("middle: no header")
        (block,) = _HEAD.unpack_from(packet.payload)
        size = packet.dtype.itemsize
        if not block or len(packet.payload) != _HEAD.size + size * -(-packet.dim // block):
            raise PacketError(f"middle: {len(packet.payload)} bytes for blocks of {block}")
        means = np.frombuffer(packet.payload[_HEAD.size :], dtype=packet.dtype)
        if not np.isfinite(means).all():
            raise PacketError("middle: a mean is not finite")
        return Constants(means, block)

    @classmethod
    def spec_of(cls, packet):
        if len(packet.payload) < _HEAD.size:
            raise PacketError("middle: no header")
        return cls(*_HEAD.unpack_from(packet.payload)).spec

    def traits(self, dim, cohort=1):
        return Traits(False, None, None, None, 8.0 * _HEAD.size + 32 * -(-dim // self.block))
