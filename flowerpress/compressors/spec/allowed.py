"""Which packets a run takes: those that its compressors make."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from flowerpress.compressors.base import Compressor
from flowerpress.compressors.composed import nesting
from flowerpress.compressors.composed.induced import Induced
from flowerpress.compressors.composed.scaled import Scaled
from flowerpress.compressors.spec.registry import make_compressor
from flowerpress.compressors.wire.budget import MOST_FRAMES
from flowerpress.compressors.wire.codecs import codec as class_of
from flowerpress.compressors.wire.packet import PacketError


@dataclass(frozen=True)
class Allowed:
    """Codecs, and how many frames a packet may be made of.

    Parameters
    ----------
    codecs : tuple of (int, str)
        Their numbers and names.
    frames : int
        As many as the largest of the compressors makes.

    Examples
    --------
    >>> allowed = Allowed.of("topk:0.01+qsgd:7", "identity")
    >>> allowed.names, allowed.frames
    ('+, topk, qsgd, identity', 2)
    """

    codecs: tuple[tuple[int, str], ...]
    frames: int

    @classmethod
    def of(cls, *compressors: str | Compressor) -> Allowed:
        """Return what these compressors send."""
        made = [make_compressor(each) for each in compressors]
        found = dict.fromkeys(
            (part.codec, part.name) for each in made for part in nesting.parts(each)
        )
        return cls(tuple(found), max(map(nesting.frames, made), default=0))

    def repeated(self) -> Allowed:
        """Return this with what `repeat.repeated` makes of the compressors."""
        around = tuple((cls.codec, cls.name) for cls in (Induced, Scaled))
        return Allowed(tuple(dict.fromkeys(self.codecs + around)), MOST_FRAMES)

    @cached_property
    def _numbers(self) -> frozenset[int]:
        return frozenset(dict(self.codecs))

    @property
    def names(self) -> str:
        """The compressors' names, for messages."""
        return ", ".join(name for _, name in self.codecs)

    def check(self, codec: int) -> None:
        """Raise `PacketError` unless packets of `codec` are taken."""
        if codec not in self._numbers:
            raise PacketError(
                f"frame: codec {codec} ({class_of(codec).name}) is none of this run's "
                f"({self.names}): give the sender the run's compressor"
            )
