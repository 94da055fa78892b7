"""Reading a payload without trusting it, and what several codecs share."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors import vectors
from flowerpress.compressors.kernels import kernels
from flowerpress.compressors.kernels.packing import BLOCK, U8, U32, packed_bytes, pieces
from flowerpress.compressors.kernels.paging import LARGE, sweep
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.inputs import TooLargeError, Vector
from flowerpress.compressors.wire.packet import HEADER_BYTES, Packet, PacketError, frame_length


class Reader:
    """Takes a payload apart from its start; a piece that is not there is a `PacketError`.

    Parameters
    ----------
    packet : Packet
        Its payload is read.
    name : str
        The codec's name, for messages.
    """

    def __init__(self, packet: Packet, name: str) -> None:
        self.name = name
        self._bytes: U8 = np.frombuffer(packet.data, dtype=np.uint8)[HEADER_BYTES:]
        self._at = 0

    @classmethod
    def over(cls, data: U8, name: str) -> Reader:
        """Return a reader of some bytes of a payload."""
        reader = object.__new__(cls)
        reader.name, reader._bytes, reader._at = name, data, 0
        return reader

    @property
    def left(self) -> int:
        """Bytes that were not taken yet."""
        return self._bytes.size - self._at

    def error(self, what: str) -> PacketError:
        """Return a `PacketError` that names the codec."""
        return PacketError(f"{self.name}: {what}")

    def take(self, count: int, what: str) -> U8:
        """Return the next `count` bytes."""
        start, self._at = self._at, self._at + count
        if self._at > self._bytes.size:
            self._at = start
            raise self.error(f"{what} takes {count} bytes at byte {self._at}, {self.left} are left")
        return self._bytes[start : self._at]

    def rest(self) -> U8:
        """Return all bytes that were not taken yet."""
        start, self._at = self._at, self._bytes.size
        return self._bytes[start:]

    def frame_length(self, what: str) -> int:
        """Return the length of the frame that comes next, which is not taken."""
        at = self._at
        head = self.take(min(HEADER_BYTES, self.left), what).tobytes()
        self._at = at
        return frame_length(head)

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Return the numbers of a fixed header."""
        at = self._at
        if at + layout.size > self._bytes.size:
            self.take(layout.size, "the codec's header")  # says what is missing
        self._at += layout.size
        return layout.unpack_from(self._bytes.data, at)

    def array(self, count: int, dtype: np.dtype[Any], what: str) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the next `count` numbers, aligned."""
        taken = self.take(count * dtype.itemsize, what).view(dtype)
        if not taken.flags.aligned:
            budget.hold(taken.nbytes)  # of a copy
            taken = taken.copy()
        return taken

    def finite(self, count: int, dtype: np.dtype[Any], what: str) -> Vector:
        """Return the next `count` numbers, all of them finite."""
        values: Vector = self.array(count, dtype, what)
        short = values.nbytes < LARGE  # as most are: not worth a call
        for start, stop in ((0, count),) if short else sweep(values):
            position = kernels().nonfinite_position(values[start:stop])
            if position >= 0:
                position += start
                raise self.error(f"{what} {position} is {values[position]}")
        return values

    def scales(self, count: int, dtype: np.dtype[Any], what: str) -> Vector:
        """Return the next `count` numbers, finite and without a sign."""
        values = self.finite(count, dtype, what)
        negative = np.flatnonzero(np.signbit(values))
        if negative.size:
            raise self.error(f"{what} {negative[0]} is {values[negative[0]]}, below zero")
        return values

    def codes(self, count: int, width: int) -> U8:
        """Return the bytes of `count` packed codes; the padding after them must be zeros."""
        packed = self.take(packed_bytes(count, width), "codes")
        spare = -(count % BLOCK) * width % 8
        if spare and packed[-1] >> (8 - spare):
            raise self.error("the padding after the codes is not zero")
        return packed

    def last_codes(self, count: int, width: int, top: int) -> U8:
        """Return the bytes of the codes that the payload ends with; none may be above `top`."""
        packed = self.codes(count, width)
        self.done()
        if top != (1 << width) - 1:
            position = kernels().code_above(packed, count, width, top)
            if position >= 0:
                raise self.error(f"code {position} is above {top}")
        return packed

    def done(self) -> None:
        """Check that nothing is left."""
        if self.left:
            raise self.error(f"{self.left} bytes follow the payload")


@dataclass(frozen=True)
class Sparse:
    """Values at distinct places; decoded from `topk` and `randk`."""

    ids: U32
    values: Vector
    at_hand: ClassVar[bool] = True

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out[ids] += weight * values``."""
        if self.ids.size <= BLOCK:  # at once: nothing is changed unless all products fit
            terms = weighted(self.values, weight, out.dtype)
            kernels().scatter_add(self.ids, terms, out)
            return
        require_weighted(self.values, weight, out.dtype)
        for start, stop in pieces(self.ids.size):
            terms = weighted(self.values[start:stop], weight, out.dtype)
            kernels().scatter_add(self.ids[start:stop], terms, out)

    def add_to_tensor(self, out: Any, weight: float) -> None:
        """Do that on a tensor; the numbers and their places go to its device."""
        vectors.add_terms(out, self.ids, weighted(self.values, weight, vectors.dtype_of(out)))


def weighted(values: Vector, weight: float, dtype: np.dtype[Any]) -> Vector:
    """Return ``weight * values``, computed in the wider dtype and rounded once to `dtype`.

    Raises
    ------
    PacketError
        If a product overflows: an infinity would spoil the sum for every sender.
    """
    wide = np.promote_types(values.dtype, dtype)
    product: Vector = values.astype(wide, copy=False) * wide.type(weight)
    product = product.astype(dtype, copy=False)
    if values.dtype != dtype or abs(weight) > 1:
        position = kernels().nonfinite_position(product)
        if position >= 0:
            raise PacketError(
                f"number {position} is {values[position]}: times {weight} it overflows {dtype}"
            )
    return product


def require_weighted(values: Vector, weight: float, dtype: np.dtype[Any]) -> None:
    """Raise `PacketError` if a number of ``weight * values`` overflows; see `weighted`.

    Rounding keeps the order: if the least and the largest do not overflow, no product does.
    """
    if values.size and (values.dtype != dtype or abs(weight) > 1):
        ends = [(values[a:b].min(), values[a:b].max()) for a, b in sweep(values)]
        least, most = zip(*ends, strict=True)
        weighted(np.array([min(least), max(most)]), weight, dtype)


def require_finite(values: Vector, what: str) -> None:
    """Raise `TooLargeError` if a number that must be sent does not fit the dtype."""
    position = kernels().nonfinite_position(values)
    if position >= 0:
        raise TooLargeError(f"{what} {position}")
