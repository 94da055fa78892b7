"""Compiled kernels on disk: a convenience, which may be damaged, full or missing at any time.

A kernel takes seconds to compile, all of them about a minute, so numba keeps what it compiled in
files. Without these a process only starts later. So whatever is wrong with them, kernels are
compiled anew, and one line says what it costs and what to do.

- The folder's name has a digest of all sources of the kernels. numba itself looks at the file of a
  kernel alone: where a function that it calls had changed in another file, the old one would run.
- Each compiled signature has files of its own, so that processes that start at once do not change
  an index under each other's hands; each file ends with a checksum of the rest.
- Folders of other digests go when a new one is made, once they were not used for 30 days.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import llvmlite  # type: ignore[import-untyped]
import numba
from numba import core
from numba.misc import appdirs

from flowerpress.compressors.kernels.numba.background import background
from flowerpress.compressors.kernels.switching import NotCompiledError, waits

log = logging.getLogger("flowerpress")

# Partly typed, and not as they are used here.
caching: Any = core.caching
config: Any = core.config
_appdirs: Any = appdirs

_KERNELS = "flowerpress.compressors.kernels"
_PREFIX = "flowerpress-"
_CHECKSUM = hashlib.sha256
_CHECKSUM_BYTES = 32
_UNUSED_DAYS = 30
_PATIENCE = 2.0  # seconds of compiling until a line says what is going on
_PLACE = "name another folder in NUMBA_CACHE_DIR, or set FLOWERPRESS_KERNELS=numpy"


@cache
def digest() -> str:
    """Return what tells apart all that compiled kernels depend on, but for the processor."""
    versions = (sys.version, numba.__version__, llvmlite.__version__)
    found = hashlib.sha256(repr(versions).encode())
    for name, source in _sources(files(_KERNELS)):
        found.update(name.encode() + b"\0" + source + b"\0")
    return found.hexdigest()[:16]


def _sources(folder: Traversable, above: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield the places and contents of all sources in and below a folder, in one order."""
    for each in sorted(folder.iterdir(), key=lambda each: each.name):
        place = f"{above}{each.name}"
        if each.is_dir():
            if each.name != "__pycache__":
                yield from _sources(each, f"{place}/")
        elif each.name.endswith((".py", ".pyc")):
            yield place, each.read_bytes()


def bases() -> list[Path]:
    """Return the folders that may hold the kernels' folder, the best one first.

    ``NUMBA_CACHE_DIR`` alone where it is set; else the one beside the kernels' files, and the
    user's folder for caches.
    """
    if config.CACHE_DIR:
        return [Path(config.CACHE_DIR)]
    beside = Path(__file__).parents[1]
    found = [beside / "__pycache__"] if _is_folder(beside) else []
    with suppress(RuntimeError, OSError):  # a user without a home
        found.append(Path(_appdirs.AppDirs(appname="numba", appauthor=False).user_cache_dir))
    return found


class _Places:
    """Where compiled kernels are read from, and where they are written to.

    Attributes
    ----------
    read : list of Path
        Folders of this digest that exist.
    written : Path or None
        One of them; None where no folder can be written to.
    """

    def __init__(self) -> None:
        tried = bases()
        folders = [base / f"{_PREFIX}{digest()}" for base in tried]
        self.written = next((folder for folder in folders if _is_writable(folder)), None)
        self.read = [folder for folder in folders if _is_folder(folder)]
        self.tried = ", ".join(map(str, tried)) or "none"
        if self.written:
            with suppress(OSError):
                os.utime(self.written)  # in use
                _remove_unused(self.written)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # it may not be looked at
        return False


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _remove_unused(folder: Path) -> None:
    """Remove the folders of other digests that no process has used for a long time."""
    oldest = time.time() - _UNUSED_DAYS * 86_400
    for other in folder.parent.glob(f"{_PREFIX}*"):
        if other != folder and other.stat().st_mtime < oldest:
            shutil.rmtree(other, ignore_errors=True)


@cache
def _places() -> _Places:
    return _Places()


class _DamagedError(ValueError):
    """A file of the cache is not what was written."""


class _File(caching.IndexDataCacheFile):  # type: ignore[misc]
    """numba's two files of one compiled signature, with a checksum at their ends."""

    def load(self, key: Any) -> Any:
        """Return the data of `key`, None if there are none; numba's own hides what is damaged."""
        name = self._load_index().get(key)
        with suppress(FileNotFoundError):
            return None if name is None else self._load_data(name)
        return None

    def _load_index(self) -> Any:
        with suppress(FileNotFoundError):
            _require_checksum(Path(self._index_path))
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        _require_checksum(Path(self._data_path(name)))
        return super()._load_data(name)

    @contextmanager
    def _open_for_write(self, path: str) -> Iterator[io.BytesIO]:
        with super()._open_for_write(path) as file:
            held = io.BytesIO()
            yield held
            data = held.getvalue()
            file.write(data + _CHECKSUM(data).digest())

    def remove(self) -> None:
        """Remove the files, as far as that is possible."""
        folder, name = os.path.split(self._index_path)
        for path in Path(folder).glob(f"{name.removesuffix('.nbi')}.*"):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _require_checksum(path: Path) -> None:
    data = path.read_bytes()
    body, found = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if _CHECKSUM(body).digest() != found:
        raise _DamagedError(f"{path.name}: {len(data)} bytes, and not those that were written")


class KernelCache(caching.FunctionCache):  # type: ignore[misc]
    """One kernel's cache, for numba; nothing that goes wrong in it is an error.

    Parameters
    ----------
    function : callable
        The kernel, not compiled.
    places : callable
        Returns the folders; asked at the first use.
    """

    def __init__(
        self, function: Callable[..., Any], places: Callable[[], _Places] = _places
    ) -> None:
        self._py_func, self._name, self._places = function, repr(function), places
        self._impl = _Implementation(function)
        self.enable()

    @property
    def cache_path(self) -> str:
        """The folder that is written to."""
        return str(self._places().written or "")

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was compiled for a signature, None if that must be done now.

        A thread that does not wait gets `NotCompiledError` in place of None, if it can be done
        elsewhere.
        """
        found = None
        for file in self._files(sig, self._places().read):
            try:
                target_context.refresh()
                data = file.load(self._index_key(sig, target_context.codegen()))
                if data is not None:
                    found = self._impl.rebuild(target_context, data)
                    break
            except Exception as error:  # numba's readers raise what they like for what is damaged
                file.remove()
                _say_once(
                    "the cache of compiled kernels in %s is damaged (%s): they are compiled anew, "
                    "which takes about a minute, once",
                    Path(file._index_path).parent,
                    str(error) or type(error).__name__,
                )
        if found is None:
            folder = self._places().written
            if folder and not waits() and background.ask(folder, self._py_func, sig):
                raise NotCompiledError
            _clock.start(self._places())
        return found

    def holds(self, sig: Any) -> bool:
        """Return whether there are files for a signature."""
        files = self._files(sig, self._places().read)
        return any(Path(file._index_path).is_file() for file in files)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled."""
        _clock.stop()
        places = self._places()
        try:
            if places.written and self._impl.check_cachable(data):
                (file,) = self._files(sig, [places.written])
                file.save(self._index_key(sig, data.codegen), self._impl.reduce(data))
        except Exception as error:  # a full disk, a quota, a folder that is gone
            _say_once(
                "the cache of compiled kernels in %s cannot be written (%s): every process "
                "compiles them anew, about a minute; make room there, %s",
                places.written,
                str(error) or type(error).__name__,
                _PLACE,
            )

    def flush(self) -> None:
        """Forget nothing: files of other sources are not read anyway."""

    def _files(self, sig: Any, folders: list[Path]) -> list[_File]:
        name = f"{self._impl.filename_base}-{_CHECKSUM(repr(sig).encode()).hexdigest()[:16]}"
        return [_File(str(folder), name, digest()) for folder in folders]


class _Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
    """How numba turns compiled code into data and back, without its search for a folder."""

    def __init__(self, function: Callable[..., Any]) -> None:
        code, self._locator = function.__code__, self
        self._py_file, self._lineno = code.co_filename, code.co_firstlineno
        module = function.__module__.rpartition(".")[2]
        self._filename_base = f"{module}.{function.__qualname__}-{self._lineno}".translate(
            {ord(letter): None for letter in "<>"}
        )


class _Clock:
    """Says that kernels are being compiled, once that took longer than one waits without asking.

    It is told by one thread at a time: numba compiles under a lock.
    """

    def __init__(self) -> None:
        self._running, self._waits = 0, False
        self._since, self._spent = 0.0, 0.0  # of this compilation, and in those before it

    def start(self, places: _Places) -> None:
        """Hear that a kernel is being compiled, perhaps for another one."""
        if not self._running:
            self._since = time.monotonic()
        self._running += 1
        self._wait(places)

    def stop(self) -> None:
        """Hear that it is done."""
        self._running -= 1
        if not self._running:
            self._spent += time.monotonic() - self._since

    def _wait(self, places: _Places) -> None:
        if self._waits:
            return
        timer = threading.Timer(max(0.0, _PATIENCE - self._spent), self._look, [places])
        timer.daemon = True
        with suppress(RuntimeError):  # no thread is left
            timer.start()
            self._waits = True

    def _look(self, places: _Places) -> None:
        self._waits = False
        if not self._running:
            return
        if self._spent + time.monotonic() - self._since < _PATIENCE:
            self._wait(places)
        elif places.written:
            _say_once("compiling kernels: about a minute, once")
        else:
            _say_once(
                "compiling kernels: about a minute, and anew in every process, since none of the "
                "folders for them can be written (%s); %s",
                places.tried,
                _PLACE,
            )


_clock = _Clock()
_said: set[str] = set()


def _say_once(text: str, *values: object) -> None:
    if text not in _said:
        _said.add(text)
        log.warning(text, *values)
