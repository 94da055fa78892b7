"""gRPC's own log lines, so many a second: it writes them to stderr, past Python.

Each failed handshake is such a line, so strangers could fill a disk with them. Stderr becomes a
pipe; a thread reads it and passes on what is not gRPC's, and of gRPC's lines as many as `Lines`
lets through.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

from flowerpress.transport.limits import Lines

_GRPC = re.compile(rb"[IWEF]\d{4} [\d:.]+ +\d+ [\w./]+:\d+\] ")
_AT_ONCE = 10  # lines


@contextmanager
def limited_stderr() -> Iterator[None]:
    """Limit gRPC's lines while this lasts; Python's own go to stderr as before."""
    before = sys.stderr
    if before is not sys.__stderr__ or before is None:  # somebody else has taken it over
        yield
        return
    before.flush()
    number = before.fileno()
    kept = os.dup(number)
    reader, writer = os.pipe()
    # Nobody waits for the thread below: where the pipe is full, lines are lost.
    os.set_blocking(writer, False)
    os.dup2(writer, number)
    os.close(writer)
    direct = os.fdopen(kept, "w", buffering=1, encoding=before.encoding, errors=before.errors)
    sys.stderr = direct
    thread = threading.Thread(
        target=_pass_on, args=(os.fdopen(reader, "rb"), direct), name="gRPC's log", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        sys.stderr = before
        os.dup2(kept, number)  # the pipe's last writer, so that the thread ends
        thread.join(1.0)


def _pass_on(pipe: BinaryIO, out: TextIO) -> None:
    lines = Lines(_AT_ONCE)
    with pipe:
        for line in pipe:
            text: str | None = line.decode("utf-8", "replace").rstrip("\n")
            if _GRPC.match(line):
                text = lines.let(str(text))
            if text is not None:
                out.write(f"{text}\n")
                out.flush()
