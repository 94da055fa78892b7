"""The model in an instruction: whole, or what takes the worker's to it."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from flwr.app import Array

from flowerpress.protocol import blob
from flowerpress.protocol.arrays import PiecedArray
from flowerpress.protocol.blob import ProtocolError
from flowerpress.protocol.unjoined import STYPE

_FRAME_HEAD = 24  # bytes of a packet, its checksum among them


@dataclass(frozen=True)
class ModelPart:
    """The model in an instruction: a snapshot, or the deltas from one version to another.

    Parameters
    ----------
    version : int
        The version the worker holds afterwards.
    base : int
        The version the deltas start from; -1 for a snapshot.
    packets : list of bytes, memoryviews or Pieces
        A snapshot's vectors, or one delta per version base+1 ... version.
    rates : list of float
        The step size that goes with each delta.
    array : Array, optional
        The snapshot's packets already wrapped, the same object in every worker's message: the
        server holds one copy however many workers it serves, and Flower stores equal objects once.
        A worker has it only where it shares what it makes of it with others, see
        `flowerpress.protocol.shared`.
    mark : int
        Fingerprint of what the worker holds afterwards, see `mark_of`; 0: none. A server that was
        restarted may take the same version elsewhere: a worker that was there before finds out.
    """

    version: int
    base: int = -1
    packets: list[Any] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    array: Array | None = field(default=None, compare=False)
    mark: int = 0

    @property
    def head(self) -> list[Any]:
        """What an instruction's header says of it."""
        return [self.version, self.base, self.rates, self.mark]

    @classmethod
    def snapshot(cls, version: int, packets: list[Any], mark: int = 0) -> ModelPart:
        """Return a snapshot to be shared by many instructions; its mark by default the packets'.

        Packets that are `Pieces` stay where they are: what they are views of must not change while
        a snapshot, or a message with it, is there.
        """
        array = PiecedArray(blob.scatter_blob({}, packets), STYPE)
        return cls(version, -1, packets, array=array, mark=mark or mark_of(packets))


def mark_of(packets: Iterable[Any], rates: Iterable[float] = (), before: int = 0) -> int:
    """Return the mark of what was at mark `before` and then took `packets`.

    It is a CRC-32 of the packets' heads, which hold a CRC-32 each, and of the numbers beside them.

    Examples
    --------
    >>> mark_of([b"one", b"two"]) == mark_of([b"two"], before=mark_of([b"one"]))
    True
    """
    for packet in packets:
        before = crc32(packet[:_FRAME_HEAD], before)
    for rate in rates:
        before = crc32(struct.pack("<d", rate), before)
    return before


def read_head(value: Any) -> tuple[int, int, list[float], int]:
    """Read `ModelPart.head`: version, base, rates, mark; `ProtocolError` where it is none."""
    match value:
        case [int(version), int(base), list(rates), int(mark)] if -1 <= base <= version < 2**63:
            finite = not rates or all(type(r) is float and math.isfinite(r) for r in rates)
            if finite and 0 <= mark < 2**32:
                return version, base, rates, mark
    raise ProtocolError(
        f"message field 'model' is {value!r:.80}, expected [version, base, rates, mark]"
    )
