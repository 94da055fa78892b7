"""No bytes from a peer do anything but decode or raise `PacketError`."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerpress.compressors import PacketError, add_to, decompress, make_compressor
from flowerpress.compressors.testing.conformance import forced_kernels
from flowerpress.compressors.testing.hostile import damaged, refused, resealed
from flowerpress.compressors.wire.codecs import codec
from flowerpress.compressors.wire.packet import Packet
from tests.compressors.table import COMPRESSORS
from tests.hostile import attacks, composed, quantized
from tests.hostile.attacks import IDENTITY, LONGEST, QSGD, frame, topk, u4

ATTACKS = attacks.ATTACKS + quantized.ATTACKS + composed.ATTACKS


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack, kernels):
    with forced_kernels(kernels):
        if attack.dim < LONGEST:
            out = np.ones(attack.dim)
            with pytest.raises(PacketError, match=attack.says):
                add_to(attack.data, out)
            assert (out == 1).all()
            return
        # Too long to make a vector for: decode alone, and see what memory it takes.
        packet = Packet(attack.data)
        with pytest.raises(PacketError):
            codec(packet.header.codec).decode(packet)  # a kernel's first call compiles it
        tracemalloc.start()
        with pytest.raises(PacketError, match=attack.says):
            codec(packet.header.codec).decode(packet)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1_000_000


def test_frames_of_the_attacks_are_right_otherwise():
    """The same builders make packets that are accepted, so a refusal is not for another reason."""
    assert decompress(frame(IDENTITY, 1, np.float32(2).tobytes())).tolist() == [2]
    assert decompress(topk(2, 0, u4(3, 8))).tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert decompress(topk(1, 3, b"\x01\x01", p=1)).tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0]
    qsgd = frame(QSGD, 2, u4(1, 0) + np.float32(3).tobytes() + b"\x02")
    assert decompress(qsgd).tolist() == [3, -3]


@given(data=st.data())
@settings(max_examples=300)
def test_any_bytes(data):
    raw = data.draw(st.binary(max_size=200))
    assert refused(raw, 5)
    for number in range(1, 32):
        head = bytes([1, number, data.draw(st.integers(1, 2)), 0])
        refused(resealed(b"FPRS" + head + bytes(8) + u4(5) + bytes(4) + raw), 5)


@given(data=st.data())
@settings(max_examples=300)
def test_any_damage(data):
    """A flip, a cut or a splice anywhere in a right packet, with a right CRC-32."""
    compressor = make_compressor(data.draw(st.sampled_from(COMPRESSORS)))
    dim = data.draw(st.sampled_from([1, 7, 33, 1030]))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    x = np.linspace(-1, 2, dim).astype(dtype)
    packet = bytearray(compressor.bind((dim,)).compress(x).data)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(packet) - 1))
        packet[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        packet = packet or bytearray(1)
    refused(bytes(packet), dim)
    if len(packet) >= 24:
        refused(resealed(bytes(packet)), dim)


@pytest.mark.parametrize("spec", COMPRESSORS)
def test_both_kernels_judge_alike(spec):
    """Where one kernel refuses the other refuses, and what they accept decodes alike."""
    x = np.linspace(-1, 2, 1100).astype(np.float32)
    data = make_compressor(spec).bind((1100,)).compress(x).data
    for bad in damaged(data, seed=9, count=60):
        if len(bad) < 24:
            continue
        results = []
        for kernels in ("numpy", "numba"):
            with forced_kernels(kernels):
                try:
                    results.append(decompress(resealed(bad), max_dim=1 << 20).tobytes())
                except PacketError as error:
                    results.append(str(error))
        assert results[0] == results[1], bad.hex()


@pytest.mark.parametrize("law", ["uniform", "stratified"])
def test_no_key_makes_a_walk_long(law):
    """Whatever key a peer sends, places take time in proportion to k: 200 keys in a moment."""
    x = np.ones(129, dtype=np.float32)  # just over half of the smallest network
    packet = bytearray(make_compressor(f"randk:k=129,law={law}").compress(x).data)
    rng = np.random.default_rng(0)
    decompress(bytes(packet))
    started = time.perf_counter()
    for _ in range(200):
        packet[24:32] = rng.bytes(8)
        assert np.count_nonzero(decompress(resealed(bytes(packet)))) == 129
    assert time.perf_counter() - started < 5
