"""Files that are written over the file before the last: whole at each step, by one writer."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import threading
import time
from unittest.mock import Mock

import numpy as np
import pytest

from flowerpress.clients import FunctionTask
from flowerpress.protocol import files
from flowerpress.protocol.files import alone_with, write_over
from flowerpress.simulations import Faults, simulate
from flowerpress.strategies import make_strategy
from flowerpress.worker import stores
from flowerpress.worker.stores import DiskStore, LastSaved, WorkerState

NAME = "client-1.safetensors"
SPARE = f".{NAME}.spare"


@pytest.fixture(params=[True, False], ids=["exchanged", "renamed"])
def exchanges(request, monkeypatch):
    """Whether the system can exchange the names of two files; some cannot."""
    if not request.param:
        monkeypatch.setattr(files, "_renameat2", lambda: None)
    return request.param


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_two_files_take_turns(exchanges, tmp_path):
    path, inodes = tmp_path / NAME, []
    for data in (b"a", b"longer", b"b", b"", b"the last"):
        write_over(path, [data[:2], data[2:]])
        assert path.read_bytes() == data
        inodes.append(path.stat().st_ino)
        assert names(tmp_path) == [SPARE, NAME]  # from the first on: later ones make no file
    if exchanges:
        assert inodes[2:] == inodes[:3]
        assert len(set(inodes)) == 2
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an open file's
@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_the_old_file_or_the_new_one_is_there_after_a_kill_at_each_line(
    before, exchanges, tmp_path, monkeypatch
):
    """The state of the disk is that after an exception, but for the spare file being emptied."""
    monkeypatch.setattr(os, "ftruncate", lambda *_: None)
    kill, lines, found = 1, [0], set()
    traced = (write_over.__code__, files._exchange.__code__)

    def trace(frame, event, _):
        if frame.f_code not in traced:
            return None
        if event == "line":
            lines[0] += 1
            if lines[0] == kill:
                raise KeyboardInterrupt
        return trace

    while True:
        folder = tmp_path / str(kill)
        folder.mkdir()
        path, old = folder / NAME, b"old" * before
        for number in range(before):
            write_over(path, [b"old" * (number + 1)])
        lines[0] = 0
        sys.settrace(trace)
        try:
            write_over(path, [b"new" * 5])
            break
        except KeyboardInterrupt:
            kill += 1
        finally:
            sys.settrace(None)
        assert path.exists() or not before
        found.add(path.read_bytes() if path.exists() else b"")
        write_over(path, [b"next"])
        assert path.read_bytes() == b"next"
        assert names(folder) == [SPARE, NAME]
    assert kill > 8
    assert found <= {old, b"new" * 5}
    assert old in found


def test_a_full_disk_leaves_the_old_file(tmp_path):
    def parts():
        yield b"a part" * 10_000
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / NAME
    for _ in range(3):
        write_over(path, [b"old"])
        with pytest.raises(OSError, match="No space"):
            write_over(path, parts())
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == [SPARE, NAME]
        assert (tmp_path / SPARE).stat().st_size == 0  # a part would take room until the next


@pytest.mark.parametrize("locks", [True, False])
def test_what_another_writer_has_is_not_written_over(locks, tmp_path, monkeypatch):
    """Nor is anything where there are no locks."""
    path = tmp_path / NAME
    for data in (b"older", b"old"):
        write_over(path, [data])
    spare = tmp_path / SPARE
    with spare.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(files, "_LOCKS", locks)
        write_over(path, [b"new"])
    assert path.read_bytes() == b"new"
    assert spare.read_bytes() == b"older"


def link_to(spare, victim):
    spare.unlink()
    spare.symlink_to(victim)


ODD = {
    "a link to another file": link_to,
    "a link to nothing": lambda spare, victim: link_to(spare, victim.parent / "nothing"),
    "another name of a file": lambda spare, victim: (spare.unlink(), os.link(victim, spare)),
    "a folder": lambda spare, victim: (spare.unlink(), spare.mkdir()),
    "a pipe": lambda spare, victim: (spare.unlink(), os.mkfifo(spare)),
    "not to be written": lambda spare, victim: spare.chmod(0o400),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_what_is_no_file_of_its_own_is_not_written_over(make, tmp_path):
    """Nobody's file is changed, nothing is waited for, and what is written is whole."""
    path, victim = tmp_path / NAME, tmp_path / "victim"
    victim.write_bytes(b"precious")
    for data in (b"older", b"old"):
        write_over(path, [data])
    make(tmp_path / SPARE, victim)
    for data in (b"new", b"newer"):
        write_over(path, [data])
        assert path.read_bytes() == data
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "nothing").exists()


def test_a_file_of_another_user_is_not_written_over(tmp_path, monkeypatch):
    path, spare = tmp_path / NAME, tmp_path / SPARE
    for data in (b"older", b"old"):
        write_over(path, [data])
    with spare.open("rb") as theirs:
        with monkeypatch.context() as patched:
            patched.setattr(os, "geteuid", lambda: os.getuid() + 1)
            write_over(path, [b"new"])
        assert path.read_bytes() == b"new"
        assert theirs.read() == b"older"
    assert names(tmp_path) == [NAME]  # the next call makes one that is its own
    write_over(path, [b"newer"])
    assert path.read_bytes() == b"newer"
    assert names(tmp_path) == [SPARE, NAME]


def test_who_only_reads_makes_no_file(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(b"of an earlier version")
    with alone_with(path, seconds=1.0, reads=True) as spare:
        assert spare is None
    assert names(tmp_path) == [NAME]


def test_a_copy_by_another_name_stays_as_it_is(tmp_path):
    path, copy, inodes = tmp_path / NAME, tmp_path / "copy", []
    for data in (b"1", b"2", b"3"):
        write_over(path, [data])
    os.link(path, copy)
    for data in (b"4", b"5", b"6", b"7", b"8", b"9"):
        write_over(path, [data])
        assert (path.read_bytes(), copy.read_bytes()) == (data, b"3")
        inodes.append(path.stat().st_ino)
    assert inodes[-3] == inodes[-1] != inodes[-2]  # and two files take turns again


def test_a_rename_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / NAME
    for data in (b"older", b"old"):
        write_over(path, [data])
    with monkeypatch.context() as patched:
        patched.setattr(files, "_renameat2", lambda: lambda *_: -1)
        patched.setattr(os, "rename", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            write_over(path, [b"new"])
    assert path.read_bytes() == b"old"


def test_who_waited_for_a_spare_file_gets_the_one_that_has_the_name_then(tmp_path):
    """What a writer held while another waited for it has the memory's name by then."""
    path, found = tmp_path / NAME, []
    for data in (b"older", b"old"):
        write_over(path, [data])

    def wait():
        with alone_with(path, seconds=5.0) as spare:
            found.append(os.fstat(spare).st_ino)

    waiting = threading.Thread(target=wait)
    with alone_with(path) as spare:
        waiting.start()
        time.sleep(0.1)
        files._exchange(str(tmp_path / SPARE), path)
        assert os.fstat(spare).st_ino == path.stat().st_ino
        assert found == []
    waiting.join()
    assert found == [(tmp_path / SPARE).stat().st_ino]


def test_writers_in_turns_and_readers_see_whole_files(tmp_path):
    """Three processes' worth of writers, each with its own open files, and a reader."""
    path, ended, torn = tmp_path / NAME, threading.Event(), []

    def write(letter):
        while not ended.is_set():
            write_over(path, [letter * 300, letter * 700])

    def read():
        while not ended.is_set():
            with alone_with(path, seconds=5.0, reads=True) as spare:
                assert spare is not None
                data = path.read_bytes()
            if len(data) != 1000 or len(set(data)) != 1:
                torn.append(data)

    write_over(path, [b"x" * 1000])
    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    threads.append(threading.Thread(target=read))
    for each in threads:
        each.start()
    time.sleep(0.5)
    ended.set()
    for each in threads:
        each.join()
    assert torn == []
    assert names(tmp_path) == [SPARE, NAME]


def test_a_memory_that_was_written_over_while_it_was_read_is_read_again(tmp_path, monkeypatch):
    store, read, torn = DiskStore(tmp_path / NAME, sync=False), stores.read, [True]
    for number in range(3):
        store.save(WorkerState(numbers={"t": number}))

    def slow(file):
        if torn.pop() if torn else False:
            raise ValueError("a part of each")
        return read(file)

    monkeypatch.setattr(stores, "read", slow)
    assert store.load().numbers == {"t": 2}
    assert not list(tmp_path.glob("*damaged*"))


def test_a_memory_that_is_written_over_is_waited_for(tmp_path):
    """By a reader who sees a part: it is whole when its writer lets go of it."""
    path, found = tmp_path / NAME, []
    store = DiskStore(path, sync=False)
    for number in range(3):
        store.save(WorkerState(numbers={"t": number}))
    whole = path.read_bytes()
    reader = threading.Thread(target=lambda: found.append(store.load().numbers))
    with alone_with(path):
        path.write_bytes(whole[:-5])
        reader.start()
        time.sleep(0.1)
        path.write_bytes(whole)
    reader.join()
    assert found == [{"t": 2}]
    assert names(tmp_path) == [SPARE, NAME]


def test_a_deleted_memory_does_not_come_back(tmp_path, monkeypatch):
    store = DiskStore(tmp_path / NAME, sync=False)
    for number in range(3):
        store.save(WorkerState(numbers={"t": number}))
    (tmp_path / NAME).unlink()
    monkeypatch.setattr(DiskStore, "_swept", set())
    assert store.load().numbers == {}


@pytest.mark.parametrize(("sync", "key"), [(True, "t"), (False, "t" * 2000)])
def test_flushed_and_long_files_are_not_kept_twice(sync, key, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "_OVER_LIMIT", 1000)
    for number in range(3):
        last = LastSaved()
        DiskStore(tmp_path / NAME, sync=sync, last=last).save(WorkerState(numbers={key: number}))
    assert names(tmp_path) == [NAME]
    assert (last.take(tmp_path / NAME) is None) == (len(key) > 1)  # the long ones


def test_a_memory_that_nobody_has_written_since_is_not_read(tmp_path, monkeypatch):
    reads, read = [], stores.read
    monkeypatch.setattr(stores, "read", lambda file: reads.append(file.name) or read(file))
    last = LastSaved()
    here = DiskStore(tmp_path / NAME, sync=False, last=last)
    for number in range(4):
        here.save(WorkerState(numbers={"t": number}))
        assert here.load().numbers == {"t": number}
    assert reads == []
    assert here.load().numbers == {"t": 3}  # what was loaded may have been changed
    assert len(reads) == 1
    here.save(WorkerState(numbers={"t": 4}))
    here.load().numbers["t"] = 99  # and not saved
    assert here.load().numbers == {"t": 4}
    for there in (DiskStore(tmp_path / NAME, sync=False), DiskStore(tmp_path / NAME)):
        here.save(WorkerState(numbers={"t": 5}))
        there.save(WorkerState(numbers={"t": 6}))  # another process
        assert here.load().numbers == {"t": 6}
    for number in (10, 11):  # two by another process, while times and files are the same
        here.save(WorkerState(numbers={"t": 12}))
        now = (tmp_path / NAME).stat().st_mtime_ns
        for each in (number, number + 1):
            DiskStore(tmp_path / NAME, sync=False).save(WorkerState(numbers={"t": each}))
        os.utime(tmp_path / NAME, ns=(now, now))
        assert here.load().numbers == {"t": number + 1}
    here.save(WorkerState(numbers={"t": 9}))
    with (tmp_path / NAME).open("ab") as file:
        file.write(b"\0")  # damage
    assert here.load().numbers == {}
    assert list(tmp_path.glob("*damaged*"))
    here.save(WorkerState(numbers={"t": 9}))
    (tmp_path / NAME).unlink()
    assert here.load().numbers == {}


def test_of_many_memories_those_saved_last_are_kept(tmp_path, monkeypatch):
    reads, read = [], stores.read
    monkeypatch.setattr(stores, "read", lambda file: reads.append(file.name) or read(file))
    size = 8 * 1000
    room = 5 * (size + 500 + stores._STATE)
    last = LastSaved(room)
    clients = [DiskStore(tmp_path / f"{i}", sync=False, last=last) for i in range(8)]
    for number in range(3):
        for i, client in enumerate(clients * 2):  # the second time in place of the first
            i %= len(clients)
            client.save(WorkerState({"g": np.full(1000, i + 0.5)}, {"t": number}))
        reads.clear()
        order = [*range(8)] if number else [*range(7, -1, -1)]
        for i in order:
            state = clients[i].load()
            assert (state.vectors["g"] == i + 0.5).all()
            assert state.numbers == {"t": number}
        assert sorted(reads) == [str(tmp_path / f"{i}") for i in range(3)]
    assert last._room == room  # all were taken or forgotten
    DiskStore(tmp_path / "9", sync=False, last=LastSaved(room=10)).save(WorkerState())


def test_a_memory_that_could_not_be_written_stays_as_it_was(tmp_path, monkeypatch):
    here = DiskStore(tmp_path / NAME, sync=False, last=LastSaved())
    for number in range(3):
        here.save(WorkerState(numbers={"t": number}))
    state = here.load()
    state.numbers["t"] = 99
    with monkeypatch.context() as patched:
        patched.setattr(stores, "write_over", Mock(side_effect=OSError(28, "No space left")))
        with pytest.raises(stores.StateError, match="No space left"):
            here.save(state)
    assert here.load().numbers == {"t": 2}


@pytest.mark.parametrize("clients", [1, 3])
@pytest.mark.parametrize("strategy", ["ef21-sgdm", "efficient-adam"])
def test_clients_that_keep_their_memory_send_what_they_would(
    strategy, clients, tmp_path, monkeypatch
):
    """Each round finds what the last has saved."""
    runs, reads, read = [], [], stores.read
    monkeypatch.setattr(stores, "read", lambda file: reads.append(file.name) or read(file))
    for name in ("kept", "read"):
        run = simulate(
            make_strategy(strategy, lr=0.1, compressor="topk:0.2", seed=1),
            lambda i, n: FunctionTask(np.zeros(50), lambda x, _: (0.0, x - np.arange(50.0))),
            num_clients=clients,
            num_rounds=6,
            faults=Faults(up=0.3, seed=2, kill={3: [0]}),
            state_dir=tmp_path / name,
        )
        runs.append((run.arrays, run.ledger.rows))
        reads.append(None)
        monkeypatch.setattr(LastSaved, "take", lambda self, path: None)
    assert runs[0] == runs[1]
    read_anew = len(reads) - 2 - reads.index(None)
    assert 0 < reads.index(None) <= 2 < read_anew / 2
