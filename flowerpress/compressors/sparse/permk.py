"""Perm-k: the senders of a cohort share out the coordinates."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowerpress.compressors.base import Decoded, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.front import Expander, Front, Places, require_finite_values
from flowerpress.compressors.kernels import kernels, twin
from flowerpress.compressors.kernels.packing import BLOCK, U32
from flowerpress.compressors.kernels.philox import words
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, Sparse, require_finite

_TURNS, _ORDER, _START = 16, 17, 18  # purposes of the keys
_PLACE_WORK = 3.0  # steps for a place and its value
_MOST_LISTED = 1 << 20  # senders; a few bytes may claim four billion

# The cohort's size and the sender's rank; then the shared key, or the one coordinate's place.
_HEAD = struct.Struct("<II")
_KEY = struct.Struct("<II")
_PLACE = struct.Struct("<I")


@dataclass(frozen=True)
class _Share:
    """One sender's share of the places; found once the values are there."""

    dim: int
    cohort: int
    rank: int
    key: tuple[int, int]

    @property
    def size(self) -> int:
        """One place for each group, but not always one in the last, shorter group."""
        groups, rest = divmod(self.dim, self.cohort)
        return groups + (self._place(groups) < rest if rest else 0)

    def _place(self, group: int) -> int:
        word = int(words(self.key, group // BLOCK, 1)[0, group % BLOCK])
        return ((word * self.cohort >> 32) + self.rank) % self.cohort

    def expand(self, values: Vector) -> Decoded:
        """Put the values at their places."""
        require_finite_values(values)
        budget.charge(_PLACE_WORK * self.size)
        budget.hold(4 * self.size)
        ids = twin("permk").share_ids(self.dim, self.cohort, self.rank, self.key)
        return Sparse(ids, values)


@dataclass(frozen=True)
class PermK(Front):
    """Send a share of the coordinates, times the cohort's size: together the shares are the vector.

    Each packet alone is unbiased. The mean over a whole cohort of n errs by exactly
    ``A mean |a_i|^2 - B |mean a_i|^2``, so equal vectors are averaged without any error (Szlendak
    et al., "Permutation compressors for provably faster distributed nonconvex optimization", ICLR
    2022).

    n <= d: every coordinate is sent by one sender, and every sender sends d / n of them, rounded up
    or down: ``omega = n - 1`` and ``A = B = 1``. As in stratified rand-k, a sender has one place in
    each group of n neighbours. The chance of each coordinate, on which alone the constants depend,
    is that of the paper's permutation.

    n > d: every sender sends one coordinate, and every coordinate is sent by n / d senders, rounded
    up or down at random; the value is scaled by n over their number: ``omega = d - 1`` and ``A = B
    = (d - 1) / (n - 1)`` if d divides n.

    The draw's `cohort` and `rank` say who sends what; they and the key are in the packet. **If
    senders are missing**, so are their coordinates: the sum over the n senders lacks them, and
    :func:`missing_ranks` tells whose. The mean over the s that answered is still unbiased for the
    mean of their vectors, with ``A = n / s`` and ``B = 1`` for n <= d: no longer exact for equal
    vectors.

    Raises
    ------
    ValueError
        If a scaled value overflows the dtype, in `compress`.

    Examples
    --------
    >>> from flowerpress.compressors import Draw, add_to
    >>> total, x = np.zeros(5), np.arange(1.0, 6.0)
    >>> for rank in range(2):
    ...     add_to(PermK().compress(x, Draw(rank=rank, cohort=2)), total, 1 / 2)
    >>> total
    array([1., 2., 3., 4., 5.])
    """

    name: ClassVar[str] = "permk"
    codec: ClassVar[int] = 16
    reading_work: ClassVar[float] = 0.0  # that of the values

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the cohort, the rank, where the places come from, and the scaled values."""
        header, values = self.split(x, draw)
        return [*header, values]

    def split(self, x: Vector, draw: Draw) -> tuple[Sequence[Buffer], Vector]:
        """Return the cohort, the rank and where the places come from; and the scaled values."""
        head = _HEAD.pack(draw.cohort, draw.rank)
        if draw.cohort <= x.size:
            key = draw.shared_key(_TURNS)
            ids: U32 = twin("permk").share_ids(x.size, draw.cohort, draw.rank, key)
            return [head, _KEY.pack(*key)], _scaled(x[ids], draw.cohort)
        place, holders = _one_place(x.size, draw)
        factor = draw.cohort / holders
        return [head, _PLACE.pack(place)], _scaled(x[place : place + 1], factor)

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the numbers and the values, and find the places again."""
        reader = Reader(packet, cls.name)
        expander = _read_places(reader, packet.dim)
        values = reader.finite(expander.size, packet.dtype, "value")
        reader.done()
        return expander.expand(values)

    @classmethod
    def expander(cls, header: Reader, dim: int) -> Expander:
        """Check the numbers."""
        expander = _read_places(header, dim)
        header.done()
        return expander

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``permk``."""
        del packet
        return cls.name

    @classmethod
    def spec_of_header(cls, header: Reader) -> str:
        """Return ``permk``."""
        del header
        return cls.name

    def length(self, dim: int, cohort: int = 1) -> int:
        """Return the size of the largest share."""
        return -(-dim // cohort)

    def header_bits(self, dim: int) -> float:
        """Return the bits of the cohort, the rank and the key; a place takes 32 bits less."""
        del dim
        return 8.0 * (_HEAD.size + _KEY.size)

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants of a whole cohort of this size."""
        alpha = 1.0 if cohort == 1 or dim == 1 else None
        if cohort <= dim:
            bits = self.header_bits(dim) + 32 * dim / cohort
            return Traits(True, cohort - 1.0, alpha, (1.0, 1.0), bits)
        # Of d coordinates, some have one sender more than the others.
        few, more = divmod(cohort, dim)
        holders = ((few, (dim - more) / dim), (few + 1, more / dim))
        omega = sum(part * cohort / m for m, part in holders) - 1
        a = sum(part * (cohort - m) / (m * (cohort - 1)) for m, part in holders)
        bits = 8.0 * (_HEAD.size + _PLACE.size) + 32
        return Traits(True, omega, alpha, (a, a), bits)


def missing_ranks(packets: Iterable[Packet]) -> list[int]:
    """Return the ranks of the cohort that sent none of these packets.

    Parameters
    ----------
    packets : iterable of Packet
        The perm-k packets of one round.

    Raises
    ------
    PacketError
        If a packet is not of perm-k.
    ValueError
        If there is no packet, two are of one rank, they are not of one cohort and key, or the
        cohort is of more than a million senders.

    Examples
    --------
    >>> x = np.ones(9)
    >>> missing_ranks([PermK().compress(x, Draw(rank=rank, cohort=4)) for rank in (0, 3)])
    [1, 2]
    """
    ranks, rounds = [], set()
    for packet in packets:
        reader = Reader(packet, PermK.name)
        if packet.header.codec != PermK.codec:
            raise reader.error(f"a packet is of {packet.compressor}")
        cohort, rank = _read_head(reader)
        key = reader.unpack(_KEY) if cohort <= packet.dim else ()
        ranks.append(rank)
        rounds.add((cohort, packet.dim, key))
    if len(rounds) != 1:
        raise ValueError(f"permk: the packets are of {len(rounds)} cohorts or rounds, not of one")
    if len(set(ranks)) != len(ranks):
        raise ValueError("permk: two packets are of the same rank")
    ((cohort, _, _),) = rounds
    if cohort > _MOST_LISTED:
        raise ValueError(f"permk: the packets say that they are of a cohort of {cohort}")
    return sorted(set(range(cohort)) - set(ranks))


def _scaled(values: Vector, factor: float) -> Vector:
    with np.errstate(over="ignore"):
        scaled: Vector = values * values.dtype.type(factor)
    require_finite(scaled, "the scaled value")
    return scaled


def _one_place(dim: int, draw: Draw) -> tuple[int, int]:
    """Return the coordinate that this rank sends, and how many of the cohort send it.

    The ranks are put in a random order that all share, and coordinates are dealt to them in turn,
    from a random first one.
    """
    order = kernels().uniform_ids(draw.rank + 1, draw.cohort, draw.shared_key(_ORDER))
    turn = int(order[draw.rank])
    start = draw.shared_key(_START)[0] * dim >> 32
    return (turn + start) % dim, draw.cohort // dim + (turn % dim < draw.cohort % dim)


def _read_head(reader: Reader) -> tuple[int, int]:
    cohort, rank = reader.unpack(_HEAD)
    if not rank < cohort:
        raise reader.error(f"the rank is {rank}, must be below the cohort's size {cohort}")
    return cohort, rank


def _read_places(reader: Reader, dim: int) -> Expander:
    cohort, rank = _read_head(reader)
    if cohort <= dim:
        k0, k1 = reader.unpack(_KEY)
        return _Share(dim, cohort, rank, (k0, k1))
    (place,) = reader.unpack(_PLACE)
    if place >= dim:
        raise reader.error(f"the place is {place}, must be below {dim}")
    return Places(np.array([place], dtype=np.uint32))
