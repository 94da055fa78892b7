"""Compressors made of others: how deep and of how many packets theirs are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from flowerpress.compressors.base import Compressor
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.kernels.philox import philox4x32
from flowerpress.compressors.wire import budget

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
