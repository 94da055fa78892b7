"""One step of gossip as a relay sends it: every byte is checked before it is used."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.compressors import PacketError, decompress, make_compressor
from flowerpress.protocol import Mix, ProtocolError
from flowerpress.strategies.gossip.relay import packed

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
MIXES = st.builds(
    lambda own, parts, whole: Mix(
        own, tuple(w for w, _ in parts), tuple(p for _, p in parts), whole
    ),
    FLOATS,
    st.lists(st.tuples(FLOATS, st.binary(max_size=40)), max_size=5),
    st.booleans(),
)


@given(MIXES)
def test_round_trip(mix):
    assert Mix.decode(mix.encode()) == mix
    assert mix.nbytes == len(mix.encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_mix_or_an_error(data):
    with contextlib.suppress(ProtocolError):
        assert Mix.decode(data).encode() == data


@given(MIXES, st.data())
def test_damaged_bytes_are_a_mix_or_an_error(mix, data):
    encoded = bytearray(mix.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ProtocolError):
        Mix.decode(bytes(encoded))


HEAD = struct.Struct("<BBHId")
BROKEN = {
    "empty": (b"", "at least 16 bytes, got 0"),
    "no flag": (HEAD.pack(2, 0, 0, 0, 0.5), "head of a mix"),
    "spare": (HEAD.pack(0, 1, 0, 0, 0.5), "head of a mix"),
    "too many": (HEAD.pack(0, 0, 0, 2**32 - 1, 0.5), "head of a mix"),
    "not a number": (HEAD.pack(0, 0, 0, 0, np.nan), "not finite"),
    "infinite weight": (HEAD.pack(0, 0, 0, 1, 0.5) + struct.pack("<dQ", np.inf, 0), "not finite"),
    "longer": (HEAD.pack(0, 0, 0, 1, 0.5) + struct.pack("<dQ", 1.0, 2**63), "end at byte"),
    "shorter": (HEAD.pack(0, 0, 0, 1, 0.5) + struct.pack("<dQ", 1.0, 1) + b"ab", "end at byte 33"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_said(case):
    data, message = BROKEN[case]
    with pytest.raises(ProtocolError, match=message):
        Mix.decode(data)


def test_total_is_the_weighted_sum():
    a, b = np.array([1.0, 0.0, -2.0]), np.array([0.5, 4.0, 0.0])
    packets = [make_compressor("topk:k=2").compress(x).data for x in (a, b)]
    mix = Mix(0.75, (0.25, 0.5), tuple(packets))
    np.testing.assert_array_equal(mix.total(np.ones(3)), 0.25 * a + 0.5 * b)
    with pytest.raises(PacketError):
        mix.total(np.ones(4))


@given(st.lists(st.sampled_from([0.0, 1.0, -2.5, 1e-30]), min_size=1, max_size=60))
def test_packed_loses_nothing(values):
    for dtype in (np.float32, np.float64):
        x = np.array(values, dtype)
        np.testing.assert_array_equal(decompress(packed(x)), x)
