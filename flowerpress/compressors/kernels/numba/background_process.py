"""The process that compiles kernels for another one: see `background`.

    python -m flowerpress.compressors.kernels.numba.background_process FOLDER

It reads what is wanted, a line each, and leaves what it compiled in FOLDER.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

_IDLE = 3.0  # seconds without anything to do until it ends


def main(folder: Path) -> int:
    """Compile until nothing more is asked for; 1 where what was compiled cannot be kept."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    if hasattr(os, "nice"):
        os.nice(10)  # at 19 it would starve beside processes that take all of the processor
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=[lines], daemon=True).start()

    # After the reader is there, which ends all of this: numba takes its time.
    from flowerpress.compressors.kernels.numba import disk_cache, signatures

    if folder != disk_cache.bases()[0] / folder.name or disk_cache.digest() not in folder.name:
        return 1
    with suppress(queue.Empty):
        while True:
            kernel, types = signatures.from_line(lines.get(timeout=_IDLE))
            kernel.compile(types)
            if not kernel._cache.holds(types):
                return 1
    return 0


def _read(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # who asked is gone, whatever is being compiled


if __name__ == "__main__":
    # Not by way of Python's own ending, which would wait for the reader's lock of standard input.
    os._exit(main(Path(sys.argv[1])))
