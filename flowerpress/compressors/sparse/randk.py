"""Rand-k: values at places that both sides draw from a key."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Decoded, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import kept, real, require_one_of, require_share, whole
from flowerpress.compressors.front import Expander, Front, require_finite_values
from flowerpress.compressors.kernels import kernels
from flowerpress.compressors.kernels.numpy.subsets import feistel_halves
from flowerpress.compressors.kernels.packing import U32
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.packet import Buffer, Packet
from flowerpress.compressors.wire.payload import Reader, Sparse, require_finite

LAWS = ("uniform", "stratified")
_PLACES = 1  # purpose of the key
# Steps for a place and its value, by the bytes of a value: in no order, places miss the caches.
_PLACE_WORK = {4: 14.0, 8: 16.0}
_NEXT_WORK = 7.0  # of places in their order

# Two words of the key, k, the law, three zero bytes.
_HEAD = struct.Struct("<IIIB3s")


def _places(law: str, k: int, dim: int, key: tuple[int, int]) -> U32:
    draw = kernels().uniform_ids if law == "uniform" else kernels().stratified_ids
    ids: U32 = draw(k, dim, key)
    return ids


@dataclass(frozen=True)
class _Drawn:
    """Places that a key gives; drawn once the values are there."""

    law: str
    size: int
    dim: int
    key: tuple[int, int]

    def expand(self, values: Vector) -> Decoded:
        require_finite_values(values)
        if self.law != "uniform":
            return self.put(values, _NEXT_WORK)
        walk = (1 << sum(feistel_halves(self.dim))) / self.dim  # steps to a place, on average
        return self.put(values, _PLACE_WORK[values.itemsize] * walk)

    def put(self, values: Vector, work: float) -> Sparse:
        """Return finite values at their places; a place is charged so many steps."""
        budget.charge(work * self.size)
        budget.hold(4 * self.size)
        return Sparse(_places(self.law, self.size, self.dim, self.key), values)


@dataclass(frozen=True)
class RandK(Front):
    """Keep k coordinates at random, scaled so that the mean is right. Unbiased.

    Only values and an 8-byte key are sent: the receiver draws the same places (Konečný et al.,
    "Federated learning: strategies for improving communication efficiency", 2016: random masks).

    Parameters
    ----------
    ratio : float, optional
        The share of coordinates that is kept, in (0, 1]; rounded to the nearest count, at least 1.
    k : int, optional
        The count, at least 1; more than d keeps all. Exactly one of `ratio` and `k` is given.
    law : {"uniform", "stratified"}, default "uniform"
        uniform: every k-subset is equally likely, values are scaled by ``d / k``, and
        ``omega = d / k - 1``. stratified: one place from each of k groups of neighbours, scaled by
        the group's size; not the k-subset law, but faster, with ``omega = ceil(d / k) - 1`` (the
        same when k divides d).

    Raises
    ------
    ValueError
        If a parameter is out of range, or a scaled value overflows the dtype in `compress`.

    Examples
    --------
    >>> packet = RandK(k=1).compress(np.array([1.0, 1.0]), Draw(seed=3))
    >>> packet.nbytes, packet.compressor
    (48, 'randk:k=1')
    """

    ratio: float | None = None
    k: int | None = None
    law: str = "uniform"

    name: ClassVar[str] = "randk"
    codec: ClassVar[int] = 3
    reading_work: ClassVar[float] = 0.0  # that of the values
    torch_kernels: ClassVar[bool] = True
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {"ratio": real, "k": whole, "law": str}

    def __post_init__(self) -> None:
        require_share(self.ratio, self.k, f"{self.name}:k=")
        require_one_of("law", self.law, LAWS)

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the key, k, the law and the scaled values, in the order the places are drawn."""
        header, values = self.split(x, draw)
        return [*header, values]

    def split(self, x: Vector, draw: Draw) -> tuple[Sequence[Buffer], Vector]:
        """Return the key, k and the law, and the scaled values."""
        k = kept(self.ratio, self.k, x.size)
        key = draw.key(_PLACES)
        ids = _places(self.law, k, x.size, key)
        with np.errstate(over="ignore"):
            values = x[ids] * self._factors(k, x.size).astype(x.dtype)
        require_finite(values, "the scaled value")
        return [_HEAD.pack(*key, k, LAWS.index(self.law), bytes(3))], values

    def _factors(self, k: int, dim: int) -> Vector:
        """Return one over the chance that each kept place is kept."""
        if self.law == "uniform":
            return np.full(k, dim / k)
        edges = np.arange(k + 1, dtype=np.uint64) * np.uint64(dim) // np.uint64(k)
        return np.diff(edges).astype(np.float64)

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check k, the law and the values, and draw the places again."""
        reader = Reader(packet, cls.name)
        drawn = _read_drawn(reader, packet.dim)
        values = reader.finite(drawn.size, packet.dtype, "value")
        reader.done()
        if budget.current().level == 1:  # any number of places is read, by itself
            return drawn.put(values, _PLACE_WORK[4])
        return drawn.expand(values)

    @classmethod
    def expander(cls, header: Reader, dim: int) -> Expander:
        """Check k and the law."""
        drawn = _read_drawn(header, dim)
        header.done()
        return drawn

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``randk:k=...`` with the law."""
        return cls.spec_of_header(Reader(packet, cls.name))

    @classmethod
    def spec_of_header(cls, header: Reader) -> str:
        """Return ``randk:k=...`` with the law."""
        *_, k, law = _read_head(header)
        return cls(k=k, law=law).spec

    def length(self, dim: int, cohort: int = 1) -> int:
        """Return k."""
        return kept(self.ratio, self.k, dim)

    def header_bits(self, dim: int) -> float:
        """Return the bits of the key, k and the law."""
        return 8.0 * _HEAD.size

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants; places are drawn by each sender alone, so A = omega / cohort."""
        k = self.length(dim)
        omega = dim / k - 1 if self.law == "uniform" else float(-(-dim // k) - 1)
        alpha = 1.0 if k == dim else None
        return Traits(True, omega, alpha, (omega / cohort, 0.0), self.header_bits(dim) + 32 * k)


def _read_drawn(reader: Reader, dim: int) -> _Drawn:
    k0, k1, k, law = _read_head(reader)
    if not 1 <= k <= dim:
        raise reader.error(f"k is {k}, must be in [1, {dim}]")
    return _Drawn(law, k, dim, (k0, k1))


def _read_head(reader: Reader) -> tuple[int, int, int, str]:
    k0, k1, k, law, spare = reader.unpack(_HEAD)
    if law >= len(LAWS):
        raise reader.error(f"law {law} is not known; known are 0 (uniform) and 1 (stratified)")
    if spare != bytes(3):
        raise reader.error("bytes 13 to 15 must be zero")
    return k0, k1, k, LAWS[law]
