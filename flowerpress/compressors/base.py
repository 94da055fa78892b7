"""What a compressor is, and what it states about itself.

The law of the wire: two compressors may share a codec number if and only if each decodes the
other's packets. A class that changes its bytes takes a new number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.draw import Draw
from flowerpress.compressors.kernels import kernels
from flowerpress.compressors.kernels.device import device_vector, on_device, stays_on_device
from flowerpress.compressors.kernels.subnormals import keeps_subnormals
from flowerpress.compressors.packet import MAX_DIM, Buffer, Packet

Vector: TypeAlias = npt.NDArray[np.floating[Any]]
"""A 1-D array of float32 or float64."""

_NO_DRAW = Draw()


class Tensor(Protocol):
    """The part of a torch tensor that is used to view it as an array."""

    def detach(self) -> Tensor: ...

    def cpu(self) -> Tensor: ...

    def numpy(self) -> Vector: ...


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


class Decoded(Protocol):
    """A payload that was checked as a whole."""

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * decoded``; `out` has the packet's dim.

        What overflows the dtype of `out` is a `PacketError`, before `out` is changed.
        """


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
        which saves a pass over `x`.
    torch_kernels : bool
        `encode` gets along with a :class:`~flowerpress.compressors.kernels.device.DeviceVector`.
    """

    name: ClassVar[str]
    codec: ClassVar[int]
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {}
    finds_nonfinite: ClassVar[bool] = False
    torch_kernels: ClassVar[bool] = False

    @keeps_subnormals
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
            the first position), or if what must be sent overflows the dtype.
        """
        vector = as_vector(x, self.encodes_tensors)
        if not self.finds_nonfinite:
            refuse_nonfinite(vector)
        return Packet.build(self.codec, vector.dtype, vector.size, self.encode(vector, draw))

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
    @abstractmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return the spec of a compressor that sends packets like `packet`."""

    @abstractmethod
    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the stated constants for vectors of length `dim` in a cohort of that size."""

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


def as_vector(x: Vector | Tensor, keep: bool = False) -> Vector:
    """Return `x` as a contiguous 1-D array; see :meth:`Compressor.compress`.

    With `keep`, a tensor that can be compressed where it is stays there.
    """
    if on_device(x):  # on its way to a compressor inside another
        return cast(Vector, x)
    if keep and stays_on_device(x):
        return _require_vector(cast(Vector, device_vector(x)))
    return np.ascontiguousarray(_require_vector(_to_array(x)))


def _require_vector(array: Vector) -> Vector:
    if array.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"compress: dtype must be float32 or float64, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"compress: a vector has one dimension, got shape {array.shape}")
    if not 1 <= array.size <= MAX_DIM:
        raise ValueError(f"compress: length must be in [1, 2**32), got {array.size}")
    return array


def _to_array(x: Any) -> Vector:
    if isinstance(x, np.ndarray):
        return x
    # By its methods and not by its type, so that torch is not imported here.
    if not all(hasattr(x, name) for name in ("detach", "cpu", "numpy")):
        raise ValueError(
            f"compress: expected a numpy array or a torch tensor, got {type(x).__name__}"
        )
    try:
        return np.asarray(x.detach().cpu().numpy())
    except TypeError as error:  # torch: no numpy twin of the dtype, e.g. bfloat16
        raise ValueError(f"compress: dtype must be float32 or float64, got {x.dtype}") from error


def refuse_nonfinite(x: Vector) -> None:
    """Raise ValueError that names the first NaN or infinity of `x`, if there is one."""
    position = kernels(x).nonfinite_position(x)
    if position >= 0:
        raise ValueError(f"compress: x[{position}] is {x[position]}; nothing was sent")
