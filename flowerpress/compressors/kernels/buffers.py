"""Memory for a payload's pieces that is used again.

Fresh memory of megabytes costs more than a kernel takes to fill it: the system clears each page on
first touch. A piece dies as soon as its packet is built, so the next packet can have its memory.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

# Smaller pieces come from memory that the allocator has at hand; larger ones are not worth keeping.
SMALLEST, LARGEST = 1 << 17, 1 << 26
_KEPT = 2  # buffers of a thread


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.kept: list[U8] = []


_buffers = _Buffers()


def empty_bytes(count: int) -> U8:
    """Return `count` bytes with arbitrary values, aligned to cache lines where they are many.

    Memory is given out again only when no array refers to it any more.
    """
    if not SMALLEST <= count <= LARGEST:
        return np.empty(count, dtype=np.uint8)
    kept = _buffers.kept
    for place, buffer in enumerate(kept):
        # Referred to by the list, by `buffer` and by the call: any view would be one more.
        if buffer.size >= count and sys.getrefcount(buffer) <= 3:
            kept.append(kept.pop(place))  # the one used longest ago is dropped first
            return buffer[:count]
    room = np.empty(count + count // 8 + 64, dtype=np.uint8)
    buffer = room[-room.ctypes.data % 64 :]
    kept.append(buffer)
    del kept[:-_KEPT]
    return buffer[:count]
