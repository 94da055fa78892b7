"""Packets inside packets: how deep and how many they may be, and how one is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np

from flowerpress.compressors import budget
from flowerpress.compressors.base import Compressor, Decoded, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.kernels.packing import U8
from flowerpress.compressors.kernels.philox import philox4x32
from flowerpress.compressors.packet import Packet, PacketError

MAX_DEPTH = budget.MOST_DEPTH


def inside(compressor: Compressor) -> list[Compressor]:
    """Return the compressors that `compressor` is made of."""
    made_of = (getattr(compressor, field.name) for field in fields(compressor))
    return [part for part in made_of if isinstance(part, Compressor)]


def parts(compressor: Compressor) -> Iterator[Compressor]:
    """Yield `compressor` and all that it is made of, in turn."""
    yield compressor
    for part in inside(compressor):
        yield from parts(part)


def depth(compressor: Compressor) -> int:
    """Return how many frames around one another a packet of `compressor` has."""
    return 1 + max(map(depth, inside(compressor)), default=0)


def frames(compressor: Compressor) -> int:
    """Return how many frames a packet of `compressor` is made of.

    The front of a chain has none of its own: its header lies in the chain's.

    >>> from flowerpress.compressors import make_compressor
    >>> frames(make_compressor("induced(topk:0.1+qsgd:7; sign)"))
    4
    """
    front = getattr(compressor, "front", None)
    return 1 + sum(frames(part) for part in inside(compressor) if part is not front)


def require_depth(compressor: Compressor) -> None:
    """Raise ValueError if `compressor` is made of compressors too many levels deep, or too many."""
    if depth(compressor) > MAX_DEPTH:
        raise ValueError(f"compressors go {depth(compressor)} deep, at most {MAX_DEPTH} are read")
    if (count := frames(compressor)) > budget.MOST_FRAMES:
        raise ValueError(
            f"{count} packets inside one another, at most {budget.MOST_FRAMES} are read"
        )


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


def inner_packet(data: U8, outer: Packet, dim: int) -> Packet:
    """Return the frame inside `outer`, of its dtype and of length `dim`; not a copy."""
    inner = Packet.view(data.data)
    if inner.dtype != outer.dtype:
        raise PacketError(f"frame: {inner.dtype} inside a packet of {outer.dtype}")
    if inner.dim != dim:
        raise PacketError(f"frame: dim is {inner.dim} inside a packet that leaves {dim}")
    return inner


def decode(packet: Packet) -> Decoded:
    """Check a packet, the outermost one or one inside another, and charge its budget."""
    from flowerpress.compressors.registry import codec

    kind = codec(packet.header.codec)
    with budget.Frame(kind.codec):
        budget.charge(kind.reading_work * packet.dim)
        return kind.decode(packet)


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
    from flowerpress.compressors.registry import codec

    kind = codec(packet.header.codec)
    try:
        with budget.Frame(kind.codec):
            return kind.spec_of(packet)
    except PacketError:
        raise
    except ValueError as error:  # a parameter that no compressor may have
        raise PacketError(f"frame: {error}") from error


def codes_of(packet: Packet) -> tuple[int, int]:
    """Return the codes at the end of a packet inside another one; see `Compressor.codes`."""
    from flowerpress.compressors.registry import codec

    kind = codec(packet.header.codec)
    with budget.Frame(kind.codec):
        return kind.codes(packet)
