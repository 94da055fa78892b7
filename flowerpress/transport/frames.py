"""Frames of the link, see `link.proto`: checked on arrival, before any field is used.

The message classes are made from the table below when this module is loaded, so no generated code
has to fit the protobuf release that Flower asks for; a test holds the table against `link.proto`.
Chunks are most of the bytes. They skip protobuf: a tag and a length are put before the data.

>>> frame = make("begin", id=7, size=3)
>>> frame.hex(), parse(frame).id
('1a0408071003', 7)
>>> bytes(parse(chunk(b"abc")))
b'abc'
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

PROTOCOL = 1
METHOD = "/flowerpress.link.Link/Connect"
CHUNK = 2**20  # bytes of a message in a frame
MAX_FRAME = CHUNK + 16
MAX_CONTROL = 2**18  # bytes of any frame that is not a chunk
REFUSED = "flowerpress-refused"  # trailing metadata of a call that is turned away, see `server`

MESSAGES = {
    "Hello": {
        "protocol": (1, "uint32"),
        "client": (2, "uint64"),
        "versions": (3, "string"),
        "capabilities": (4, "string"),
        "node_config": (5, "string"),
        "epoch": (6, "string"),
        "finished": (7, "uint64"),
        "busy": (8, "uint64"),
        "partial": (9, "uint64"),
        "partial_bytes": (10, "uint64"),
        "instance": (11, "string"),
    },
    "Welcome": {
        "protocol": (1, "uint32"),
        "epoch": (2, "string"),
        "run_id": (3, "uint64"),
        "node_id": (4, "uint64"),
        "clients": (5, "uint64"),
        "run_config": (6, "string"),
        "heartbeat": (7, "double"),
        "open": (8, "uint64"),
        "reply_bytes": (9, "uint64"),
        "capabilities": (10, "string"),
    },
    "Begin": {
        "id": (1, "uint64"),
        "size": (2, "uint64"),
        "offset": (3, "uint64"),
        "data": (4, "bytes"),
    },
    "Beat": {"note": (1, "string")},
    "Cancel": {"id": (1, "uint64")},
    "Goodbye": {
        "done": (1, "bool"),
        "reason": (2, "string"),
        "retry": (3, "bool"),
        "pause": (4, "double"),
        "unfit": (5, "bool"),
    },
}
KINDS = {"hello": 1, "welcome": 2, "begin": 3, "chunk": 4, "beat": 5, "cancel": 6, "goodbye": 7}
_CHUNK_TAG = KINDS["chunk"] << 3 | 2


class FrameError(ValueError):
    """A frame from the other side is not what it must be: says what is wrong."""


def _classes() -> dict[str, Any]:
    """Return the message classes by name, `Frame` among them."""
    file = descriptor_pb2.FileDescriptorProto(
        name="flowerpress/transport/link.proto", package="flowerpress.link", syntax="proto3"
    )
    types = descriptor_pb2.FieldDescriptorProto
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            own = types.Type.Value(f"TYPE_{kind.upper()}")
            message.field.add(name=field, number=number, type=own, label=types.LABEL_OPTIONAL)
    frame = file.message_type.add(name="Frame")
    frame.oneof_decl.add(name="kind")
    for kind, number in KINDS.items():
        field = frame.field.add(name=kind, number=number, label=types.LABEL_OPTIONAL, oneof_index=0)
        if kind == "chunk":
            field.type = types.TYPE_BYTES
        else:
            field.type = types.TYPE_MESSAGE
            field.type_name = f".flowerpress.link.{kind.capitalize()}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))
        for name in (*MESSAGES, "Frame")
    }


CLASSES = _classes()


def make(kind: str, **fields: Any) -> bytes:
    """Return a frame with one message."""
    message = CLASSES[kind.capitalize()](**fields)
    frame: bytes = CLASSES["Frame"](**{kind: message}).SerializeToString()
    return frame


BEAT = make("beat")


def chunk(data: bytes | memoryview) -> bytes:
    """Return a frame with bytes of a message."""
    length, head = len(data), bytearray([_CHUNK_TAG])
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return b"".join((head, data))


def parse(frame: bytes) -> Any:
    """Return the message in a frame: for a chunk a view of it, otherwise one of `CLASSES`.

    Raises
    ------
    FrameError
        The frame is none, has no kind, or is larger than its kind may be.
    """
    if frame[:1] == bytes([_CHUNK_TAG]):
        data = _chunk_of(frame)
        if data is not None:
            return data
    if len(frame) > MAX_CONTROL:
        raise FrameError(f"a frame of {len(frame)} bytes that is no chunk")
    message = CLASSES["Frame"]()
    try:
        message.ParseFromString(frame)
    except DecodeError:
        raise FrameError(f"a frame of {len(frame)} bytes cannot be read") from None
    kind = message.WhichOneof("kind")
    if kind is None:
        raise FrameError(f"a frame of {len(frame)} bytes of no known kind")
    found = getattr(message, kind)
    return memoryview(found) if kind == "chunk" else found


def _chunk_of(frame: bytes) -> memoryview | None:
    """Return the data of a frame that is one chunk and nothing else, None for any other."""
    length = shift = 0
    for end in range(1, min(len(frame), 6)):
        length |= (frame[end] & 0x7F) << shift
        shift += 7
        if frame[end] < 0x80:
            whole = length == len(frame) - end - 1 <= CHUNK
            return memoryview(frame)[end + 1 :] if whole else None
    return None


def kind_of(message: Message | memoryview) -> str:
    """Return the kind of what was parsed."""
    if isinstance(message, memoryview):
        return "chunk"
    return str(message.DESCRIPTOR.name).lower()


def json_text(config: Mapping[str, Any]) -> str:
    """Return single values by name as text."""
    return json.dumps(dict(config), separators=(",", ":"))


def json_object(text: str, name: str) -> dict[str, Any]:
    """Return a JSON object of scalars that came as text.

    Raises
    ------
    FrameError
        It is none, or too long.
    """
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise FrameError(f"{name} is no JSON") from None
    if not isinstance(found, dict) or not all(
        isinstance(value, bool | int | float | str) for value in found.values()
    ):
        raise FrameError(f"{name} is no JSON object of single values")
    return found
