"""Answers as long as a model: read in the file that they came to, a part at a time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict

from flowerpress.compressors import Opened, PacketError, add_to, make_compressor, norm
from flowerpress.compressors.kernels import paging
from flowerpress.compressors.kernels.choice import waiting_for_the_compiler
from flowerpress.compressors.kernels.paging import Paged, paged
from flowerpress.compressors.testing.hostile import resealed
from flowerpress.compressors.wire.packet import Packet
from flowerpress.protocol import STYPE, ensure_task_identity
from flowerpress.protocol.arrays import PiecedArray, Pieces, misplaced
from flowerpress.protocol.blob import decode_array, decode_blob, encode_blob, start_of_packets
from flowerpress.transport.codec import encode
from flowerpress.transport.grid import LargeMessage
from flowerpress.transport.pipes import Incoming, Stored
from tests.transport.test_places import resident
from tests.transport.test_places import test_over_the_link_is_as_in_process as compare


@pytest.fixture
def large(monkeypatch):
    """Have what is longer than a page lie in files, and be read a page or two at a time."""
    for name in (
        "transport.pipes",
        "compressors.kernels.paging",
        "compressors.norms",
        "compressors.wire.payload",
    ):
        monkeypatch.setattr(f"flowerpress.{name}.LARGE", 4096)
    monkeypatch.setattr(paging, "PART", 8192)
    monkeypatch.setattr("flowerpress.transport.peer.IN_MEMORY", 4096)
    monkeypatch.setitem(Incoming.__init__.__kwdefaults__, "in_memory", 4096)


def in_a_file(frame: bytes) -> memoryview:
    """Return a packet as it is read of a message that came."""
    blob, there = encode_blob({}, [frame]), Stored()
    there.write(b"-" + blob)
    there.seek(1)
    found = decode_blob(there.view(len(blob)))[1][0]
    assert paged(np.frombuffer(found, np.uint8)) is not None
    return found


@pytest.mark.parametrize("before", range(0, 40, 3))
@pytest.mark.parametrize("after", [0, 3, 20_000])
def test_a_large_message_is_viewed_in_its_file(large, before, after):
    """With what follows it, and as often as one likes."""
    frame = np.random.default_rng(before).bytes(30_000)
    blob = encode_blob({"a": "x" * (before % 7)}, [frame])
    rest = np.random.default_rng(after).bytes(after)
    there = Stored()
    there.write(b"-" * before + blob)
    there.write(rest)
    for _ in range(2):
        there.seek(0)
        assert there.read(before) == b"-" * before
        packet = decode_blob(view := there.view(len(blob)))[1][0]
        assert paged(np.frombuffer(packet, np.uint8)) is not None
        assert misplaced(packet) == 0
        assert bytes(view) == blob
        assert bytes(there.view(after) if after else b"") == rest
        there.seek(before + len(blob))
        assert there.read(after + 1) == rest
        there.seek(before)
        assert there.read(len(blob)) == blob


@pytest.mark.parametrize("room", [0, OSError(28, "No space left on device")])
def test_a_large_message_that_there_is_no_room_to_move_is_copied(large, monkeypatch, room):
    blob = encode_blob({}, [b"frame" * 2000])
    there = Stored()
    there.write(b"-" + blob)
    for _ in range(2):
        there.seek(1)
        with monkeypatch.context() as patched:
            patched.setattr("os.pwrite", Mock(side_effect=[room]))
            view = there.view(len(blob))
        assert bytes(view) == blob
        assert paged(np.frombuffer(view, np.uint8)) is None
        assert misplaced(view, start_of_packets(view)) == 0


def test_a_disk_that_fails_while_a_message_is_moved_is_an_error(large, monkeypatch):
    blob, pwrite, left = encode_blob({}, [b"frame" * 5000]), os.pwrite, [1, 1]
    there = Stored()
    there.write(b"-" + blob)
    there.seek(1)
    monkeypatch.setattr("os.pwrite", lambda *args: pwrite(*args) if left and left.pop() else 1)
    with pytest.raises(OSError, match="could not be moved"):
        there.view(len(blob))


def test_what_is_viewed_in_a_file_may_not_be_written(large):
    packet = in_a_file(make_compressor("identity").compress(np.ones(9000)).data)
    assert packet.readonly
    assert not Opened(Packet.view(packet)).decoded.values.flags.writeable


def test_threads_that_read_one_answer_find_what_came(large):
    ensure_task_identity(1)
    for seed in range(20):
        frames = [np.random.default_rng(seed).bytes(n) for n in (30_000, 20_001)]
        record = ArrayRecord()
        for name, frame in zip("ab", frames, strict=True):
            record[name] = PiecedArray(Pieces([encode_blob({"seed": seed}, [frame])]), STYPE)
        asked = Message(RecordDict({"r": record}), 2, "train")
        buffers = encode(asked)
        incoming = Incoming(1, sum(map(len, buffers)), in_memory=0)
        for buffer in buffers:
            incoming.add(bytes(buffer))
        answer = LargeMessage(asked, incoming)
        with ThreadPoolExecutor(4) as pool:
            contents = list(pool.map(lambda _, of=answer: of.content, range(8)))
        answer.release()
        for content in (*contents, answer.content):
            found = [decode_array(content["r"][name])[1][0] for name in "ab"]
            assert list(map(bytes, found)) == frames


def test_of_a_packet_in_a_file_a_part_is_in_memory(monkeypatch):
    x = np.random.default_rng(0).standard_normal(2**25, dtype=np.float32)
    out, give_back = np.ones(x.size, np.float32), Paged.give_back
    short = make_compressor("identity").compress(x[:1000])
    packet = in_a_file(make_compressor("identity").compress(x).data)
    peaks = []

    def noted(self, start, stop):
        peaks.append(resident())
        give_back(self, start, stop)

    monkeypatch.setattr(Paged, "give_back", noted)
    with waiting_for_the_compiler():
        for data, sums in ((short.data, out[:1000].copy()), (packet, out)):
            peaks.append(resident())  # the second time with kernels in memory
            opened = Opened(Packet.view(data))
            length = norm(opened)
            add_to(opened, sums, 0.5)
    del peaks[0]
    parts = x.nbytes // paging.PART
    assert len(peaks) > 4 * parts  # summed, looked at, measured, added
    assert max(peaks) - peaks[0] < x.nbytes / 4
    assert length == norm(make_compressor("identity").compress(x))
    assert np.array_equal(out, 1 + x * np.float32(0.5))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_wrong_late_in_a_large_packet_is_found_and_said(large, bad):
    x = np.zeros(30_000, np.float32)
    head = make_compressor("identity").compress(x).data[:24]
    x[29_000:] = bad
    frame = resealed(head + x.tobytes())
    with pytest.raises(PacketError, match=f"value 29000 is {bad}"):
        Opened(Packet.view(in_a_file(frame)))
    with pytest.raises(PacketError, match="CRC-32 is"):
        Packet.view(in_a_file(frame[:-1] + b"\0"))
    x[29_000:] = 3e38
    too_much = Opened(Packet.view(in_a_file(resealed(head + x.tobytes()))))
    out = np.zeros(x.size, np.float32)
    with pytest.raises(PacketError, match="overflows float32"):
        add_to(too_much, out, 2.0)
    assert not out.any()


@pytest.mark.parametrize(
    ("name", "options"),
    [("ef21-sgdm", {}), ("ef21-sgd2m", {"compressor": "qsgd:7"}), ("fedavg", {})],
)
def test_answers_in_files_are_as_in_process(large, name, options):
    compare(name, options)
