"""A client whose memory on disk is damaged: it is seen, put aside, and counts as lost."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from flowerpress.protocol import files
from flowerpress.server.tree import dump, load
from flowerpress.simulations import InProcessGrid
from flowerpress.strategies import CheckpointError, Checkpoints, strategy_names
from flowerpress.worker import stores
from flowerpress.worker.stores import DiskStore, StateError, WorkerState
from tests.algorithms.lives import records, run
from tests.algorithms.problems import vector

CLIENT, AFTER, END = 1, 2, 7  # whose memory is damaged, after which round, of how many


def memory(folder):
    (path,) = folder.rglob(f"client-{CLIENT}.safetensors")
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 16
    path.write_bytes(data)


def exchange(path):
    """Put another client's memory in its place, of the same time."""
    other = path.with_name(f"{path.stem.replace('1', '0')}.safetensors")
    if not other.exists():
        DiskStore(other).save(DiskStore(path).load())
    path.write_bytes(other.read_bytes())


DAMAGES = {
    "cut": cut,
    "a bit": flip,
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"garbage" * 100),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "another client's": exchange,
}


def run_with(name, folder, damage):
    """Run, with something done to one client's memory after a round."""

    def on_round(record):
        if record.round == AFTER:
            damage(memory(folder))

    return run(name, rounds=END, state_dir=folder, on_round=on_round)


@pytest.mark.parametrize("name", strategy_names())
def test_damaged_memory_counts_as_lost_memory(name, tmp_path, caplog):
    """Bit for bit the run in which the file was deleted; and the client takes part again."""
    damage = list(DAMAGES.values())[strategy_names().index(name) % len(DAMAGES)]
    damaged = run_with(name, tmp_path / "damaged", damage)
    lines = [record.getMessage() for record in caplog.records]
    assert sum("is damaged" in line and "starts over" in line for line in lines) == 1
    assert not any(record.exc_info for record in caplog.records)
    lost = run_with(name, tmp_path / "lost", Path.unlink)
    np.testing.assert_array_equal(vector(damaged.arrays), vector(lost.arrays))
    assert records(damaged) == records(lost)
    assert damaged.ledger.rows == lost.ledger.rows
    assert len(list((tmp_path / "damaged").rglob("*.damaged-1"))) == 1
    rows = [row for row in damaged.ledger.rows if row.direction == "up" and row.round > AFTER + 1]
    assert any(row.client == CLIENT and row.payload for row in rows)


# --- seen -----------------------------------------------------------------------------------------


def example():
    rng = np.random.default_rng(0)
    vectors = {
        "memory": rng.standard_normal(1000),
        "v": rng.standard_normal(1300).astype(np.float32),
        "reply.1": rng.integers(0, 256, 333, np.uint8),
        "empty": np.zeros(0),
        "one": np.array(2.5),
    }
    return WorkerState(vectors, {"settled": 7, "loss": float("nan"), "scale": 0.5}, b"a packet")


def same(one, other):
    assert one.packet == other.packet
    assert repr(one.numbers) == repr(other.numbers)
    assert sorted(one.vectors) == sorted(other.vectors)
    for name, values in one.vectors.items():
        assert values.dtype == other.vectors[name].dtype
        np.testing.assert_array_equal(values, other.vectors[name])


def test_flipped_bits_are_seen_400_and_one_of_each_byte_of_the_header(tmp_path, monkeypatch):
    monkeypatch.setattr(stores.log, "disabled", True)
    monkeypatch.setattr(stores, "put_aside", lambda path: path)  # renaming takes time
    path = tmp_path / "client-1.safetensors"
    DiskStore(path, sync=False).save(example())
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    bits = [*(8 * byte + rng.integers(8) for byte in range(header))]
    bits += [*rng.integers(0, 8 * len(whole), 400)]
    for bit in bits:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        state = DiskStore(path).load()
        assert (state.vectors, state.numbers, state.packet) == ({}, {}, b""), bit
    path.write_bytes(whole)
    same(DiskStore(path).load(), example())


def test_files_of_earlier_versions_are_read(tmp_path):
    """They have no checksum, or one and no client's name; the next one written has both."""
    state, path = example(), tmp_path / "client-1.safetensors"
    arrays = {**state.vectors, "packet": np.frombuffer(state.packet, np.uint8)}
    numbers = json.dumps(state.numbers)
    for text in (numbers, f"{stores._checksum(arrays, numbers)} {numbers}"):
        path.write_bytes(save(arrays, metadata={"numbers": text}))
        same(DiskStore(path).load(), state)
    DiskStore(path).save(state)
    assert re.search(rb'"numbers":"[0-9a-f]{8} client-1 {', path.read_bytes())


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_three_damaged_files_are_kept(damage, tmp_path, caplog):
    path = tmp_path / "client-1.safetensors"
    store = DiskStore(path, sync=False)
    for number in range(5):
        store.save(WorkerState({"x": np.full(9, float(number))}, {"number": number}))
        damage(path)
        assert store.load().numbers == {}
        assert f"kept as client-1.safetensors.damaged-{number + 1}; the client" in caplog.text
    names = sorted(each.name for each in tmp_path.glob("client-1*"))  # not the writers' lock
    assert names == [f"client-1.safetensors.damaged-{number}" for number in (3, 4, 5)]


def test_what_cannot_be_read_now_is_not_damaged(tmp_path, monkeypatch):
    """No descriptor, no permission, a disk that fails: the file may be whole."""
    path = tmp_path / "client-1.safetensors"
    DiskStore(path).save(example())
    with monkeypatch.context() as patched:

        def refuse(*_):
            raise OSError(errno.EMFILE, "Too many open files")

        patched.setattr(os, "open", refuse)
        with pytest.raises(StateError, match=r"memory cannot be read: .*Too many open files"):
            DiskStore(path).load()
    same(DiskStore(path).load(), example())


def test_flipped_bits_of_a_checkpoint_are_seen(tmp_path):
    run("ef21", checkpoint=tmp_path)
    path = max(tmp_path.glob("round-*"))
    whole, expected = path.read_bytes(), repr(load(path))
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    for bit in [*rng.integers(0, 8 * header, 300), *rng.integers(0, 8 * len(whole), 100)]:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            assert repr(load(path)) == expected, bit
        except CheckpointError:
            continue
        pytest.fail(f"bit {bit} is not seen")


def headers(whole):
    """Files whose header is well-formed and says something else, with what it says."""
    size = int.from_bytes(whole[:8], "little")
    data = whole[8 + size :]
    texts = ("{" * 9, '{"a":' * 20_000, "[]", "", "0")
    for change in (*map(of_dtype, ("F8_E4M3", "BF16", "I32")), *map(of_text, texts)):
        header = json.loads(whole[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        yield len(text).to_bytes(8, "little") + text + data


def of_dtype(name):
    """Say that some tensor has another dtype."""
    width = {"F8_E4M3": 1, "BF16": 2, "I32": 4}[name]

    def change(header):
        tensor = next(v for k, v in header.items() if k != "__metadata__" and v["shape"] != [0])
        start, end = tensor["data_offsets"]
        tensor |= {"dtype": name, "shape": [(end - start) // width]}

    return change


def of_text(text):
    """Say something else in the metadata."""
    return lambda header: header["__metadata__"].update(dict.fromkeys(header["__metadata__"], text))


def test_headers_that_safetensors_reads_and_numpy_cannot(tmp_path, monkeypatch):
    """Of these come errors of any type."""
    monkeypatch.setattr(stores, "put_aside", lambda path: path)
    path = tmp_path / "client-1.safetensors"
    DiskStore(path, sync=False).save(example())
    for data in headers(path.read_bytes()):
        path.write_bytes(data)
        assert DiskStore(path).load() == WorkerState()
    path.write_bytes(dump({"x": np.arange(4.0)}))
    for data in headers(path.read_bytes()):
        path.write_bytes(data)
        with contextlib.suppress(CheckpointError):
            assert load(path)["x"].tobytes() == np.arange(4.0).tobytes()


# --- a full disk ----------------------------------------------------------------------------------


SOME = ("dsgd", "ef14", "ef21-sgdm", "onebit-adam", "sketched-sgd", "squarm-sgd", "vr-marina")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in SOME else pytest.mark.slow) for n in strategy_names()]
)
def test_a_full_disk_is_as_if_the_client_had_not_been_asked(name, tmp_path, monkeypatch, caplog):
    """Its memory stays as it was. It says so in one line, and goes on when there is room."""
    rounds = (AFTER, AFTER + 1)
    now = [0]

    def life(folder):
        now[0] = 1
        return run(name, rounds=END, state_dir=folder, on_round=lambda r: tick(r.round))

    def tick(done):
        now[0] = done + 1

    write, deliver = files.write_over, InProcessGrid._deliver

    def full(path, data):
        if now[0] in rounds and path.name == f"client-{CLIENT}.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    def lost(self, message):
        if now[0] in rounds and message.metadata.dst_node_id == CLIENT + 2:
            return None
        return deliver(self, message)

    with monkeypatch.context() as patched:
        patched.setattr(stores, "write_over", full)
        result = life_or_none(name, partial(life, tmp_path / "full"))
    said = [r for r in caplog.records if "No space left on device" in r.getMessage()]
    mine = [r for r in said if r.getMessage().startswith(f"client {CLIENT}: ")]
    assert len(mine) == 1
    assert "it stays as it was" in mine[0].getMessage()
    assert not any(record.exc_info for record in caplog.records)
    with monkeypatch.context() as patched:
        patched.setattr(InProcessGrid, "_deliver", lost)
        expected = life_or_none(name, partial(life, tmp_path / "lost"))
    if expected is not None:
        np.testing.assert_array_equal(vector(result.arrays), vector(expected.arrays))


def life_or_none(name, life):
    """Return a run's result; None where it has ended, as MARINA's does without all clients."""
    with contextlib.suppress(*[RuntimeError] * ("marina" in name)):
        return life()
    return None


# --- what killed writers leave --------------------------------------------------------------------


def leave(folder, name, suffix):
    """Leave the temporary file of a writer."""
    path = folder / f".{name}.{suffix}"
    path.write_bytes(b"a part")
    return path


def test_temporary_files_of_killed_writers_are_swept(tmp_path, monkeypatch):
    """Not those of writers who live, nor what is somebody else's."""
    monkeypatch.setattr(DiskStore, "_swept", set())
    name = "client-1.safetensors"
    gone = [leave(tmp_path, name, suffix) for suffix in ("abcd_123", "zzzzzzzz")]
    other = [leave(tmp_path, "client-2.safetensors", "abcd_123"), leave(tmp_path, name, "short")]
    busy = leave(tmp_path, name, "busybusy")
    with busy.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert DiskStore(tmp_path / name).load().numbers == {}
        assert busy.exists()
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in other)


def test_a_writer_holds_its_file(tmp_path, monkeypatch):
    path, seen = tmp_path / "round-000001.safetensors", []

    def look(handle):
        seen.append(files.remove_unfinished(tmp_path, "round-*.safetensors"))
        assert len(list(tmp_path.iterdir())) == 1

    monkeypatch.setattr(files.os, "fsync", look)
    files.write_atomically(path, b"data")
    assert seen == [0, 0]  # of the file, and of its folder
    assert path.read_bytes() == b"data"


def test_checkpoints_sweep_their_folder(tmp_path):
    left = leave(tmp_path, "round-000003.safetensors", "abcd_123")
    assert Checkpoints(tmp_path, resume=True).open() is None
    assert not left.exists()


def test_a_client_says_the_same_trouble_once(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"cannot take part: .*Not a directory"):
        run("ef21", rounds=END, state_dir=tmp_path / "file")
    for start in (f"client {CLIENT}: ", f"node {CLIENT + 2} cannot take part: "):
        assert sum(r.getMessage().startswith(start) for r in caplog.records) == 1
