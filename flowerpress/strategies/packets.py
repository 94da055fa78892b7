"""What may be said of an answer's packets before they are read."""

from __future__ import annotations

from collections.abc import Sequence

from flowerpress.compressors import Packet, PacketError
from flowerpress.protocol import Layout, ProtocolError, Reply


def check_packets(reply: Reply, layout: Layout, dims: Sequence[int], *, bare: bool = False) -> None:
    """Check that the packets of an update are of these lengths, in the model's dtype.

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
    wanted = list(zip(reply.packets, dims, strict=True))
    if layout.buffer_dim and not bare:
        wanted.append((reply.buffers, layout.buffer_dim))
    elif reply.buffers:
        raise ProtocolError("buffers where none are expected")
    for data, dim in wanted:
        packet = Packet.parse(data)
        if packet.dim != dim or packet.dtype != layout.dtype:
            raise PacketError(
                f"packet of {packet.dim} x {packet.dtype}, expected {dim} x {layout.dtype}"
            )
