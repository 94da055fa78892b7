"""What travels beside the vector: buffers that are not trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import decompress, make_compressor
from flowerpress.protocol import Layout

FloatVector = npt.NDArray[np.floating[Any]]


def pack_buffers(buffers: FloatVector) -> bytes:
    """Return the packet of a model's buffers; empty where it has none."""
    if not buffers.size:
        return b""
    return make_compressor("identity").compress(buffers).data


def unpack_buffers(packet: bytes, layout: Layout) -> FloatVector:
    """Return the buffers in a worker's packet; raises `PacketError` where they are damaged."""
    if not layout.buffer_dim:
        return np.empty(0, layout.dtype)
    return decompress(packet, max_dim=layout.buffer_dim)


def average_buffers(
    buffers: FloatVector, received: Sequence[FloatVector], masses: Sequence[float]
) -> FloatVector:
    """Return the weighted mean of the buffers received; as they were if none were."""
    if not buffers.size or not received:
        return buffers
    mean = np.average(np.asarray(received, np.float64), axis=0, weights=masses)
    return mean.astype(buffers.dtype)
