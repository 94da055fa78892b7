"""What may be said of an answer's packets before they are read."""

from __future__ import annotations

from collections.abc import Sequence

from flowerpress.compressors import Packet, PacketError
from flowerpress.protocol import Layout, ProtocolError, Reply
from flowerpress.protocol.buffers import check_buffers


def check_packets(
    reply: Reply, layout: Layout, dims: Sequence[int], *, bare: bool = False
) -> list[Packet]:
    """Return the packets of an update, which are of these lengths, in the model's dtype.

    Parameters
    ----------
    bare : bool
        Whether it must have no buffers even if the model has some.

    Raises
    ------
    PacketError, ProtocolError
        Another number of packets, or one of another length or dtype.
    """
    if len(reply.packets) != len(dims):
        raise ProtocolError(f"this update has {len(reply.packets)} packets, expected {len(dims)}")
    if bare and reply.buffers:
        raise ProtocolError("buffers where none are expected")
    if not bare:
        check_buffers(reply.buffers, layout)
    packets = list(map(Packet.parse, reply.packets))
    for packet, dim in zip(packets, dims, strict=True):
        if packet.dim != dim or packet.dtype != layout.dtype:
            raise PacketError(
                f"packet of {packet.dim} x {packet.dtype}, expected {dim} x {layout.dtype}"
            )
    return packets
