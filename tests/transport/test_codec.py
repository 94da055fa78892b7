"""Messages as bytes: what comes back, and bytes that are no message."""

from __future__ import annotations

import contextlib
import io
import json
import math
import struct

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerpress.protocol import ensure_task_identity, printable
from flowerpress.transport.codec import CodecError, decode, encode
from flowerpress.transport.heads import shorten

ensure_task_identity(1)


def there_and_back(message: Message) -> RecordDict:
    encoded = encode(message)
    for buffers in (encoded, shorten(encoded)):
        data = b"".join(buffers)
        head, content = decode(io.BytesIO(data), len(data))
        assert (head.kind, head.group) == (message.metadata.message_type, message.metadata.group_id)
        assert content is not None
    return content


def test_contents_come_back_as_they_were() -> None:
    content = RecordDict(
        {
            "arrays": ArrayRecord(
                {"x": Array(np.arange(6.0).reshape(2, 3)), "y": Array(np.eye(2))}
            ),
            "none": ArrayRecord(),
            "metrics": MetricRecord({"loss": 0.1, "n": 2**60, "many": [1.5, 2.5], "inf": math.inf}),
            "config": ConfigRecord(
                {"text": "ä", "raw": b"\x00\xff", "raws": [b"a", b""], "yes": True, "f": -math.inf}
            ),
        }
    )
    back = there_and_back(Message(content, 2, "train.special", group_id="7"))
    assert list(back) == list(content)
    assert back == content
    assert isinstance(back["config"]["yes"], bool)
    assert back["metrics"]["n"] == 2**60


def test_nan_comes_back() -> None:
    back = there_and_back(Message(RecordDict({"m": MetricRecord({"x": math.nan})}), 2, "train"))
    assert math.isnan(back["m"]["x"])


def test_errors_come_back() -> None:
    asked = Message(RecordDict(), 2, "train")
    data = b"".join(encode(Message(Error(2, "no\ndata"), reply_to=asked)))
    head, content = decode(io.BytesIO(data), len(data))
    assert content is None
    assert head.error is not None
    assert (head.error.code, head.error.reason) == (2, printable("no\ndata"))


def test_arrays_are_not_copied_on_the_way_out() -> None:
    array = Array(np.zeros(1000))
    arrays = ArrayRecord()
    arrays["x"] = array
    assert any(b is array.data for b in encode(Message(RecordDict({"a": arrays}), 2, "train")))


def test_without_data_all_else_is_checked() -> None:
    content = RecordDict({"a": ArrayRecord({"x": Array(np.zeros(1000))})})
    data = b"".join(encode(Message(content, 2, "train")))
    _, light = decode(io.BytesIO(data), len(data), data=False)
    assert light is not None
    assert light["a"]["x"].data == b""
    with pytest.raises(CodecError):
        decode(io.BytesIO(data), len(data) - 1, data=False)


def raw(header: object, rest: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + rest


GOOD = {"type": "train", "group": "", "ttl": 1.0, "sizes": [], "records": []}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        struct.pack("<I", 100) + b"{}",
        struct.pack("<I", 2**31) + b"{}",
        struct.pack("<I", 3) + b"{\xff}",
        raw([]),
        raw({}),
        raw({**GOOD, "sizes": [-1]}),
        raw({**GOOD, "sizes": [2**70]}),
        raw({**GOOD, "sizes": [True]}),
        raw({**GOOD, "sizes": [3]}, b"ab"),
        raw({**GOOD, "sizes": [3]}, b"abc"),  # a buffer of no record
        raw(GOOD, b"more"),
        raw({**GOOD, "ttl": []}),
        raw({**GOOD, "type": 5}),
        raw({**GOOD, "records": 5}),
        raw({**GOOD, "records": [["a", "arrays", [["x", "float64", [1], "numpy.ndarray"]]]]}),
        raw({**GOOD, "records": [["a", "arrays", [["x", "float64", [-1], "n"]]], ["b"]]}),
        raw({**GOOD, "records": [["a", "other", []]]}),
        raw({**GOOD, "records": [["a", "metrics", [["x", "text"]]]]}),
        raw({**GOOD, "records": [["a", "metrics", [["x", {}]]]]}),
        raw({**GOOD, "records": [["a", "configs", [["x", {"b": 0}]]]]}),
        raw({**GOOD, "error": 5}),
        raw({**GOOD, "error": ["x", "y"]}),
        raw({**GOOD, "error": [2, "y" * 5000]}),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(io.BytesIO(data), len(data))


PARTS = encode(
    Message(
        RecordDict(
            {
                "a": ArrayRecord({"x": Array(np.arange(3.0))}),
                "m": MetricRecord({"loss": 0.5}),
                "c": ConfigRecord({"raw": b"abc"}),
            }
        ),
        2,
        "train",
    )
)
WHOLE, SHORT = b"".join(PARTS), b"".join(shorten(PARTS))


@settings(max_examples=600)
@given(st.sampled_from([WHOLE, SHORT]), st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_damaged_message_is_refused_or_read(whole: bytes, position: int, byte: int) -> None:
    data = bytearray(whole)
    data[position % len(data)] = byte
    with contextlib.suppress(CodecError):
        decode(io.BytesIO(bytes(data)), len(data))


@pytest.mark.parametrize("length", range(0, len(WHOLE), 7))
def test_a_short_message_is_refused(length: int) -> None:
    for whole in (WHOLE, SHORT):
        with pytest.raises(CodecError):
            decode(io.BytesIO(whole[:length]), min(length, len(whole) - 1))
