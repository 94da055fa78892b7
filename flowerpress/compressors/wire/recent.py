"""The small packets that were opened last in this process.

In a simulation the server opens what a client of the same process sent, and the client then opens
it again, to know what the server has. The bytes are the same object, so what was found in them is
what would be found again. Kept are packets of a few kilobytes, and few of them.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from flowerpress.compressors.wire.reading import Opened

_LARGEST = 4096  # bytes of a packet, and coordinates for each of its bytes that are read from it
_MOST = 1024  # packets


class Recent:
    """Opened packets by the identity of their bytes, which are held too: none is another's."""

    def __init__(self, most: int = _MOST) -> None:
        self._most, self._opened = most, OrderedDict[int, Opened]()
        self._lock = Lock()

    def add(self, opened: Opened) -> None:
        """Remember a packet, if it is small, in the place of the oldest."""
        data = opened.packet.data
        if type(data) is bytes and len(data) <= _LARGEST:
            with self._lock:
                self._opened[id(data)] = opened
                if len(self._opened) > self._most:
                    self._opened.popitem(last=False)

    def take(self, data: bytes) -> Opened | bytes:
        """Return what these very bytes were opened to, and forget it; else the bytes."""
        with self._lock:
            opened = self._opened.get(id(data))
            if opened is None or opened.packet.data is not data:
                return data
            del self._opened[id(data)]
            return opened


RECENT = Recent()
