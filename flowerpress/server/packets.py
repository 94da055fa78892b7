"""An answer's packets: what is checked before they are read, and how each is opened once."""

from __future__ import annotations

from flowerpress.compressors import Opened, Packet, PacketError
from flowerpress.protocol import Layout, ProtocolError, Reply
from flowerpress.protocol.buffers import check_buffers

MOST_OPEN = 64 << 20
"""Bytes of what is open at a time: the answer that is taken, and those that a glance left open."""
_ROOM = 3  # times the bytes of an answer's packets that opening one more of its size may take


def check_packets(
    reply: Reply, layout: Layout, length: int | None, *, bare: bool = False
) -> list[Packet]:
    """Return the packets of an answer: one of so many numbers, in the model's dtype; or none.

    Parameters
    ----------
    length : int or None
        None: it must have no packet.
    bare : bool
        Whether it must have no buffers even if the model has some.

    Raises
    ------
    PacketError, ProtocolError
        Another number of packets, or one of another length or dtype.
    """
    _check_parts(reply, layout, int(length is not None), bare=bare)
    packets = list(map(Packet.parse, reply.packets))
    for packet in packets:
        if packet.dim != length or packet.dtype != layout.dtype:
            raise PacketError(
                f"packet of {packet.dim} x {packet.dtype}, expected {length} x {layout.dtype}"
            )
    return packets


def _check_parts(reply: Reply, layout: Layout, count: int, *, bare: bool) -> None:
    if len(reply.packets) != count:
        raise ProtocolError(f"this update has {len(reply.packets)} packets, expected {count}")
    if bare and reply.buffers:
        raise ProtocolError("buffers where none are expected")
    if not bare:
        check_buffers(reply.buffers, layout)


class Openings:
    """Opens the packets of the answers to one question, each once where memory allows it.

    Where answers are glanced at before they are taken, the packets that were opened for it are kept
    for `take`, as many as `most` bytes hold beside an answer that is being opened.

    Parameters
    ----------
    layout : Layout
        The model's.
    length : int
        How many numbers an update's packet has.
    bare : bool, default False
        Whether answers have no buffers even if the model has some.
    most : int, default 64 MiB
    """

    def __init__(
        self, layout: Layout, length: int, *, bare: bool = False, most: int = MOST_OPEN
    ) -> None:
        self._layout, self._length, self._bare = layout, length, bare
        self._left = most
        self._parsed: list[Packet] = []
        self._kept: dict[int, list[Opened]] = {}

    def check(self, reply: Reply) -> None:
        """Raise `PacketError` or `ProtocolError` unless an answer may be an update."""
        self._parsed = check_packets(reply, self._layout, self._length, bare=self._bare)

    def glance(self, reply: Reply) -> list[Opened]:
        """Return the packets of the answer that was checked last."""
        opened, self._parsed = list(map(Opened, self._parsed)), []
        size = sum(each.nbytes for each in opened)
        if _ROOM * size <= self._left:
            self._left -= size
            self._kept[reply.client] = opened
        return opened

    def take(self, reply: Reply) -> list[Opened]:
        """Return an answer's packets, checked: what the glance at these very bytes left, or anew.

        Raises
        ------
        PacketError, ProtocolError
            It is no update that the model can take, or damaged.
        """
        length = self._length if reply.status == "update" else None
        kept = self._kept.pop(reply.client, [])
        if length is not None and kept and [each.packet.data for each in kept] == reply.packets:
            _check_parts(reply, self._layout, 1, bare=self._bare)
            return kept
        packets = check_packets(reply, self._layout, length, bare=self._bare)
        return list(map(Opened, packets))
