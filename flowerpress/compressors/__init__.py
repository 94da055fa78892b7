"""Compressors: vectors to packets of bytes, and back.

A compressor is a frozen dataclass of numbers that turns a 1-D float32 or float64 vector into a
:class:`Packet`. A packet describes itself: it decodes with no other context.

>>> import numpy as np
>>> from flowerpress.compressors import decompress, make_compressor
>>> x = np.array([0.5, -3.0, 0.0, 2.0], dtype=np.float32)
>>> packet = make_compressor("topk:k=2").compress(x)
>>> decompress(packet)
array([ 0., -3.,  0.,  2.], dtype=float32)
>>> packet.nbytes, packet.compressor
(41, 'topk:k=2')

============= ======================================================================
`base`        what a compressor is, and what it states about itself
`draw`        the randomness of one packet
`front`       compressors that hand values on to another
`fields`      the values of spec fields, checked
`identity`    the vector as it is
`wire`        from vectors to bytes and back, whatever the compressor
`sparse`      some coordinates and their places
`quantized`   a few bits for every coordinate
`rotated`     rotations, and what is sent of rotated vectors
`linear`      sketches and low rank
`composed`    compressors made of others
`spec`        from a text to a compressor
`norms`       how large a packet's vector is
`contraction` which compressors error feedback can use
`vectors`     arithmetic on arrays, and on tensors on a device
`feedback`    the memory around a compressor, and the commit rule
`testing`     checks of a compressor's promises, for those who write one
`kernels`     the loops over coordinates
============= ======================================================================
"""

from flowerpress.compressors.base import Compressor, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.norms import norm
from flowerpress.compressors.spec.registry import compressor_names, make_compressor
from flowerpress.compressors.wire.apply import add_to, decompress
from flowerpress.compressors.wire.packet import Packet, PacketError
from flowerpress.compressors.wire.reading import Opened

__all__ = [
    "Compressor",
    "Draw",
    "Opened",
    "Packet",
    "PacketError",
    "Traits",
    "Vector",
    "add_to",
    "compressor_names",
    "decompress",
    "make_compressor",
    "norm",
]
