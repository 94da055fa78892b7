"""One message as one run of bytes: a small JSON header, then packets.

Flower charges about 2.5 KB of framing for every array of a message, so what travels one way in a
round travels as one `Array` with its own serialization type, ``flowerpress.v1``. A strategy that
does not know it (plain FedAvg) fails loudly instead of averaging bytes.

======  =====================================================================================
offset  content (little-endian)
======  =====================================================================================
0       magic ``FPM1``
4       u32: length H of the header, at most 1 MiB
8       header: one JSON object in UTF-8, keys sorted, no spaces; its key ``"sizes"`` lists
        the packets' lengths in bytes
8+H     the packets, one after the other, nothing between or after them
======  =====================================================================================
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import Array

from flowerpress.protocol.arrays import PiecedArray, Pieces, aligned
from flowerpress.protocol.unjoined import STYPE, Unjoined

Data = bytes | memoryview
"""Bytes of a message: a view where it is long, of memory that is the reader's own."""
_MAGIC = b"FPM1"
_PREFIX = struct.Struct("<4sI")
_MAX_HEADER = 2**20
_MAX_PACKETS = 4_096


class ProtocolError(ValueError):
    """A message from a peer is not what it must be: says what is wrong and where."""


def encode_blob(header: dict[str, Any], packets: Sequence[Data] = ()) -> bytes:
    r"""Join a header and packets into one run of bytes.

    Examples
    --------
    >>> encode_blob({"round": 1}, [b"abc"])
    b'FPM1\x17\x00\x00\x00{"round":1,"sizes":[3]}abc'
    """
    return b"".join([_head(header, packets), *packets])


def unjoined(
    header: dict[str, Any], packets: Sequence[Data] = (), *, held: bool = False
) -> Unjoined:
    """Return what `encode_blob` does as the array of a message; see `Unjoined`."""
    return Unjoined([_head(header, packets), *packets], held=held)


def scatter_blob(header: dict[str, Any], packets: Sequence[Data | Pieces]) -> Pieces:
    """Return the bytes of `encode_blob`, as pieces that lie where the packets do."""
    pieces: list[Data] = [_head(header, packets)]
    for packet in packets:
        pieces += packet.pieces if isinstance(packet, Pieces) else [packet]
    return Pieces(pieces)


def _head(header: dict[str, Any], packets: Sequence[Data | Pieces]) -> bytes:
    return framed(text({**header, "sizes": list(map(len, packets))}))


def framed(header: str) -> bytes:
    """Return what a message begins with, of a header that is JSON already."""
    data = header.encode()
    return _PREFIX.pack(_MAGIC, len(data)) + data


def decode_blob(data: Data, max_header: int = _MAX_HEADER) -> tuple[dict[str, Any], list[Any]]:
    """Split what `encode_blob` joined; every length is checked before it is used.

    Of bytes the packets are copies. Of a view they are views too, where they are aligned.

    Raises
    ------
    ProtocolError
        Wrong magic, a length that does not fit, a header that is no JSON object, bytes left over.
    """
    header, sizes, end = _read_header(data, max_header)
    if end + sum(sizes) != len(data):
        raise ProtocolError(f"packets of {sum(sizes)} bytes announced, {len(data) - end} present")
    packets: list[Data] = []
    for size in sizes:
        packet = data[end : end + size]
        packets.append(packet if isinstance(packet, bytes) else aligned(packet))
        end += size
    return header, packets


def decode_array(array: Array, max_header: int = _MAX_HEADER) -> tuple[dict[str, Any], list[Any]]:
    """Split the blob of a message's array; if it is `Unjoined` the packets are the sender's own.

    Raises
    ------
    ProtocolError
        The array is not one of flowerpress, or as of `decode_blob`.
    """
    parts = array.parts if isinstance(array, Unjoined) and array.stype == STYPE else ()
    if parts:
        header, sizes, end = _read_header(parts[0], max_header)
        packets = list(parts[1:])
        if end == len(parts[0]) and sizes == list(map(len, packets)):
            return header, packets
    return decode_blob(from_array(array), max_header)


def _read_header(data: Data, max_header: int) -> tuple[dict[str, Any], list[int], int]:
    """Return the header that a blob begins with, the packets' sizes, and where the header ends."""
    if len(data) < _PREFIX.size:
        raise ProtocolError(
            f"message of {len(data)} bytes is shorter than its prefix of {_PREFIX.size}"
        )
    magic, length = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise ProtocolError(
            f"message starts with {magic!r}, not {_MAGIC!r}: not a flowerpress message"
        )
    end = _PREFIX.size + length
    if length > max_header or end > len(data):
        raise ProtocolError(f"header of {length} bytes does not fit a message of {len(data)} bytes")
    try:
        header, read = _DECODER.raw_decode(written := bytes(data[_PREFIX.size : end]).decode())
        if read != len(written):
            raise ValueError(f"extra data at character {read}")
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"message header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise ProtocolError(f"message header is a JSON {type(header).__name__}, not an object")
    sizes = header.pop("sizes", None)
    if not isinstance(sizes, list) or len(sizes) > _MAX_PACKETS:
        raise ProtocolError("header field 'sizes' must list the packets' lengths")
    for size in sizes:
        if type(size) is not int or size < 0:
            raise ProtocolError("header field 'sizes' must hold whole numbers >= 0")
    return header, sizes, end


def start_of_packets(data: Data) -> int:
    """Return where the packets of a message begin, as its first bytes say; 0 if it is none."""
    if len(data) < _PREFIX.size or bytes(data[:4]) != _MAGIC:
        return 0
    return _PREFIX.size + int(_PREFIX.unpack_from(data)[1])


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


# Made once: json.dumps and json.loads make one a call, where an option is given.
text = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""Return the JSON of a value, as a header has it."""
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def to_array(blob: bytes) -> Array:
    """Wrap a blob as the one `Array` of a Flower message."""
    return Array(dtype="uint8", shape=(len(blob),), stype=STYPE, data=blob)


def from_array(array: Array) -> Data:
    """Take the blob out of an `Array`; raises `ProtocolError` for any other serialization type.

    It is a view where the array is a message's own memory, see `flowerpress.transport.codec`.
    """
    if array.stype != STYPE:
        raise ProtocolError(f"array has serialization type {array.stype!r}, expected {STYPE!r}")
    if isinstance(array, PiecedArray) and len(array.pieces.pieces) == 1:
        return array.pieces.pieces[0]
    return bytes(array.data)


def field(header: dict[str, Any], name: str, kind: type) -> Any:
    """Read header field `name`, checked to be a `kind` (a whole number may stand for a float).

    Raises
    ------
    ProtocolError
        The field is missing, of another type, or a negative whole number.
    """
    value: Any = header.get(name)
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not kind:
        raise ProtocolError(f"message field {name!r} is {value!r:.80}, expected {kind.__name__}")
    if isinstance(value, int) and not 0 <= value < 2**63:
        raise ProtocolError(f"message field {name!r} is {value}, expected 0 <= value < 2**63")
    return value


def fields(header: dict[str, Any], kinds: Mapping[str, type]) -> dict[str, Any]:
    """Read several header fields, each checked to be of its kind; see `field`."""
    found: dict[str, Any] = {}
    value: Any
    for name, kind in kinds.items():
        value = header.get(name)
        fits = type(value) is kind and (type(value) is not int or 0 <= value < 2**63)
        found[name] = value if fits else field(header, name, kind)
    return found
