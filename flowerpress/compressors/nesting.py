"""Packets inside packets: how deep they may go, and how one is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, replace

from flowerpress.compressors.base import Compressor, Decoded
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.kernels.philox import philox4x32
from flowerpress.compressors.packet import Buffer, Packet, PacketError

MAX_DEPTH = 8
"""Frames around one another, the outermost included."""

_depth: ContextVar[int] = ContextVar("depth", default=1)


def depth(compressor: Compressor) -> int:
    """Return how many frames around one another a packet of `compressor` has."""
    parts = [getattr(compressor, field.name) for field in fields(compressor)]
    return 1 + max((depth(part) for part in parts if isinstance(part, Compressor)), default=0)


def require_depth(compressor: Compressor) -> None:
    """Raise ValueError if `compressor` is made of compressors too many levels deep."""
    if depth(compressor) > MAX_DEPTH:
        raise ValueError(f"compressors go {depth(compressor)} deep, at most {MAX_DEPTH} are read")


def substream(draw: Draw, which: int) -> Draw:
    """Return the draw of the part number `which` of a composition.

    Parts need randomness of their own: two equal compressors with one draw would choose alike, and
    their composition would not be unbiased. All ranks of a cohort change to the same stream, so
    what they share in the whole they share in each part.

    >>> substream(Draw(rank=1, cohort=2), 1).stream == substream(Draw(cohort=2), 1).stream
    True
    """
    seed = (draw.seed & 0xFFFFFFFF, draw.seed >> 32)
    stream, *_ = philox4x32((draw.stream, which, 0, 0), seed)
    return replace(draw, stream=stream)


@contextmanager
def one_deeper() -> Iterator[None]:
    """Count a level while a packet inside a packet is read; `PacketError` at too many."""
    level = _depth.get() + 1
    if level > MAX_DEPTH:
        raise PacketError(f"frame: packets go more than {MAX_DEPTH} deep")
    token = _depth.set(level)
    try:
        yield
    finally:
        _depth.reset(token)


def inner_packet(data: Buffer, outer: Packet, dim: int) -> Packet:
    """Return the frame inside `outer`, of its dtype and of length `dim`, with a codec's number."""
    inner = Packet.parse(data)
    if inner.dtype != outer.dtype:
        raise PacketError(f"frame: {inner.dtype} inside a packet of {outer.dtype}")
    if inner.dim != dim:
        raise PacketError(f"frame: dim is {inner.dim} inside a packet that leaves {dim}")
    return inner


def decode(packet: Packet) -> Decoded:
    """Check a packet inside another one."""
    from flowerpress.compressors.registry import codec

    with one_deeper():
        return codec(packet.header.codec).decode(packet)


def spec_of(packet: Packet) -> str:
    """Return the spec of a packet inside another one."""
    with one_deeper():
        return packet.compressor


def codes_of(packet: Packet) -> tuple[int, int]:
    """Return the codes at the end of a packet inside another one; see `Compressor.codes`."""
    from flowerpress.compressors.registry import codec

    with one_deeper():
        return codec(packet.header.codec).codes(packet)
