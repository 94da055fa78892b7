"""What may be said of an answer's packets before they are read."""

from __future__ import annotations

from flowerpress.compressors import Packet, PacketError
from flowerpress.protocol import Layout, ProtocolError, Reply
from flowerpress.protocol.buffers import check_buffers


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
    count = int(length is not None)
    if len(reply.packets) != count:
        raise ProtocolError(f"this update has {len(reply.packets)} packets, expected {count}")
    if bare and reply.buffers:
        raise ProtocolError("buffers where none are expected")
    if not bare and (reply.buffers or layout.buffer_dim):
        check_buffers(reply.buffers, layout)
    packets = list(map(Packet.view, reply.packets))  # nobody else writes to an answer's memory
    for packet in packets:
        if packet.dim != length or packet.dtype != layout.dtype:
            raise PacketError(
                f"packet of {packet.dim} x {packet.dtype}, expected {length} x {layout.dtype}"
            )
    return packets
