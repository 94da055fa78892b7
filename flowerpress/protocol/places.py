"""Coordinates a server asks for: ascending places below the model's length, in few bytes."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.wire.ids import decode_ids, encode_ids
from flowerpress.protocol.blob import ProtocolError

Places = npt.NDArray[np.uint32]
_HEAD = struct.Struct("<BBHI")  # id code, its parameter, zero, count


def encode_places(places: Places, dim: int) -> bytes:
    """Return the bytes of `places`, ascending and below `dim`; at least one.

    Examples
    --------
    >>> import numpy as np
    >>> encode_places(np.array([3, 300], np.uint32), 1000).hex()
    '020000000200000003a802'
    """
    tag, parameter, code = encode_ids(places, dim)
    return _HEAD.pack(tag, parameter, 0, places.size) + code.tobytes()


def decode_places(data: bytes, dim: int) -> Places:
    """Return the places in `data`.

    Raises
    ------
    ProtocolError
        They are not ascending places below `dim`.
    """
    if len(data) < _HEAD.size:
        raise ProtocolError(f"places take at least {_HEAD.size} bytes, got {len(data)}")
    tag, parameter, spare, count = _HEAD.unpack_from(data)
    if spare or not 1 <= count <= dim:
        raise ProtocolError(f"{count} places of {dim}, spare bytes {spare}")
    code = np.frombuffer(data, np.uint8, offset=_HEAD.size)
    try:
        return decode_ids(tag, parameter, code, count, dim)
    except ValueError as error:
        raise ProtocolError(f"places: {error}") from None
