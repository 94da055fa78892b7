"""How the C library keeps memory that was freed: a process of large vectors must give it back."""

from __future__ import annotations

import contextlib
import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGE = 2 << 20  # bytes; a frame of the link, which comes many times a second, is below
_SPARE = 4 << 20  # bytes that stay at a heap's end: the frames that are on their way


def give_back_large_memory() -> None:
    """Let glibc return arrays of 2 MiB and more to the system when they are freed.

    By itself it learns from the first large array that is freed to keep those of up to 32 MiB, and
    then holds what rounds have left between them: a fifth of a model of 100 MB. Told so, it gives
    the end of its heap back with each frame of the link that is freed, and takes it anew for the
    next one, page by page, which makes the link two to three times slower: so some of it stays.

    It holds for the whole process, so commands call it, and no function that others call. Elsewhere
    than with glibc it does nothing; who has set ``MALLOC_MMAP_THRESHOLD_`` is left with that, and
    who has set ``MALLOC_TRIM_THRESHOLD_`` with that.
    """
    if os.name == "posix" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_THRESHOLD, _LARGE)
            if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
                library.mallopt(_TRIM_THRESHOLD, _SPARE)


def give_back_freed_memory() -> None:
    """Let glibc return what is free between what is in use: up to a twelfth of a model of 100 MB.

    The frames that a message came in are freed one by one, and leave holes in which nothing large
    fits; what one thread made and another frees has its place in the first one's heap, where the
    other makes nothing. It takes about a millisecond. Elsewhere than with glibc it does nothing.
    """
    if os.name == "posix":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
