"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what killed writers leave stays there
    _LOCKS = False
else:
    _LOCKS = True

_DAMAGED = "damaged"


def write_atomically(
    path: Path, data: bytes | Iterable[bytes | memoryview], *, sync: bool = True, mode: int = 0o600
) -> None:
    """Write `data` to `path` so that a crash leaves the old file or the new one, never a part.

    Parameters
    ----------
    data : bytes or iterable of bytes or views
        All of it, or one piece after the other.
    sync : bool
        Whether to wait for the disk. If not, the file survives a crash of this process, and not
        one of the machine.
    mode : int, default 0o600
        The file's permissions.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            _lock(handle)
            if mode != 0o600:
                os.chmod(name, mode)  # noqa: PTH101  (Path's own would be the same call)
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            if sync:
                os.fsync(handle)
            Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if not sync:
        return
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_over(path: Path, data: Iterable[bytes | memoryview]) -> None:
    """Write `data` to `path` like `write_atomically` without `sync`, over the file before the last.

    To make one file and remove another takes 0.2 to 0.6 ms, to write over one and rename it 0.05
    (ext4). So what `path` was keeps a hidden name, and is written over at the next call: it takes
    the room of two. A writer that is killed leaves the old file or the new one at `path`, or, if
    between two renames, both under the hidden names, of which `mend` takes the newer.
    """
    spare, other = sorted(_spares(path), key=lambda each: not each.exists())
    with os.fdopen(os.open(spare, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        if not _owned(file.fileno(), spare):
            write_atomically(path, data, sync=False)
            return
        file.writelines(data)
        file.truncate()
        file.flush()
        with suppress(FileNotFoundError):
            path.rename(other)
        spare.rename(path)


def mend(path: Path) -> None:
    """Give `path` its name again where a writer of `write_over` was killed between two renames."""
    spares = _spares(path)
    if not path.exists() and all(each.exists() for each in spares):
        with suppress(OSError):
            max(spares, key=lambda each: each.stat().st_mtime_ns).rename(path)


def sweep(folder: Path, pattern: str) -> int:
    """Remove what killed writers of `write_atomically` have left in a folder; return how many.

    A writer holds a lock on its file for as long as it writes: what nobody holds is nobody's.

    Parameters
    ----------
    pattern : str
        The names of the files that they were writing, as for `Path.glob`.
    """
    count = 0
    if not (_LOCKS and folder.is_dir()):
        return count
    for path in folder.glob(f".{pattern}.????????"):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            count += 1
    return count


def put_aside(path: Path, keep: int = 3) -> Path:
    """Rename a damaged file to ``NAME.damaged-1`` and so on; of more than `keep`, the oldest goes.

    Returns
    -------
    Path
        Its new name.
    """
    older = damaged(path)
    for each in older[: max(0, len(older) + 1 - keep)]:
        with suppress(OSError):  # a folder that has files is nobody's memory
            each.rmdir() if each.is_dir() else each.unlink()
    number = _number(older[-1]) + 1 if older else 1
    aside = path.with_name(f"{path.name}.{_DAMAGED}-{number}")
    path.replace(aside)
    return aside


def damaged(path: Path) -> list[Path]:
    """Return what was put aside of a file, the oldest first."""
    found = path.parent.glob(f"{path.name}.{_DAMAGED}-*")
    return sorted((each for each in found if _number(each)), key=_number)


def _spares(path: Path) -> list[Path]:
    """Return the hidden names of `write_over`."""
    return [path.with_name(f".{path.name}.{each}") for each in "ab"]


def _owned(handle: int, path: Path) -> bool:
    """Lock a file that is open; say whether this process has it, and it still has its name.

    Without locks (Windows, where no open file can be renamed either) none is owned.
    """
    if not _LOCKS:
        return False
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def _number(path: Path) -> int:
    """Return the number at the end of a name; 0 where there is none."""
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _lock(handle: int) -> None:
    """Hold a file until it is closed; of no effect on file systems without locks."""
    if _LOCKS:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
