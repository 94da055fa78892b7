"""How a packet is read, the outermost one or one inside another: checked, and within its budget."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from flowerpress.compressors.kernels.arithmetic import by_default_rules
from flowerpress.compressors.kernels.packing import U8
from flowerpress.compressors.wire import budget
from flowerpress.compressors.wire.codecs import codec
from flowerpress.compressors.wire.inputs import Vector
from flowerpress.compressors.wire.packet import Buffer, Packet, PacketError

Left: TypeAlias = "AbstractContextManager[object]"
"""The context in which what is left of a budget is spent."""
Parsed: TypeAlias = "tuple[Packet, Decoded | None, Left]"
_UNBOUNDED: Left = nullcontext()
_BYTE_WORK = 1 / 16  # steps of a checksum: a frame inside others is summed for each of them


class Decoded(Protocol):
    """A payload that was checked as a whole.

    Where it has ``at_hand = True`` its numbers are in memory: what is done with them decodes
    nothing more, and needs no budget.
    """

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * decoded``; `out` has the packet's dim.

        What overflows the dtype of `out` is a `PacketError`, before `out` is changed.
        """


@runtime_checkable
class Divisible(Decoded, Protocol):
    """A payload of which parts can be decoded: so it is measured without a vector of its length."""

    def part(self, start: int, stop: int) -> Decoded:
        """Return the numbers from `start` to `stop`, both multiples of 1024, or `stop` the dim."""


def inner_packet(data: U8, outer: Packet, dim: int) -> Packet:
    """Return the frame inside `outer`, of its dtype and of length `dim`; not a copy."""
    budget.charge(_BYTE_WORK * data.size)
    inner = Packet.view(data.data)
    if inner.dtype != outer.dtype:
        raise PacketError(f"frame: {inner.dtype} inside a packet of {outer.dtype}")
    if inner.dim != dim:
        raise PacketError(f"frame: dim is {inner.dim} inside a packet that leaves {dim}")
    return inner


def decode(
    packet: Packet, outermost: budget.Budget | None = None, *, glance: bool = False
) -> Decoded:
    """Check a packet, and charge its budget: the outermost one's, else what is being spent.

    A `glance` is enough to tell its norm; see `Compressor.glance`.
    """
    kind = codec(packet.header.codec)
    here = budget.enter(kind.codec, kind.reading_work * packet.dim, outermost)
    try:
        decoded: Decoded = (kind.glance if glance else kind.decode)(packet)
    finally:
        here.leave()
    return decoded


def norm_of(decoded: Decoded) -> float | None:
    """Return the norm of the vector that was compressed, where its packet tells it."""
    norm: float | None = getattr(decoded, "norm", None)
    return norm


def vector_from(decoded: Decoded) -> Vector | None:
    """Return the vector that is made anyway of what was decoded; None if none is."""
    make: Callable[[], Vector] | None = getattr(decoded, "vector", None)
    return make() if make is not None else None


def vector_of(decoded: Decoded, dim: int, dtype: np.dtype[Any]) -> Vector:
    """Return what was decoded as a new vector."""
    own: Vector | None = vector_from(decoded)
    if own is not None:
        return own
    budget.hold(dim * dtype.itemsize)
    vector: Vector = np.zeros(dim, dtype)
    decoded.add_to(vector, 1.0)
    return vector


def spec_of(packet: Packet) -> str:
    """Return the spec of a packet, the outermost one or one inside another."""
    kind = codec(packet.header.codec)
    here = budget.enter(kind.codec)
    try:
        spec: str = kind.spec_of(packet)
    except PacketError:
        raise
    except ValueError as error:  # a parameter that no compressor may have
        raise PacketError(f"frame: {error}") from error
    finally:
        here.leave()
    return spec


def codes_of(packet: Packet) -> tuple[int, int]:
    """Return the codes at the end of a packet inside another one; see `Compressor.codes`."""
    kind = codec(packet.header.codec)
    here = budget.enter(kind.codec)
    try:
        codes: tuple[int, int] = kind.codes(packet)
    finally:
        here.leave()
    return codes


def whole_vector(
    packet: Packet, decoded: Decoded | None = None, left: Left | None = None
) -> Vector:
    """Return what a packet, the outermost one, stands for; `PacketError` where it is damaged."""
    with left or budget.of(packet):
        decoded = decoded or decode(packet)
        out = vector_from(decoded)
        if out is None:
            out = np.zeros(packet.dim, dtype=packet.dtype)
            decoded.add_to(out, 1.0)
    return out


def whole_spec(packet: Packet) -> str:
    """Return the spec of a packet, the outermost one."""
    with budget.of(packet):
        return spec_of(packet)


class Opened:
    """A packet that was checked and decoded once, for all that is done with it.

    Parameters
    ----------
    packet : Packet
        The outermost one.
    allowed : Allows, optional
        Which codecs may be met in it; by default what `flowerpress.compressors.wire.budget.only`
        says, else any.

    Raises
    ------
    PacketError
        It is damaged, or costs more than an honest one may.
    """

    __slots__ = ("_budget", "decoded", "packet", "ready")

    @by_default_rules
    def __init__(self, packet: Packet, allowed: budget.Allows | None = None) -> None:
        self.packet = packet
        self._budget = budget.of(packet, allowed)
        self.decoded = decode(packet, self._budget)
        at_hand = getattr(self.decoded, "at_hand", False)
        self.ready: Parsed | None = (packet, self.decoded, _UNBOUNDED) if at_hand else None

    @property
    def norm(self) -> float | None:
        """The norm of the vector that was compressed, where the packet tells it."""
        return norm_of(self.decoded)

    def left(self) -> budget.Budget:
        """Return what decoding has left of the budget, for one thing that is done with it."""
        left = self._budget
        return budget.Budget(left.work, left.memory, left.frames, left.allowed)


def parse(packet: Packet | Buffer | Opened) -> Parsed:
    """Return a packet, checked as a frame, what it decodes to if it is open already, its budget."""
    if isinstance(packet, Opened):
        return packet.ready or (packet.packet, packet.decoded, packet.left())
    if not isinstance(packet, Packet):
        packet = Packet(bytes(packet))
    return packet, None, budget.of(packet)
