"""One step of gossip at one node, as a relay sends it.

Node i keeps t, the weighted sum of its neighbours' public copies: t = sum over its neighbours j of
w_ij xhat_j. A `Mix` brings what the neighbours have made public in one synchronisation, packets
with a weight each, and the node then moves:

    t += sum of weight * decompress(packet)         (or t = that sum, if `whole`)
    x += gamma (t - own xhat_i),                    own = sum over its neighbours j of w_ij

A relay that forwards sends one packet a neighbour; one that mixes sends their sum as one packet of
weight 1. The sum is made first and in the same order wherever it is made, so nodes end up with the
same numbers to the bit.

======  ===================================================================================
offset  content (little-endian)
======  ===================================================================================
0       u8: 1 if `whole`, else 0; u8 and u16: zero
4       u32: number of packets, n
8       f64: own
16      n times: f64 weight, u64 length of the packet
16+16n  the packets, one after the other, nothing after them
======  ===================================================================================
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import add_to
from flowerpress.protocol.blob import ProtocolError
from flowerpress.protocol.model_part import ModelPart, mark_of

FloatVector = npt.NDArray[np.floating[Any]]
_HEAD, _PART = struct.Struct("<BBHId"), struct.Struct("<dQ")


@dataclass(frozen=True)
class Mix:
    """What one synchronisation does to one node.

    Attributes
    ----------
    own : float
        Sum of the weights of the node's edges.
    weights : tuple of float
        What each packet counts for.
    packets : tuple of bytes
        What became public, in order of the senders' ids.
    whole : bool
        The packets make up all of t, as after a change of neighbours, and not what is new.

    Examples
    --------
    >>> Mix(0.5, (0.25,), (b"abc",)).encode().hex(" ", -8)
    '0000000001000000 000000000000e03f 000000000000d03f 0300000000000000 616263'
    """

    own: float
    weights: tuple[float, ...] = ()
    packets: tuple[bytes, ...] = ()
    whole: bool = False

    def encode(self) -> bytes:
        """Return the bytes."""
        head = _HEAD.pack(self.whole, 0, 0, len(self.packets), self.own)
        pairs = zip(self.weights, self.packets, strict=True)
        parts = [_PART.pack(weight, len(packet)) for weight, packet in pairs]
        return b"".join([head, *parts, *self.packets])

    @classmethod
    def decode(cls, data: bytes) -> Mix:
        """Read what `encode` wrote; raises `ProtocolError` where it is anything else."""
        if len(data) < _HEAD.size:
            raise ProtocolError(f"a mix takes at least {_HEAD.size} bytes, got {len(data)}")
        whole, spare, more, count, own = _HEAD.unpack_from(data)
        at = _HEAD.size + count * _PART.size
        if whole > 1 or spare or more or at > len(data):
            raise ProtocolError(f"head of a mix is {data[: _HEAD.size].hex()}, {len(data)} bytes")
        parts = [_PART.unpack_from(data, _HEAD.size + i * _PART.size) for i in range(count)]
        if not all(math.isfinite(number) for number in (own, *(weight for weight, _ in parts))):
            raise ProtocolError("a mix has a weight that is not finite")
        packets = []
        for _, length in parts:
            packets.append(data[at : at + length])
            at += length
        if at != len(data):
            raise ProtocolError(f"packets of a mix end at byte {at} of {len(data)}")
        return cls(own, tuple(weight for weight, _ in parts), tuple(packets), bool(whole))

    def total(self, like: FloatVector) -> FloatVector:
        """Return the weighted sum of the packets, a new vector like `like`.

        Raises
        ------
        PacketError
            A packet is damaged, or of another length.
        """
        total = np.zeros_like(like)
        for weight, packet in zip(self.weights, self.packets, strict=True):
            add_to(packet, total, weight)
        return total

    def mark(self, gamma: float, before: int) -> int:
        """Return the mark (see `ModelPart`) that this takes a node to from mark `before`."""
        return mark_of(self.packets, [*self.weights, self.own, gamma, self.whole], before)

    @property
    def nbytes(self) -> int:
        """Length of what `encode` returns."""
        return _HEAD.size + len(self.packets) * _PART.size + sum(map(len, self.packets))


@dataclass(frozen=True)
class Owed:
    """What a relay sends a node: the synchronisations it lacks, after a start if it has none.

    Attributes
    ----------
    base : int
        Number of the start, or of the last thing done before the first of `mixes`.
    mixes : list of (bytes, float)
        Encoded `Mix`es, each with its gamma.
    start : list of bytes or None
        Packets of a start: the node's public copy, t where it is not `own` times that copy, and the
        buffers where the model has some; empty: the node begins at its own task's model, nothing
        is public. None: the node has begun.
    own : float
        Sum of the weights of the node's edges, at the start.
    mark : int
        Of the node after all this, see `ModelPart`.

    Examples
    --------
    >>> owed = Owed(3, [(b"mix", 0.5)], start=[b"copy"], own=0.75)
    >>> Owed.from_part(owed.to_part()) == owed
    True
    """

    base: int
    mixes: list[tuple[bytes, float]]
    start: list[bytes] | None = None
    own: float = 0.0
    mark: int = 0

    @property
    def first_mark(self) -> int:
        """The mark of a node after the start, which it must have."""
        return mark_of(self.start or [], [self.base, self.own])

    def to_part(self) -> ModelPart:
        """Return the model's part of an instruction; a start has base -1, and one rate more."""
        version = self.base + len(self.mixes)
        mixes, gammas = [mix for mix, _ in self.mixes], [gamma for _, gamma in self.mixes]
        if self.start is None:
            return ModelPart(version, self.base, mixes, gammas, mark=self.mark)
        packets, numbers = [*self.start, *mixes], [self.own, *gammas]
        return ModelPart(version, -1, packets, numbers, mark=self.mark)

    @classmethod
    def from_part(cls, part: ModelPart) -> Owed:
        """Read what `to_part` wrote; raises `ProtocolError` where it is anything else."""
        packets, gammas, start, own = part.packets, part.rates, None, 0.0
        if part.base < 0:
            if not part.rates or len(part.packets) < len(part.rates) - 1:
                raise ProtocolError(f"a start with {len(part.rates)} numbers")
            own, *gammas = part.rates
            first = len(part.packets) - len(gammas)
            start, packets = part.packets[:first], part.packets[first:]
        base = part.version - len(gammas)
        if len(packets) != len(gammas) or base < 0 or (start is None and base != part.base):
            raise ProtocolError(f"{len(packets)} synchronisations with {len(gammas)} numbers")
        return cls(base, list(zip(packets, gammas, strict=True)), start, own, part.mark)
