"""The frame's header and what is refused in it."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from flowerpress.compressors import Packet, PacketError, add_to, decompress, make_compressor
from flowerpress.compressors.testing.hostile import resealed

X = np.array([1.0, -2.0, 0.5], dtype=np.float32)


def test_header_is_as_specified():
    data = make_compressor("identity").compress(X).data
    head = struct.pack("<4sBBBBQI", b"FPRS", 1, 1, 1, 0, 12, 3)
    crc = zlib.crc32(head + X.tobytes())
    assert data == head + struct.pack("<I", crc) + X.tobytes()


def test_fields():
    packet = make_compressor("topk:k=1").compress(X.astype(np.float64))
    assert (packet.dim, packet.dtype, packet.nbytes) == (3, np.float64, len(packet.data))
    assert Packet.parse(bytearray(packet.data)) == packet
    assert Packet.parse(packet) is packet
    assert bytes(packet.payload) == packet.data[24:]


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, b"PK\x03\x04", "not a packet"),
        (4, b"\x02", "version 2"),
        (5, b"\xee", "codec 238"),
        (6, b"\x03", "dtype 3"),
        (7, b"\x01", "flags 0x01"),
        (16, b"\0\0\0\0", "dim is 0"),
        (16, b"\x04\0\0\0", "dim is 4, but out has length 3"),
    ],
)
def test_a_wrong_field_is_named(at, value, says):
    data = make_compressor("identity").compress(X).data
    with pytest.raises(PacketError, match=says):
        add_to(resealed(data[:at] + value + data[at + len(value) :]), np.zeros(3))


def test_length_and_checksum():
    data = make_compressor("identity").compress(X).data
    with pytest.raises(PacketError, match="0 bytes, fewer than the 24"):
        Packet(b"")
    with pytest.raises(PacketError, match=r"header says 24 \+ 12"):
        Packet(data + b"\0")
    with pytest.raises(PacketError, match="CRC-32"):
        Packet(data[:-1] + b"\x01")
    with pytest.raises(PacketError, match="CRC-32"):
        Packet(data[:16] + b"\x02" + data[17:])


def test_a_spec_that_no_compressor_has_is_a_packet_error():
    data = make_compressor("randk:k=2").compress(X).data
    none = resealed(data[:32] + bytes(4) + data[36:])
    with pytest.raises(PacketError, match="frame: k must be an integer >= 1, got 0"):
        _ = Packet(none).compressor


def test_a_packet_error_is_a_value_error():
    assert issubclass(PacketError, ValueError)


def test_decompress_makes_no_vector_longer_than_allowed():
    data = make_compressor("topk:k=1").compress(X).data
    long = resealed(data[:16] + struct.pack("<I", (1 << 32) - 1) + data[20:])
    with pytest.raises(PacketError, match="above max_dim=268435456; pass a larger max_dim"):
        decompress(long)
    with pytest.raises(PacketError, match="above max_dim=2"):
        decompress(data, max_dim=2)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros(3, dtype=np.int64),
        np.zeros((3, 1)),
        np.zeros(6)[::2],
        np.broadcast_to(0.0, 3),
        [0.0, 0.0, 0.0],
    ],
    ids=["dtype", "shape", "strides", "read-only", "list"],
)
def test_out_must_be_an_accumulator(out):
    with pytest.raises(ValueError, match="add_to: out must be"):
        add_to(make_compressor("sign").compress(X), out)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "1", None, 10**400])
def test_weight_must_be_finite(weight):
    with pytest.raises(ValueError, match="weight must be a finite number"):
        add_to(make_compressor("sign").compress(X), np.zeros(3), weight)


@pytest.mark.parametrize("spec", ["identity", "topk:k=2", "randk:k=2", "sign", "qsgd"])
def test_values_too_large_for_out_are_refused_before_it_is_touched(spec):
    packet = make_compressor(spec).compress(np.full(3, 1e300))
    out = np.ones(3, dtype=np.float32)
    with pytest.raises(PacketError, match="overflows float32"):
        add_to(packet, out)
    assert out.tolist() == [1, 1, 1]
    wide = np.ones(3)
    with pytest.raises(PacketError, match="overflows float64"):
        add_to(packet, wide, 1e10)
    assert wide.tolist() == [1, 1, 1]
