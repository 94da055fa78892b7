"""What one packet may cost its reader, whatever is nested in it.

A few bytes can stand for much: entropy codes of zeros, places of a key, one packet inside another
eight times over. So the outermost packet has a budget, from its vector's length and its own bytes,
and everything on the way is charged to it before it is done: frames, work and memory. What is above
is a `PacketError`. Honest packets stay far below; `Compressor.compress` makes none that is above.

*Work* is counted in steps: one is a coordinate of `identity`, of float32; those of float64 take
longer. A packet may cost 16 steps a coordinate, 24 of float64, and one for each of its bytes.

*Memory* is what is held at a time beside the packet and the vector that is decoded into: three
vectors, and twice the packet's bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowerpress.compressors.packet import Packet, PacketError

if TYPE_CHECKING:
    from flowerpress.compressors.allowed import Allowed

MOST_DEPTH = 8
"""Frames around one another, the outermost included."""
MOST_FRAMES = 24
"""Frames in a packet, itself included: what `repeat.repeated` makes at most."""
_WORK = {4: 16, 8: 24}  # steps a coordinate
_MEMORY = 3  # vectors
_SPARE = 1 << 16  # steps and bytes that any packet may cost: overheads of short vectors


@dataclass
class Budget:
    """What is left to the reader of one packet; see this module.

    Parameters
    ----------
    work : float
        Steps: what a coordinate of `identity` costs.
    memory : int
        Bytes.
    frames : int
    allowed : Allowed or None
        Which codecs may be met; None for any.
    """

    work: float
    memory: int
    frames: int = MOST_FRAMES
    allowed: Allowed | None = None


# One where a packet is read without a budget, by its codec itself.
_level: ContextVar[int] = ContextVar("level", default=1)
_current: ContextVar[Budget | None] = ContextVar("budget", default=None)
_only: ContextVar[Allowed | None] = ContextVar("only", default=None)


@contextmanager
def only(allowed: Allowed | None) -> Iterator[None]:
    """Refuse, inside the block, packets of any codec that is not allowed; None allows all.

    Examples
    --------
    >>> import numpy as np
    >>> from flowerpress.compressors import add_to, make_compressor
    >>> from flowerpress.compressors.allowed import Allowed
    >>> with only(Allowed.of("topk:0.1")):
    ...     add_to(make_compressor("sign").compress(np.ones(3)), np.zeros(3))
    Traceback (most recent call last):
    ...
    flowerpress.compressors.packet.PacketError: frame: codec 4 (sign) is none of ...
    """
    token = _only.set(allowed)
    try:
        yield
    finally:
        _only.reset(token)


@contextmanager
def reading(packet: Packet) -> Iterator[None]:
    """Give `packet`, the outermost one, its budget inside the block."""
    length = packet.dim * packet.dtype.itemsize
    size = len(packet.data)
    budget = Budget(
        work=float(_WORK[packet.dtype.itemsize] * packet.dim + size + _SPARE),
        memory=_MEMORY * length + 2 * size + _SPARE,
        allowed=_only.get(),
    )
    if budget.allowed is not None:
        budget.frames = min(budget.frames, budget.allowed.frames)
    token, level = _current.set(budget), _level.set(0)
    try:
        yield
    finally:
        _current.reset(token)
        _level.reset(level)


@contextmanager
def frame(codec: int) -> Iterator[None]:
    """Count a frame of `codec`; what is read inside the block is a level deeper."""
    check(codec)
    budget = _current.get()
    if budget is not None:
        budget.frames -= 1
        if budget.frames < 0:
            raise PacketError("frame: made of more packets than are read here")
    with at(level() + 1):
        yield


def check(codec: int) -> None:
    """Raise `PacketError` unless packets, or their fronts, of `codec` are allowed."""
    budget = _current.get()
    if budget is not None and budget.allowed is not None:
        budget.allowed.check(codec)


def level() -> int:
    """Return how many frames are around what is being read."""
    return _level.get()


@contextmanager
def at(level: int) -> Iterator[None]:
    """Read what is `level` frames deep inside the block; `PacketError` if that is too deep."""
    if level > MOST_DEPTH:
        raise PacketError(f"frame: packets go more than {MOST_DEPTH} deep")
    token = _level.set(level)
    try:
        yield
    finally:
        _level.reset(token)


def charge(work: float) -> None:
    """Take steps from the budget, before they are made."""
    budget = _current.get()
    if budget is not None:
        budget.work -= work
        if budget.work < 0:
            raise PacketError(
                "frame: reading it takes many times the work that its vector is worth"
            )


def hold(count: int) -> None:
    """Take bytes of memory from the budget, before they are allocated; see `released`."""
    budget = _current.get()
    if budget is not None:
        budget.memory -= count
        if budget.memory < 0:
            raise PacketError(
                f"frame: reading it takes more memory than {_MEMORY} vectors of its length"
            )


@contextmanager
def released() -> Iterator[None]:
    """Give back after the block what was held in it."""
    budget = _current.get()
    if budget is None:
        yield
        return
    before = budget.memory
    try:
        yield
    finally:
        budget.memory = before
