"""Files that are written over the file before the last: whole at each step, by one writer."""

from __future__ import annotations

import errno
import fcntl
import sys

import pytest

from flowerpress.protocol import files
from flowerpress.protocol.files import mend, write_over
from flowerpress.worker import stores
from flowerpress.worker.stores import DiskStore, WorkerState

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
    assert len(names(tmp_path)) == 2
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
        assert len(names(folder)) <= 3
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


@pytest.mark.parametrize("locks", [True, False])
def test_what_another_writer_has_is_not_written_over(locks, tmp_path, monkeypatch):
    """Nor is anything where there are no locks."""
    path = tmp_path / NAME
    for data in (b"older", b"old"):
        write_over(path, [data])
    (spare,) = (tmp_path / name for name in names(tmp_path) if name != NAME)
    with spare.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(files, "_LOCKS", locks)
        write_over(path, [b"new"])
    assert path.read_bytes() == b"new"
    assert spare.read_bytes() == b"older"


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
