"""What one packet may cost its reader, whatever is nested in it.

A few bytes can stand for much: entropy codes of zeros, places of a key, one packet inside another
eight times over. So the outermost packet has a budget, from its vector's length and its own bytes,
and everything on the way is charged to it before it is done: frames, work and memory. What is above
is a `PacketError`. Honest packets stay far below; `Compressor.compress` makes none that is above.

*Work* is counted in steps: one is a coordinate of `identity`, of float32; those of float64 take
longer. A packet may cost 16 steps a coordinate, 25 of float64, and one for four of its bytes; a
short vector's a little more, since a frame takes as long as many coordinates do.

*Memory* is what is held at a time beside the packet and the vector that is decoded into: three
vectors, and twice the packet's bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Protocol, Self

from flowerpress.compressors.wire.packet import Packet, PacketError

MOST_DEPTH = 8
"""Frames around one another, the outermost included."""
MOST_FRAMES = 24
"""Frames in a packet, itself included: what `repeat.repeated` makes at most."""
_WORK = {4: 16, 8: 25}  # steps a coordinate
_MEMORY = 3  # vectors
# Steps that a frame takes, however short its vector; steps and bytes that any packet may cost.
_FRAME_WORK = 60_000
_SPARE_WORK, _SPARE_MEMORY = 5 << 19, 1 << 20
TOO_MUCH_WORK = "frame: reading it takes many times the work that its vector is worth"
_ROOM_WORK = 0.5  # steps of a new byte: pages that are met first take longer than what fills them


class Allows(Protocol):
    """Which packets may be read: see `flowerpress.compressors.spec.allowed`."""

    @property
    def frames(self) -> int:
        """How many frames a packet may be made of."""

    def check(self, codec: int) -> None:
        """Raise `PacketError` unless packets of `codec` may be read."""


class Budget:
    """What is left to the reader of one packet, and the context in which it is spent.

    Parameters
    ----------
    work : float
        Steps: what a coordinate of `identity` costs.
    memory : float
        Bytes.
    frames : float
    allowed : Allows or None
        Which codecs may be met; None for any.

    Attributes
    ----------
    level : int
        How many frames are around what is being read.
    """

    __slots__ = ("_outside", "_token", "allowed", "frames", "level", "memory", "work")

    def __init__(
        self,
        work: float = math.inf,
        memory: float = math.inf,
        frames: float = math.inf,
        allowed: Allows | None = None,
    ) -> None:
        self.work, self.memory, self.frames, self.allowed = work, memory, frames, allowed
        self.level = 0
        # The level of the frame that it was set for, and what was spent before that.
        self._outside: tuple[int, Token[Budget | None]] | None = None

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)

    def leave(self) -> None:
        """End the frame that `enter` has begun."""
        self.level -= 1
        if self._outside is not None and self.level == self._outside[0]:
            _current.reset(self._outside[1])
            self._outside = None

    def spend(self, work: float, memory: int = 0) -> None:
        """Take steps, before they are made, and bytes of memory, before they are allocated."""
        self.memory -= memory
        if self.memory < 0:
            raise PacketError(
                f"frame: reading it takes more memory than {_MEMORY} vectors of its length"
            )
        self.work -= work
        if self.work < 0:
            raise PacketError(TOO_MUCH_WORK)


def of(packet: Packet, allowed: Allows | None = None) -> Budget:
    """Return the budget of `packet`, the outermost one; `allowed` is by default as `only` says."""
    size, width = len(packet.data), packet.dtype.itemsize
    allowed = allowed or _only.get()
    steps = _WORK[width] * packet.dim
    return Budget(
        work=max(steps, 0.75 * steps + _SPARE_WORK) + size / 4,
        memory=_MEMORY * width * packet.dim + 2 * size + _SPARE_MEMORY,
        frames=MOST_FRAMES if allowed is None else min(MOST_FRAMES, allowed.frames),
        allowed=allowed,
    )


def affords(frames: int, dim: int, width: int, size: float = 0.0) -> bool:
    """Whether a packet of `size` bytes pays for so many frames, were they read in no time."""
    steps = _WORK[width] * dim  # as in `of`, which makes no calls for it
    return frames * _FRAME_WORK <= max(steps, 0.75 * steps + _SPARE_WORK) + size / 4


_current: ContextVar[Budget | None] = ContextVar("budget", default=None)
_only: ContextVar[Allows | None] = ContextVar("only", default=None)


def enter(codec: int, work: float = 0.0, outermost: Budget | None = None) -> Budget:
    """Begin to read a frame of `codec`, which takes `work` steps besides.

    Who reads it calls `Budget.leave` of what is returned, whatever comes. A context manager would
    do the same in twice the time, which is a tenth of a small packet's. `outermost` is the budget
    of the frame that all others are in; until that is left, it is what is spent.
    """
    budget = outermost or _current.get()
    alone = budget is None
    if budget is None:
        budget = current()
    if budget.allowed is not None:
        budget.allowed.check(codec)
    if budget.level == MOST_DEPTH:
        raise PacketError(f"frame: packets go more than {MOST_DEPTH} deep")
    budget.frames -= 1
    if budget.frames < 0:
        raise PacketError("frame: made of more packets than are read here")
    budget.work -= _FRAME_WORK + work
    if budget.work < 0:
        raise PacketError(TOO_MUCH_WORK)
    if alone or outermost is not None:
        budget._outside = budget.level, _current.set(budget)
    budget.level += 1
    return budget


@contextmanager
def only(allowed: Allows | None) -> Iterator[None]:
    """Refuse, inside the block, packets of any codec that is not allowed; None allows all.

    Examples
    --------
    >>> import numpy as np
    >>> from flowerpress.compressors import add_to, make_compressor
    >>> from flowerpress.compressors.spec.allowed import Allowed
    >>> with only(Allowed.of("topk:0.1")):
    ...     add_to(make_compressor("sign").compress(np.ones(3)), np.zeros(3))
    Traceback (most recent call last):
    ...
    flowerpress.compressors.wire.packet.PacketError: frame: codec 4 (sign) is none of ...
    """
    token = _only.set(allowed)
    try:
        yield
    finally:
        _only.reset(token)


def current() -> Budget:
    """Return the budget of what is being read.

    Where nobody has set one, a codec reads a packet of its own, and there are no bounds.
    """
    budget = _current.get()
    if budget is None:
        budget = Budget()
        budget.level = 1
    return budget


def charge(work: float) -> None:
    """Take steps from the budget, before they are made."""
    budget = _current.get()
    if budget is not None:
        budget.spend(work)


def hold(count: int, work: float = 0.0) -> None:
    """Take bytes of memory, before they are allocated, what that takes, and `work` steps besides.

    See `released`.
    """
    budget = _current.get()
    if budget is not None:
        budget.spend(_ROOM_WORK * count + work, count)


def keep(count: int) -> None:
    """Take bytes of memory that were allocated, and released, already."""
    budget = _current.get()
    if budget is not None:
        budget.spend(0.0, count)


def check(codec: int) -> None:
    """Raise `PacketError` unless packets, or their fronts, of `codec` are allowed."""
    budget = _current.get()
    if budget is not None and budget.allowed is not None:
        budget.allowed.check(codec)


@contextmanager
def released() -> Iterator[None]:
    """Give back after the block what was held in it."""
    budget = current()
    before = budget.memory
    try:
        yield
    finally:
        budget.memory = before


@contextmanager
def frames_again() -> Iterator[None]:
    """Give back after the block the frames that were read in it; their work stays charged."""
    budget = current()
    before = budget.frames
    try:
        yield
    finally:
        budget.frames = before


@contextmanager
def at(level: int) -> Iterator[None]:
    """Read what is `level` frames deep inside the block, later than what is around it."""
    budget = current()
    before, budget.level = budget.level, level
    token = _current.set(budget)
    try:
        yield
    finally:
        _current.reset(token)
        budget.level = before
