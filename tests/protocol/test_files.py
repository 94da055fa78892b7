"""Files that are written over the file before the last: whole at each step, by one writer."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from flowerpress.clients import FunctionTask
from flowerpress.protocol import files
from flowerpress.protocol.files import mend, write_over
from flowerpress.simulations import Faults, simulate
from flowerpress.strategies import make_strategy
from flowerpress.worker import stores
from flowerpress.worker.stores import DiskStore, LastSaved, WorkerState

NAME = "client-1.safetensors"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_two_files_take_turns(tmp_path):
    path, inodes = tmp_path / NAME, []
    for data in (b"a", b"longer", b"b", b"", b"the last"):
        write_over(path, [data[:2], data[2:]])
        assert path.read_bytes() == data
        inodes.append(path.stat().st_ino)
    assert inodes[2:] == inodes[:3]
    assert len(set(inodes)) == 2
    assert len(names(tmp_path)) == 3  # itself, a spare one and the lock
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an open file's
@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_the_old_file_or_the_new_one_is_there_after_a_kill_at_each_line(before, tmp_path):
    """The state of the disk is the same after an exception, since none is caught."""
    kill, lines, seen = 1, [0], set()

    def trace(frame, event, _):
        if frame.f_code is not write_over.__code__:
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
        seen.add(path.exists())
        mend(path)
        assert (path.read_bytes() if path.exists() else b"") in (old, b"new" * 5)
        write_over(path, [b"next"])
        assert path.read_bytes() == b"next"
        assert len(names(folder)) <= 4
    assert kill > 8
    assert seen == {False, True}


def test_a_full_disk_leaves_the_old_file(tmp_path):
    def parts():
        yield b"a part"
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / NAME
    for _ in range(3):
        write_over(path, [b"old"])
        with pytest.raises(OSError, match="No space"):
            write_over(path, parts())
        mend(path)
        assert path.read_bytes() == b"old"
        assert len(names(tmp_path)) == 2  # and the lock: no part stays


@pytest.mark.parametrize("locks", [True, False])
def test_what_another_writer_has_is_not_written_over(locks, tmp_path, monkeypatch):
    """Nor is anything where there are no locks."""
    path = tmp_path / NAME
    for data in (b"older", b"old"):
        write_over(path, [data])
    (spare,) = (tmp_path / name for name in names(tmp_path) if name[-2:] in (".a", ".b"))
    with (tmp_path / f".{NAME}.lock").open("rb") as held:
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
    (spare,) = (tmp_path / name for name in names(tmp_path) if name[-2:] in (".a", ".b"))
    make(spare, victim)
    for data in (b"new", b"newer"):
        write_over(path, [data])
        assert path.read_bytes() == data
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "nothing").exists()


def test_a_copy_by_another_name_stays_as_it_is(tmp_path):
    path, copy = tmp_path / NAME, tmp_path / "copy"
    for data in (b"1", b"2", b"3"):
        write_over(path, [data])
    os.link(path, copy)
    for data in (b"4", b"5", b"6"):
        write_over(path, [data])
        assert (path.read_bytes(), copy.read_bytes()) == (data, b"3")


def test_a_rename_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path, rename = tmp_path / NAME, os.rename
    for data in (b"older", b"old"):
        write_over(path, [data])

    def failing(source, target):
        if target == path and b"new" in Path(source).read_bytes():
            raise OSError(errno.EIO, "Input/output error")
        return rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", failing)
        with pytest.raises(OSError, match="Input/output"):
            write_over(path, [b"new"])
    assert path.read_bytes() == b"old"


def test_a_memory_without_its_name_is_found_by_who_had_loaded_it(tmp_path):
    """Another process was killed between the renames."""
    store = DiskStore(tmp_path / NAME, sync=False)
    for number in range(3):
        store.save(WorkerState(numbers={"t": number}))
        store.load()
    for name in names(tmp_path):
        if name == NAME:
            (tmp_path / NAME).rename(tmp_path / f".{NAME}.b")
        elif name.endswith(".b"):
            (tmp_path / name).rename(tmp_path / f".{NAME}.a")
    assert not (tmp_path / NAME).exists()
    assert store.load().numbers in ({"t": 1}, {"t": 2})
    assert names(tmp_path)[-1] == NAME


def test_a_memory_is_not_mended_while_its_writer_lives(tmp_path, monkeypatch):
    """Whoever loads it meanwhile waits until it has its name again."""
    store, rename, found = DiskStore(tmp_path / NAME, sync=False), os.rename, []
    for number in range(3):
        store.save(WorkerState(numbers={"t": number}))

    def slow(source, target):
        if target == tmp_path / NAME:  # between the two
            reader.start()
            time.sleep(0.2)
            assert found == []
        return rename(source, target)

    reader = threading.Thread(target=lambda: found.append(store.load().numbers))
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", slow)
        store.save(WorkerState(numbers={"t": 3}))
        reader.join()
    assert found == [{"t": 3}]


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
        DiskStore(tmp_path / NAME, sync=sync).save(WorkerState(numbers={key: number}))
    assert names(tmp_path) == [NAME]


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
    here.save(WorkerState(numbers={"t": 7}))
    DiskStore(tmp_path / "other", sync=False, last=last).save(WorkerState(numbers={"t": 8}))
    assert here.load().numbers == {"t": 7}  # one is kept, of however many clients
    for number in (10, 11):  # two by another process, while times and files are the same
        here.save(WorkerState(numbers={"t": 12}))
        now = (tmp_path / NAME).stat().st_mtime_ns
        for each in (number, number + 1):
            DiskStore(tmp_path / NAME, sync=False).save(WorkerState(numbers={"t": each}))
        os.utime(tmp_path / NAME, ns=(now, now))
        assert here.load().numbers == {"t": number + 1}
    here.save(WorkerState(numbers={"t": 9}))
    (tmp_path / NAME).unlink()
    assert here.load().numbers in ({}, {"t": 7})  # as `mend` finds it


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


@pytest.mark.parametrize("strategy", ["ef21-sgdm", "efficient-adam"])
def test_a_client_that_keeps_its_memory_sends_what_it_would(strategy, tmp_path, monkeypatch):
    """With one client each of its rounds finds what the last has saved."""
    runs, reads, read = [], [], stores.read
    monkeypatch.setattr(stores, "read", lambda file: reads.append(file.name) or read(file))
    for name in ("kept", "read"):
        run = simulate(
            make_strategy(strategy, lr=0.1, compressor="topk:0.2", seed=1),
            lambda i, n: FunctionTask(np.zeros(50), lambda x, _: (0.0, x - np.arange(50.0))),
            num_clients=1,
            num_rounds=6,
            faults=Faults(up=0.3, seed=2, kill={3: [0]}),
            state_dir=tmp_path / name,
        )
        runs.append((run.arrays, run.ledger.rows))
        reads.append(None)
        monkeypatch.setattr(LastSaved, "take", lambda self, path: None)
    assert runs[0] == runs[1]
    assert 0 < reads.index(None) < 4 < len(reads) - 2 - reads.index(None)
