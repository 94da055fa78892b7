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
"""

from flowerpress.compressors.apply import add_to, decompress
from flowerpress.compressors.base import Compressor, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.norms import norm
from flowerpress.compressors.packet import Packet, PacketError
from flowerpress.compressors.reading import Opened
from flowerpress.compressors.registry import compressor_names, make_compressor

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
