"""Messages with anything in any field: read, or refused with `ProtocolError`."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from flowerpress.compressors import make_compressor
from flowerpress.protocol import (
    Hello,
    Instruction,
    Layout,
    Mix,
    ModelPart,
    Owed,
    ProtocolError,
    Reply,
)
from flowerpress.protocol.blob import decode_blob, encode_blob, to_array
from flowerpress.protocol.content import wrap
from flowerpress.protocol.layout import Entry
from flowerpress.protocol.places import decode_places, encode_places

PACKET = make_compressor("identity").compress(np.ones(3)).data
LAYOUT = Layout((Entry("x", (3,), "float64"), Entry("n", (1,), "int64", trained=False)))
ODD = (
    None, True, False, 0, -1, 1, 2**53, 2**63, 2**64, -(2**70), 10**400, 0.5, -0.0, 1e308, 1e999,
    "", "x", "0x1p+5000", "nan", "\ud800", "\x1b[2J", "a" * 5000, [], [[]], [1], [1, 2, [0.5], 3],
    [-1, -1, [], 0], {}, {"a": 1}, [["x", [2**31, 2**31, 4], "float32", True]], [["x"]],
    [["x", [3], "object", True]], {"loss": "x"}, {"loss": 1}, {"loss": [1]}, {"loss": "0x1p+99999"},
)  # fmt: skip


def messages():
    """Each kind of message by name: its bytes, and what reads them."""
    reply = Reply(1, 2, packets=[PACKET], buffers=PACKET, metrics={"loss": 0.5})
    order = Instruction(
        "ef21", 1, 2, 0, LAYOUT.digest, {"lr": 0.1}, ModelPart(0, -1, [PACKET]), buffers=PACKET
    )
    hello = Hello(1, 10, LAYOUT, compressor="sign")

    def within(read):
        return lambda data: read(wrap(to_array(data)))

    yield "reply", blob_of(reply.encode()), within(Reply.decode)
    yield "kept reply", reply.to_bytes(), Reply.from_bytes
    yield "instruction", blob_of(order.encode()), within(Instruction.decode)
    yield "hello", blob_of(hello.encode()), within(Hello.decode)


def blob_of(content):
    return bytes(content["arrays"]["message"].data)


MESSAGES = list(messages())
READS = pytest.mark.parametrize(
    ("data", "read"), [each[1:] for each in MESSAGES], ids=[each[0] for each in MESSAGES]
)


def refuses_or_reads(read, data):
    try:
        read(data)
    except ProtocolError as error:
        said = str(error)
        short = len(said) < 1000 and "\n" not in said
        if not short:
            raise AssertionError(said) from error


def with_header(fields, packets):
    text = json.dumps({**fields, "sizes": [len(each) for each in packets]}).encode()
    return struct.pack("<4sI", b"FPM1", len(text)) + text + b"".join(packets)


@READS
def test_anything_in_any_field(data, read):
    read(data)
    fields, packets = decode_blob(data)
    for name in fields:
        for value in ODD:
            refuses_or_reads(read, with_header({**fields, name: value}, packets))
        refuses_or_reads(read, with_header({k: v for k, v in fields.items() if k != name}, packets))
    for value in ODD:
        text = json.dumps({**fields, "sizes": value}).encode()
        refuses_or_reads(read, struct.pack("<4sI", b"FPM1", len(text)) + text)
    refuses_or_reads(read, with_header(fields, []))


@READS
def test_any_damage(data, read):
    rng = np.random.default_rng(0)
    for _ in range(400):
        copy = bytearray(data)
        at = int(rng.integers(len(copy)))
        kind = int(rng.integers(4))
        if kind == 0:
            copy[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del copy[at:]
        elif kind == 2:
            copy[at:at] = rng.integers(0, 256, 9, dtype=np.uint8).tobytes()
        else:
            copy[at : at + 4] = b"\xff\xff\xff\xff"
        refuses_or_reads(read, bytes(copy))


@READS
def test_json_that_is_none(data, read):
    for text in (b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b"NaN", b'{"a":NaN}', b"\xff\xfe"):
        refuses_or_reads(read, struct.pack("<4sI", b"FPM1", len(text)) + text)


@pytest.mark.parametrize("kind", [Reply, Instruction, Hello])
def test_contents_that_are_none(kind):
    arrays = ArrayRecord({"message": to_array(encode_blob({})), "model": Array(np.zeros(3))})
    for content in (RecordDict(), RecordDict({"arrays": arrays})):
        with pytest.raises(ProtocolError):
            kind.decode(content)


def test_places_and_mixes():
    rng = np.random.default_rng(1)
    places = encode_places(np.array([3, 300], np.uint32), 1000)
    mix = Mix(0.5, (0.25, 0.25), (PACKET, PACKET)).encode()
    for data, read in ((places, lambda d: decode_places(d, 1000)), (mix, Mix.decode)):
        for length in range(len(data)):
            refuses_or_reads(read, data[:length])
        for _ in range(2000):
            copy = bytearray(data)
            copy[int(rng.integers(min(40, len(copy))))] = int(rng.integers(256))
            refuses_or_reads(read, bytes(copy))


def test_parts_that_lead_nowhere():
    for version, base, packets, rates in (
        (0, -1, [], []),
        (5, -1, [PACKET], [0.1] * 3),
        (3, 1, [PACKET], [0.1]),
        (0, 0, [PACKET], []),
    ):
        with pytest.raises(ProtocolError):
            Owed.from_part(ModelPart(version, base, packets, rates))


def test_a_size_that_no_integer_of_64_bits_holds():
    assert Entry("x", (2**31, 2**31, 4), "float32").size == 2**64
