"""Compressors that can stand before a ``+``: they hand values on for another to compress."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from flowerpress.compressors.base import Compressor, Decoded, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.kernels import kernels
from flowerpress.compressors.kernels.packing import U32
from flowerpress.compressors.wire.packet import Buffer, PacketError
from flowerpress.compressors.wire.payload import Reader, Sparse


class Expander(Protocol):
    """What turns the values back into a vector; its header was checked.

    An orthogonal map has an attribute ``keeps_norm`` that is true.
    """

    @property
    def size(self) -> int:
        """How many values there are: at least one, and at most the vector's length."""

    def expand(self, values: Vector) -> Decoded:
        """Return the vector of `values`; `PacketError` if they are not finite."""


class Front(Compressor):
    """A compressor whose packet is a header and values, and that can give them apart.

    Its constants must be these: an ``alpha`` is that of an orthogonal projection (the values are
    the part of the vector that is kept, and the error is orthogonal to it), and an ``omega`` of
    zero that of an orthogonal map.

    Attributes
    ----------
    shared_map : bool
        Every sender of a cohort applies the same orthogonal map.
    mixed : int
        It mixes the coordinates of blocks of this size; 0 if it does not.
    """

    shared_map: ClassVar[bool] = False
    mixed: ClassVar[int] = 0

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "expander" in vars(cls) and "expander_at_a_glance" not in vars(cls):
            cls.expander_at_a_glance = classmethod(  # type: ignore[assignment, method-assign]
                lambda cls, header, dim: cls.expander(header, dim)
            )

    @abstractmethod
    def split(self, x: Vector, draw: Draw) -> tuple[Sequence[Buffer], Vector]:
        """Return the pieces of the header, and the values."""

    @classmethod
    @abstractmethod
    def expander(cls, header: Reader, dim: int) -> Expander:
        """Check a header, all that `header` holds, for a vector of length `dim`.

        Memory in proportion to `dim` may be taken only once the values are there, in ``expand``.
        """

    @classmethod
    def expander_at_a_glance(cls, header: Reader, dim: int) -> Expander:
        """Do what `expander` does; places, which no norm is of, are read once values are there."""
        return cls.expander(header, dim)

    @classmethod
    @abstractmethod
    def spec_of_header(cls, header: Reader) -> str:
        """Return the spec of a compressor that writes headers like this one."""

    @abstractmethod
    def length(self, dim: int, cohort: int = 1) -> int:
        """Return how many values a vector of length `dim` leaves: the most that any rank sends."""

    @abstractmethod
    def header_bits(self, dim: int) -> float:
        """Return the expected bits of the header."""


@dataclass(frozen=True)
class Places:
    """Values that belong to known places."""

    ids: U32

    @property
    def size(self) -> int:
        """The number of places."""
        return int(self.ids.size)

    def expand(self, values: Vector) -> Decoded:
        """Put the values there."""
        require_finite_values(values)
        return Sparse(self.ids, values)


@dataclass(frozen=True)
class Unread:
    """Values that belong to places which are not read before these are needed."""

    size: int
    read: Callable[[], U32]

    def expand(self, values: Vector) -> Decoded:
        """Read the places, and put the values there."""
        return Places(self.read()).expand(values)


def require_finite_values(values: Vector) -> None:
    """Raise `PacketError` if what was decoded overflows its dtype."""
    position = kernels().nonfinite_position(values)
    if position >= 0:
        raise PacketError(f"decoded number {position} is {values[position]} in {values.dtype}")
