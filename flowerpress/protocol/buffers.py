"""What a model has beside its trained vector (batch norm's statistics, masks, tables), as bytes.

Buffers travel exactly, each in its own dtype. Their bytes have one of two forms:

======  =====================================================================================
offset  content (little-endian)
======  =====================================================================================
0       magic ``FPB1``
4       u32: CRC-32 of what follows
8       the arrays in layout order, each in C order, nothing between or after them
======  =====================================================================================

or, wherever this gives every buffer back bit by bit, an ``identity`` packet of all their elements
in the vector's dtype: what versions without the first form send and read. They answer the first
form with one line that says it is no packet.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import Packet, PacketError, decompress, make_compressor
from flowerpress.compressors.identity import Identity
from flowerpress.protocol.layout import Entry, Layout

Buffers: TypeAlias = dict[str, npt.NDArray[Any]]
"""The buffers of a model by name, in their own shapes and dtypes."""

_MAGIC = b"FPB1"
_HEAD = struct.Struct("<4sI")


def pack_buffers(values: Mapping[str, npt.ArrayLike], layout: Layout) -> bytes:
    """Return the buffers of a model as bytes; empty where it has no element of any.

    Parameters
    ----------
    values : mapping of str to array
        All of the layout's buffers. Another dtype of the same kind is cast (float64 to float32).

    Raises
    ------
    ValueError
        A buffer is missing, or has another shape or kind than the layout says.

    Examples
    --------
    >>> from flowerpress.protocol.layout import Entry
    >>> layout = Layout((Entry("ids", (2,), "int64", trained=False),))
    >>> pack_buffers({"ids": np.array([1, 2])}, layout)[:4]  # as a vector of float32
    b'FPRS'
    >>> data = pack_buffers({"ids": np.array([1, 2**24 + 1])}, layout)
    >>> data[:4], len(data), unpack_buffers(data, layout)
    (b'FPB1', 24, {'ids': array([       1, 16777217])})
    """
    if not layout.buffer_dim:
        return b""
    arrays = {entry.name: _declared(values, entry) for entry in layout.buffers}
    joined = _joined(arrays, layout)
    if joined is not None:
        return make_compressor("identity").compress(joined).data
    body = b"".join(array.tobytes() for array in arrays.values())
    return _HEAD.pack(_MAGIC, crc32(body)) + body


def unpack_buffers(data: bytes, layout: Layout) -> Buffers:
    """Return the buffers in `data`, the caller's own arrays; nothing in `data` is trusted.

    Raises
    ------
    PacketError
        `data` are damaged or of another model.
    """
    check_buffers(data, layout)
    if not layout.buffer_dim:
        return {entry.name: _empty(entry) for entry in layout.buffers}
    if data[:4] != _MAGIC:
        return _split(decompress(data, max_dim=layout.buffer_dim), layout)
    if _HEAD.unpack_from(data)[1] != crc32(memoryview(data)[_HEAD.size :]):
        raise PacketError("buffers: the CRC-32 is wrong")
    values, start = {}, _HEAD.size
    for entry in layout.buffers:
        kind = np.dtype(entry.dtype).newbyteorder("<")
        raw = np.frombuffer(data, np.uint8, entry.nbytes, start)
        if entry.dtype == "bool" and raw.max(initial=0) > 1:
            raise PacketError(f"buffer {entry.name!r} is bool, and holds {raw.max()}")
        array = raw.view(kind).astype(entry.dtype)  # a copy: aligned, and nobody else's
        values[entry.name] = array.reshape(entry.shape)
        start += entry.nbytes
    return values


def check_buffers(data: bytes, layout: Layout) -> None:
    """Check that `data` are as long as a layout's buffers, before any memory is taken for them.

    Raises
    ------
    PacketError
        They are not, or are no buffers at all.
    """
    if not layout.buffer_dim:
        if data:
            raise PacketError("buffers of a model that has none")
        return
    if data[:4] == _MAGIC:
        expected = _HEAD.size + sum(entry.nbytes for entry in layout.buffers)
        if len(data) != expected:
            raise PacketError(f"buffers of {len(data)} bytes, expected {expected}")
        return
    packet = Packet.parse(data)
    if packet.header.codec != Identity.codec:
        raise PacketError(f"buffers in a packet of codec {packet.header.codec}, not of identity")
    if packet.dim != layout.buffer_dim or packet.dtype != layout.dtype:
        raise PacketError(
            f"buffers: packet of {packet.dim} x {packet.dtype}, "
            f"expected {layout.buffer_dim} x {layout.dtype}"
        )


def kept_buffers(kept: bytes | npt.NDArray[Any]) -> bytes:
    """Return what a memory or a checkpoint holds of buffers as `unpack_buffers` reads it.

    Versions that kept them as one vector of the model's dtype left a float array.
    """
    if isinstance(kept, bytes):
        return kept
    if kept.dtype == np.uint8:
        return kept.tobytes()
    return make_compressor("identity").compress(kept).data if kept.size else b""


def check_finite(values: Buffers, model: Buffers) -> None:
    """Check that no buffer has become NaN or infinite where the model's is not exactly that.

    So a mask with -inf goes on being one, and an extreme that begins at infinity may become
    finite, but nobody brings new ones into the model.

    Raises
    ------
    PacketError
        One has: says which, where, and what to do.
    """
    for name, value in values.items():
        if value.dtype.kind not in "fc" or np.isfinite(value).all():
            continue
        before = model[name]
        new = ~np.isfinite(value) & (value != before) & ~(np.isnan(value) & np.isnan(before))
        if new.any():
            place = tuple(int(i) for i in np.argwhere(new)[0])
            raise PacketError(
                f"buffer {name!r} is {value[place]} at {list(place)}, the model has "
                f"{before[place]} there: find out why, or keep it out of the run "
                "(register_buffer with persistent=False)"
            )


def changed_norm(values: Buffers, model: Buffers) -> float:
    """Return the l2 norm of those finite real and complex numbers that the model has otherwise.

    What nobody trains, such as a mask with -3e38, is no statistic: it does not count. Nor do
    integers and booleans, which are taken from a client whole or not at all.

    Examples
    --------
    >>> model = {"mean": np.zeros(2), "mask": np.array([0.0, -1e300]), "seen": np.array(0)}
    >>> changed_norm({**model, "mean": np.array([3.0, 4.0]), "seen": np.array(9)}, model)
    5.0
    """
    lengths = [0.0]
    for name, value in values.items():
        if value.dtype.kind not in "fc":
            continue
        wide = np.complex128 if value.dtype.kind == "c" else np.float64
        counted = value[(value != model[name]) & np.isfinite(value)].astype(wide)
        largest = float(np.abs(counted).max(initial=0.0))
        if largest:
            lengths.append(largest * float(np.linalg.norm(counted / largest)))
    return math.hypot(*lengths)


def _declared(values: Mapping[str, npt.ArrayLike], entry: Entry) -> npt.NDArray[Any]:
    """Return buffer `entry` of `values` as the layout declares it."""
    if entry.name not in values:
        raise ValueError(f"the task gives no buffer {entry.name!r}; it gives {list(values)}")
    array = np.asarray(values[entry.name])
    if array.shape != entry.shape or not np.can_cast(array.dtype, entry.dtype, "same_kind"):
        raise ValueError(
            f"buffer {entry.name!r} is {array.dtype} {array.shape}, but was {entry.dtype} "
            f"{entry.shape} at the start"
        )
    return array.astype(np.dtype(entry.dtype).newbyteorder("<"), order="C", copy=False)


def _joined(arrays: Buffers, layout: Layout) -> npt.NDArray[np.floating[Any]] | None:
    """Return all elements as one vector of the layout's dtype, None where that is not exact."""
    if any(array.dtype.kind == "c" for array in arrays.values()):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        joined = np.concatenate(
            [array.reshape(-1).astype(layout.dtype) for array in arrays.values()]
        )
    if not np.isfinite(joined).all():
        return None
    try:
        back = _split(joined, layout)
    except PacketError:  # rounded up to more than an integer dtype holds
        return None
    return joined if all(np.array_equal(back[name], arrays[name]) for name in arrays) else None


def _split(joined: npt.NDArray[np.floating[Any]], layout: Layout) -> Buffers:
    """Return the buffers of which all elements are in one float vector, integers rounded."""
    values, start = {}, 0
    for entry in layout.buffers:
        part, kind = joined[start : start + entry.size].reshape(entry.shape), np.dtype(entry.dtype)
        if kind.kind in "iu":
            part = np.asarray(np.rint(part))
            limits = np.iinfo(kind)
            # The largest integer is no float, the number after it is.
            if part.size and not limits.min <= part.min() <= part.max() < float(limits.max) + 1:
                raise PacketError(f"buffer {entry.name!r} is {kind}, and holds {part.max():g}")
        with np.errstate(over="ignore"):
            array = part.astype(kind)
        if kind.kind == "f" and not np.isfinite(array).all():
            raise PacketError(f"buffer {entry.name!r} is {kind}, and holds more than that has")
        values[entry.name] = array
        start += entry.size
    return values


def _empty(entry: Entry) -> npt.NDArray[Any]:
    return np.empty(entry.shape, entry.dtype)
