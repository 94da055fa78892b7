"""From packets back to vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flowerpress.compressors.kernels.arithmetic import by_default_rules
from flowerpress.compressors.kernels.device import stays_on_device
from flowerpress.compressors.wire import reading
from flowerpress.compressors.wire.inputs import Vector
from flowerpress.compressors.wire.packet import Buffer, Packet, PacketError
from flowerpress.compressors.wire.reading import Opened
from flowerpress.compressors.wire.tensors import add_packet

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
_WRONG_OUT = "add_to: out must be a writeable, contiguous 1-D float32 or float64 array"


@by_default_rules
def add_to(packet: Packet | Buffer | Opened, out: Vector, weight: float = 1.0) -> None:
    """Do ``out += weight * decoded`` without a dense temporary.

    The packet is checked as a whole first: `out` is changed only if all of it is right.

    Parameters
    ----------
    packet : Packet, Opened or bytes
        The packet, or the bytes of its frame.
    out : Vector, shape (packet.dim,)
        A contiguous float32 or float64 array; its dtype may differ from the packet's. Or a tensor
        on a CUDA device, to which the packet's numbers are copied (``docs/compressors.md``).
    weight : float, default 1.0
        A finite factor.

    Raises
    ------
    PacketError
        If the packet is damaged, its dim is not the length of `out`, or it costs more than an
        honest one may (see `flowerpress.compressors.wire.budget`).
    ValueError
        If `out` or `weight` is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from flowerpress.compressors import add_to, make_compressor
    >>> packet = make_compressor("topk:k=1").compress(np.array([1.0, -2.0]))
    >>> total = np.ones(2)
    >>> add_to(packet, total, weight=0.5)
    >>> total
    array([1., 0.])
    """
    tensor = _require(out, weight)
    packet, decoded, left = reading.parse(packet)
    if packet.dim != len(out):
        raise PacketError(f"frame: dim is {packet.dim}, but out has length {len(out)}")
    # Overflow is looked for where it can happen; the sum itself may still reach infinity, in both
    # kernels alike.
    with left:
        decoded = decoded or reading.decode(packet)
        if tensor:
            add_packet(decoded, packet.dtype, out, float(weight))
        else:
            decoded.add_to(out.view(np.ndarray), float(weight))


def _require(out: Any, weight: object) -> bool:
    """Return whether `out` is a tensor; raises ValueError unless both are as `add_to` says."""
    tensor = not isinstance(out, np.ndarray)
    if tensor and not _is_vector_on_device(out):
        raise ValueError(_WRONG_OUT)
    if not tensor and (
        isinstance(out, np.ma.MaskedArray)
        or out.dtype not in _DTYPES
        or out.ndim != 1
        or not (out.flags.c_contiguous and out.flags.writeable)
    ):
        raise ValueError(_WRONG_OUT)
    try:
        finite = math.isfinite(weight)  # type: ignore[arg-type]
    except (TypeError, OverflowError):  # no number, or an integer that no float can hold
        finite = False
    if not finite:
        raise ValueError(f"add_to: weight must be a finite number, got {weight!r}")
    return tensor


def _is_vector_on_device(out: Any) -> bool:
    if not stays_on_device(out):
        return False
    return out.dim() == 1 and out.is_contiguous() and not out.requires_grad


@by_default_rules
def decompress(packet: Packet | Buffer | Opened, *, max_dim: int = 1 << 28) -> Vector:
    """Return the vector that a packet holds, in the dtype that was compressed.

    Parameters
    ----------
    packet : Packet, Opened or bytes
        The packet, or the bytes of its frame.
    max_dim : int, default 2**28
        The longest vector to make: a sparse packet of a few bytes may claim 2**32 - 1 coordinates.

    Raises
    ------
    PacketError
        If the packet is damaged, its dim is above `max_dim`, or it costs more than an honest one
        may (see `flowerpress.compressors.wire.budget`).
    """
    packet, decoded, left = reading.parse(packet)
    if packet.dim > max_dim:
        raise PacketError(
            f"frame: dim is {packet.dim}, above max_dim={max_dim}; pass a larger max_dim"
        )
    return reading.whole_vector(packet, decoded, left)
