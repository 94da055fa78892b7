"""Kernels are compiled by another process, while this one works with numpy's.

The other process (`background_process`) has a low priority. It is started when the first
kernel is missing on disk, told what is missing line by line, and ends when it has had nothing to do
for some seconds, or with this process, however that ends: its standard input is then closed. What
it compiles lies on disk, where this process finds it.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowerpress.compressors.kernels.numba.signatures import to_line

log = logging.getLogger("flowerpress")
_PROGRAM = "flowerpress.compressors.kernels.numba.background_process"
_LOCK = "compiling"  # the file that a compiling process has locked
_SECONDS = 2.0  # that it gets to end


class Background:
    """The other process, if there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave)
        atexit.register(self.stop)

    def _forget(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._asked: set[str] = set()
        self._failed = False

    def _leave(self) -> None:
        """Let go of the process of one's parent: it ends with that."""
        self._lock = threading.Lock()
        if self._child:
            _close(self._child)
            self._child.returncode = 0  # not one's own to wait for
        self._forget()

    def ask(self, folder: Path, function: Callable[..., Any], signature: tuple[Any, ...]) -> bool:
        """Ask for a kernel; return whether it will be in `folder` some time.

        It does not wait. Asking again costs little, and does what could not be done before: while
        another process of this user compiles for the same folder, no second one is started.
        """
        line = to_line(function, signature)
        if line is None:
            return False
        with self._lock:
            if self._failed:
                return True
            if not self._child:
                self._child = self._start(folder)
            if self._child and self._child.stdin and line not in self._asked:
                with suppress(OSError, ValueError):  # it has just ended: the next time
                    self._child.stdin.write(f"{line}\n".encode())
                    self._asked.add(line)
        return True

    def _start(self, folder: Path) -> subprocess.Popen[bytes] | None:
        try:
            lock = _locked(folder / _LOCK)
        except BlockingIOError:
            return None
        # The folders that modules are found in, and not the current one.
        own = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        own |= {"NUMBA_CACHE_DIR": str(folder.parent), "FLOWERPRESS_KERNELS": "numba"}
        try:
            child = subprocess.Popen(  # noqa: S603  (this Python, and a module of ours)
                [sys.executable, "-P", "-m", _PROGRAM, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **own},
                pass_fds=() if lock is None else (lock,),  # it is locked for as long as that lives
                bufsize=0,
            )
        except (OSError, RuntimeError, ValueError) as error:
            self._fail(str(error))
            return None
        finally:
            if lock is not None:
                os.close(lock)
        try:
            threading.Thread(target=self._watch, args=[child], daemon=True).start()
        except RuntimeError as error:  # no thread is left
            _end(child)
            self._fail(str(error))
            return None
        return child

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        """Wait for the process to end, and hear how it did."""
        code = child.wait()
        with self._lock:
            _close(child)
            if child is self._child:
                self._child, self._asked = None, set()
                # Ctrl-C may reach it before it says that this is not for it.
                if code not in (0, -signal.SIGINT):
                    self._fail(f"exit status {code}")

    def _fail(self, why: str) -> None:
        self._failed = True
        log.warning(
            "kernels are not compiled in the background (%s): numpy's stay in use, with the same "
            "bytes, several times slower; FLOWERPRESS_KERNELS=numba compiles them here, and says "
            "what is wrong",
            why,
        )

    def stop(self) -> None:
        """End the process."""
        with self._lock:
            child = self._child
            self._forget()
        if child:
            _end(child)


def _close(child: subprocess.Popen[bytes]) -> None:
    """Let the process know that nothing more will be asked."""
    if child.stdin:
        with suppress(OSError):
            child.stdin.close()


def _end(child: subprocess.Popen[bytes]) -> None:
    _close(child)
    try:
        child.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _locked(path: Path) -> int | None:
    """Return the open file `path`, locked; BlockingIOError if it is locked by somebody else.

    None where files cannot be locked: two processes may then compile the same.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise
    except OSError:
        os.close(file)
        return None
    return file


background = Background()
