"""The command `flowerpress`, also as `python -m flowerpress`: what must be so before it is there.

Importing the command line takes a second or more, and Python would end with a traceback where it
is interrupted meanwhile, or where it was started without an output.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

_INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit code."""
    _open_streams()
    codes = list[int]()
    atexit.register(_leave, codes)  # the first to be registered is the last to be called
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # and not ignored
    if heard:
        signal.signal(signal.SIGINT, _end)
    from flowerpress.cli import main as command

    try:
        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        codes.append(command())
        if heard:
            signal.signal(signal.SIGINT, _end)
        return codes[0]
    except KeyboardInterrupt:  # it came while an error was told, say
        _end()


def _end(*_: object) -> NoReturn:
    """End at once, with a line: an exception would be lost in the imports of compiled packages."""
    os.write(2, b"flowerpress: interrupted\n")
    os._exit(_INTERRUPTED)


def _leave(codes: list[int]) -> None:
    """End with the command's exit code, when all else has been called that is to be at the end.

    While Python takes itself apart Ctrl-C is death by a signal; so is, for it, any earlier one that
    came in a text that was evaluated, as dataclasses are made.
    """
    if codes:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads, or it is closed
                stream.flush()
        os._exit(codes[0])


def _open_streams() -> None:
    """Let what was closed, as by ``>&-``, go nowhere.

    Python has no stream there, and the next file that is opened would get its number.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
