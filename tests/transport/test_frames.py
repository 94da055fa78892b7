"""Frames: the table against the .proto, and bytes that are no frames."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.transport import frames
from flowerpress.transport.frames import CLASSES, FrameError, chunk, json_object, make, parse

PROTO = Path(frames.__file__).with_name("link.proto").read_text(encoding="utf-8")


def declared(name: str) -> dict[str, tuple[int, str]]:
    """Return the fields of a message in link.proto."""
    body = re.search(rf"message {name} \{{(.*?)\n?\}}", PROTO, re.DOTALL)
    assert body is not None, name
    fields = re.findall(r"^\s*(\w+) (\w+) = (\d+);", body[1], re.MULTILINE)
    return {field: (int(number), kind) for kind, field, number in fields}


def test_the_table_is_the_proto() -> None:
    for name, fields in frames.MESSAGES.items():
        assert declared(name) == fields, name
    kinds = declared("Frame")
    assert {kind: number for kind, (number, _) in kinds.items()} == frames.KINDS
    assert set(re.findall(r"^message (\w+)", PROTO, re.MULTILINE)) == {*frames.MESSAGES, "Frame"}


@pytest.mark.parametrize("kind", sorted(set(frames.KINDS) - {"chunk"}))
def test_kinds_come_back(kind: str) -> None:
    message = parse(make(kind))
    assert frames.kind_of(message) == kind


@pytest.mark.parametrize("size", [0, 1, 127, 128, 2**14, frames.CHUNK])
def test_chunks_are_protobuf(size: int) -> None:
    data = bytes(size)
    assert parse(chunk(data)) == data
    by_protobuf = CLASSES["Frame"](chunk=data).SerializeToString()
    assert chunk(data) == by_protobuf


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xff",
        b"\x22\x05abc",  # a chunk shorter than it says
        b"\x22",
        b"\x22" + b"\xff" * 10,
        b"\x0a\x7f",
        chunk(bytes(frames.CHUNK + 1)),  # longer than a chunk may be
        make("hello", node_config="x" * frames.MAX_CONTROL),
    ],
)
def test_what_is_no_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(FrameError):
        parse(frame)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    try:
        message = parse(data)
    except FrameError:
        return
    assert frames.kind_of(message) in frames.KINDS


@pytest.mark.parametrize("text", ["[]", "{", '{"a": []}', "[" * 100_000, '{"a": null}'])
def test_configs_are_objects_of_single_values(text: str) -> None:
    with pytest.raises(FrameError, match="node_config"):
        json_object(text, "node_config")
