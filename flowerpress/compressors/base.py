"""What a compressor is, and what it states about itself.

The law of the wire: two compressors may share a codec number if and only if each decodes the
other's packets. A class that changes its bytes takes a new number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.draw import Draw
from flowerpress.compressors.kernels.arithmetic import by_default_rules
from flowerpress.compressors.wire import reading
from flowerpress.compressors.wire.inputs import (
    Tensor,
    TooLargeError,
    Vector,
    as_vector,
    largest,
    refuse_nonfinite,
    too_large,
)
from flowerpress.compressors.wire.packet import Buffer, Packet, PacketError
from flowerpress.compressors.wire.reading import Decoded

__all__ = ["Compressor", "Decoded", "Traits", "Vector", "refuse_nonfinite", "traits_of"]

_NO_DRAW = Draw()
# The roots of the largest numbers: sums and products of smaller ones stay finite.
_EXTREME = {np.dtype(kind): float(np.finfo(kind).max) ** 0.5 for kind in (np.float32, np.float64)}
# Compressors made of others, and lengths of vectors, whose packets were decoded once: what they
# cost a receiver is within its budget.
_tried: set[tuple[Compressor, int]] = set()
_MOST_TRIED = 1 << 10


@dataclass(frozen=True, slots=True)
class Traits:
    """The constants that a compressor states; the conformance suite checks that they are true.

    Parameters
    ----------
    unbiased : bool
        ``E C(x) = x``.
    omega : float or None
        ``E |C(x) - x|^2 <= omega |x|^2``, for an unbiased compressor.
    alpha : float or None
        ``E |C(x) - x|^2 <= (1 - alpha) |x|^2``, as it is, with no scaling.
    ab : tuple of float or None
        ``(A, B)``: the mean of a cohort's packets has
        ``E |mean C_i(a_i) - mean a_i|^2 <= A mean |a_i|^2 - B |mean a_i|^2``.
    bits : float
        Expected length of the payload of a float32 vector, in bits; the frame's header of 24
        bytes is not counted.
    """

    unbiased: bool
    omega: float | None
    alpha: float | None
    ab: tuple[float, float] | None
    bits: float


@dataclass(frozen=True)
class Compressor(ABC):
    """A pure map from vectors to packets. Subclasses are frozen dataclasses of plain numbers.

    Attributes
    ----------
    name : str
        The name in spec strings and in the registry.
    codec : int
        The number in the frame's header: 0 to 127 for this package, 128 to 255 for others.
    parsers : mapping
        For each field of the spec string, in order, a function from its text to its value.
    finds_nonfinite : bool
        `encode` itself calls :func:`refuse_nonfinite` when its sums show that `x` is not finite,
        which saves a pass over `x`, and raises ValueError for what could not be decoded.
    reading_work : float
        What a packet costs its reader, in vectors of `identity` of its length, beside what decoding
        itself charges to the `budget`.
    torch_kernels : bool
        `encode` gets along with a :class:`~flowerpress.compressors.kernels.device.DeviceVector`.
    """

    name: ClassVar[str]
    codec: ClassVar[int]
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {}
    finds_nonfinite: ClassVar[bool] = False
    reading_work: ClassVar[float] = 1.0
    torch_kernels: ClassVar[bool] = False

    def __init_subclass__(cls, **more: Any) -> None:
        """Look in no other class's way at the packets of one that reads them in its own."""
        super().__init_subclass__(**more)
        if "decode" in vars(cls) and "glance" not in vars(cls):
            cls.glance = classmethod(lambda cls, packet: cls.decode(packet))  # type: ignore[assignment, method-assign]

    @by_default_rules
    def compress(self, x: Vector | Tensor, draw: Draw = _NO_DRAW) -> Packet:
        """Compress `x`.

        Parameters
        ----------
        x : Vector or torch.Tensor, shape (d,)
            float32 or float64, ``1 <= d < 2**32``, all finite. It is not changed. A torch tensor
            on the CPU is viewed without a copy. One on a CUDA device is compressed there by a
            compressor that `encodes_tensors`; any other is first copied to the host.
        draw : Draw
            The random numbers to use. Compressors that need none ignore it.

        Returns
        -------
        Packet
            Equal inputs give equal bytes, on every machine.

        Raises
        ------
        ValueError
            If `x` has another shape or dtype, is empty, or holds NaN or infinity (the message names
            the first position), if what must be sent overflows the dtype (it names the largest
            number's position), or if what is made of others would cost a receiver more than it
            pays for a packet (see `flowerpress.compressors.wire.budget`).
        """
        vector = as_vector(x, type(x) is not np.ndarray and self.encodes_tensors)
        extreme = not self.finds_nonfinite and largest(vector) > _EXTREME[vector.dtype]
        try:
            pieces = self.encode(vector, draw)
        except TooLargeError as error:
            raise too_large(error, vector) from None
        packet = Packet.build(self.codec, vector.dtype, vector.size, pieces)
        if extreme or (self._made_of and (self, vector.size) not in _tried):
            self._try(packet, vector, extreme)
        return packet

    @cached_property
    def _made_of(self) -> list[Compressor]:
        """The compressors in this one: its packets are decoded once for vectors of each length."""
        return [part for part in vars(self).values() if isinstance(part, Compressor)]

    def _try(self, packet: Packet, x: Vector, extreme: bool) -> None:
        """Raise ValueError unless a receiver would decode what was made of `x`."""
        try:
            reading.whole_vector(packet)
        except PacketError as error:
            if extreme:
                raise too_large("what is decoded", x) from None
            raise ValueError(f"compress: nobody reads what {self.spec!r} sends: {error}") from None
        if len(_tried) >= _MOST_TRIED:
            _tried.clear()
        _tried.add((self, x.size))

    @property
    def encodes_tensors(self) -> bool:
        """Whether tensors are compressed on their device; only the packed result leaves it."""
        return self.torch_kernels

    @abstractmethod
    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the pieces of the payload of `x`, which is contiguous.

        It is also finite, unless the class sets `finds_nonfinite`.
        """

    @classmethod
    @abstractmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the whole payload and return it ready to be added; `PacketError` if it is wrong."""

    @classmethod
    def glance(cls, packet: Packet) -> Decoded:
        """Return what has the packet's norm; places, which the norm is not of, may stay unread."""
        return cls.decode(packet)

    @classmethod
    @abstractmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return the spec of a compressor that sends packets like `packet`."""

    @abstractmethod
    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the stated constants for vectors of length `dim` in a cohort of that size."""

    def after_rotation(self, block: int) -> Compressor:
        """Return the compressor for a vector whose blocks of so many coordinates were each mixed.

        Only one with a range or a scale for each block differs from what it was.
        """
        del block
        return self

    def homogeneous(self, dim: int, cohort: int) -> float | None:
        """Return A for a cohort of equal vectors, where it is below that of any vectors.

        ``E |mean C_i(x) - x|^2 <= A |x|^2``. None, as by default, if nothing is stated. It does not
        hold where vectors differ.
        """
        del dim, cohort
        return None

    @classmethod
    def codes(cls, packet: Packet) -> tuple[int, int]:
        """Return the number and the bits of the packed codes that `packet` ends with.

        An entropy stage codes these symbols; (0, 0) if the payload does not end with packed codes.
        """
        del packet
        return 0, 0

    @property
    def spec(self) -> str:
        """The spec string; ``make_compressor(c.spec) == c``."""
        items = []
        for position, field in enumerate(f for f in fields(self) if f.name in self.parsers):
            value = getattr(self, field.name)
            if value != field.default:
                text = repr(value) if isinstance(value, float) else str(value)
                items.append(text if position == 0 else f"{field.name}={text}")
        return ":".join([self.name, ",".join(items)]) if items else self.name

    def bind(self, sizes: Sequence[int]) -> Compressor:
        """Return the compressor for a vector made of tensors of these sizes, in order.

        Only compressors with a per-tensor option differ from what they were.
        """
        del sizes
        return self

    def bind_shapes(self, shapes: Sequence[tuple[int, ...]]) -> Compressor:
        """Return the compressor for tensors of these shapes, in order; knows more than `bind`."""
        return self.bind([math.prod(shape) for shape in shapes])


@lru_cache(maxsize=1024)
def traits_of(compressor: Compressor, dim: int, cohort: int = 1) -> Traits:
    """Return `compressor.traits(dim, cohort)`, which rounds ask for over and over."""
    return compressor.traits(dim, cohort)
