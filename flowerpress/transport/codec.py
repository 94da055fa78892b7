"""A Flower message as bytes, by Flower's public API alone.

A message is a length, a JSON header of that length, and then the data of its arrays and byte
strings, one after the other:

======  =====================================================================================
offset  content (little-endian)
======  =====================================================================================
0       u32: length H of the header: at most 1 MiB, or 2 % of the message and 16 MiB;
        plus 2^31 where the header is deflated, see `heads`
4       header: one JSON object in UTF-8
4+H     the buffers, whose lengths the header lists
======  =====================================================================================

The header has ``type``, ``group`` and ``ttl`` as Flower's metadata, and in place of a content it
may have ``error``: a code and a reason. ``records`` describes the content: arrays keep their type,
shape and serialization as they are. Nothing is joined on the way out, nothing is copied twice on
the way in: a model of 100 MB that goes to many clients is in memory once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)

from flowerpress.protocol import printable
from flowerpress.protocol.arrays import PiecedArray, Pieces
from flowerpress.protocol.blob import Data
from flowerpress.protocol.unjoined import STYPE, Unjoined
from flowerpress.transport.heads import PREFIX, SHORT, HeadError, inflate
from flowerpress.transport.pipes import Place, Readable

_HEADER, _MAX_HEADER = 2**20, 2**24  # bytes of any header, and of a large message's
_MAX_BUFFERS = 2**16
_MAX_NAME = 2**12
_LONG = 2**16  # bytes of a buffer that is not copied


class CodecError(ValueError):
    """Bytes that are no message: says what is wrong."""


class Head(NamedTuple):
    """What a message says of itself.

    Parameters
    ----------
    kind, group : str
        The message type and the group id.
    ttl : float
        Seconds that the message is good for.
    error : Error or None
        In place of a content.
    """

    kind: str
    group: str
    ttl: float
    error: Error | None


# --- out ------------------------------------------------------------------------------------------


def encode(message: Message) -> list[Data]:
    """Return a message as buffers, to be sent one after the other.

    Examples
    --------
    >>> import io
    >>> from flowerpress.protocol import ensure_task_identity
    >>> ensure_task_identity(1)
    >>> data = b"".join(encode(Message(RecordDict({"m": MetricRecord({"loss": 0.5})}), 2, "train")))
    >>> head, content = decode(io.BytesIO(data), len(data))
    >>> head.kind, content["m"]["loss"]
    ('train', 0.5)
    """
    metadata = message.metadata
    buffers: list[Data | Pieces] = []
    header: dict[str, Any] = {}
    header |= {"type": metadata.message_type, "group": metadata.group_id, "ttl": metadata.ttl}
    if message.has_error():
        header["error"] = [message.error.code, str(message.error.reason)[:_MAX_NAME]]
    else:
        header["records"] = [
            [name, *_describe(record, buffers)] for name, record in message.content.items()
        ]
    header["sizes"] = [len(buffer) for buffer in buffers]
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    sent: list[Data] = [PREFIX.pack(len(text)) + text]
    for buffer in buffers:
        sent += buffer.pieces if isinstance(buffer, Pieces) else [buffer]
    return sent


def _describe(record: Any, buffers: list[Data | Pieces]) -> tuple[str, list[Any]]:
    """Return the kind of a record and its entries; what they have of bytes goes to `buffers`."""
    if isinstance(record, ArrayRecord):
        entries: list[Any] = []
        for name, array in record.items():
            entries.append([name, array.dtype, list(array.shape), array.stype])
            buffers.append(_data_of(array))
        return "arrays", entries
    kind = "metrics" if isinstance(record, MetricRecord) else "configs"
    return kind, [[name, _plain(value, buffers)] for name, value in record.items()]


def _data_of(array: Array) -> Data | Pieces:
    """Return an array's data, where they lie."""
    if isinstance(array, Unjoined):
        return Pieces(array.parts)
    return array.pieces if isinstance(array, PiecedArray) else array.data


def _plain(value: Any, buffers: list[Data | Pieces]) -> Any:
    """Return a value for JSON: {"f": text} for a float that it lacks, {"b": 0} for bytes."""
    if isinstance(value, list):
        return [_plain(item, buffers) for item in value]
    if isinstance(value, bytes):
        buffers.append(value)
        return {"b": 0}
    if isinstance(value, float) and not math.isfinite(value):
        return {"f": repr(value)}
    return value


# --- in -------------------------------------------------------------------------------------------


def decode(file: Readable, size: int, *, data: bool = True) -> tuple[Head, RecordDict | None]:
    """Read what `encode` wrote; every length is checked before it is used.

    Parameters
    ----------
    file : file object
        Stands at the message's first byte.
    size : int
        The length of the message.
    data : bool
        Whether to read the buffers: if not, they are left empty, and all else is checked.

    Raises
    ------
    CodecError
        It is not what it must be.
    """
    header, sizes = _header(file, size)
    try:
        error = header.get("error")
        if error is not None:
            code, reason = error
            return Head("", "", 0.0, Error(_whole(code), printable(_text(reason)))), None
        head = Head(_text(header["type"]), _text(header["group"]), float(header["ttl"]), None)
        buffers = iter([_taken(file, length) if data else b"" for length in sizes])
        records = {
            _text(name): _record(kind, entries, buffers)
            for name, kind, entries in header["records"]
        }
        if next(buffers, None) is not None:
            raise CodecError("buffers that belong to no record")
        return head, RecordDict(records)
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as wrong:
        if isinstance(wrong, CodecError):
            raise
        raise CodecError(f"the records cannot be read: {str(wrong)[:200]}") from None


def _taken(file: Readable, size: int) -> Data:
    """Return the next bytes; where they are many, in the memory that they were received in."""
    return file.view(size) if isinstance(file, Place) and size >= _LONG else file.read(size)


def _header(file: Readable, size: int) -> tuple[dict[str, Any], list[int]]:
    """Read the header, and take out the buffers' lengths, whose sum is what follows."""
    if size < PREFIX.size:
        raise CodecError(f"a message of {size} bytes")
    (length,) = PREFIX.unpack(file.read(PREFIX.size))
    length, short = length & ~SHORT, length & SHORT
    limit = min(_MAX_HEADER, max(_HEADER, size // 50))
    if length > min(limit, size - PREFIX.size):
        raise CodecError(f"a header of {length} bytes in a message of {size}")
    try:
        text = file.read(length)
        header = json.loads(inflate(text, limit) if short else text)
    except HeadError as wrong:
        raise CodecError(str(wrong)) from None
    except (ValueError, RecursionError):
        raise CodecError("the header is no JSON") from None
    sizes = header.pop("sizes", None) if isinstance(header, dict) else None
    if not isinstance(sizes, list) or len(sizes) > _MAX_BUFFERS:
        raise CodecError("the header does not list the buffers' lengths")
    if not all(type(item) is int and item >= 0 for item in sizes):
        raise CodecError("the buffers' lengths are no whole numbers")
    if PREFIX.size + length + sum(sizes) != size:
        raise CodecError(f"buffers of {sum(sizes)} bytes announced in a message of {size}")
    return header, sizes


def _record(kind: str, entries: list[Any], buffers: Iterator[Data]) -> Any:
    """Return one record, with as many of `buffers` as it has."""
    if kind == "arrays":
        arrays = ArrayRecord()  # filled one by one: given a dictionary, it copies each array
        for name, dtype, shape, stype in entries:
            shape, data = tuple(_whole(length) for length in shape), _next(buffers)
            if isinstance(data, memoryview) and stype == STYPE:
                arrays[_text(name)] = PiecedArray(Pieces([data]), STYPE)
            else:  # Flower's code expects bytes
                arrays[_text(name)] = Array(_text(dtype), shape, _text(stype), bytes(data))
        return arrays
    values = {_text(name): _value(value, buffers) for name, value in entries}
    if kind == "metrics":
        return MetricRecord(values)
    if kind == "configs":
        return ConfigRecord(values)
    raise CodecError(f"a record of unknown kind {kind!r:.40}")


def _value(value: Any, buffers: Iterator[Data]) -> Any:
    if isinstance(value, list):
        return [_value(item, buffers) for item in value]
    if isinstance(value, dict):
        return bytes(_next(buffers)) if "b" in value else float(value["f"])
    return value


def _next(buffers: Iterator[Data]) -> Data:
    found = next(buffers, None)
    if found is None:
        raise CodecError("a buffer is missing")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_NAME:
        raise CodecError(f"{value!r:.40} where a text is expected")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise CodecError(f"{value!r:.40} where a whole number is expected")
    return value
