"""The small sparse packets that a server opened last, for the clients in its process.

In a simulation the server opens what a client of the same process sent, and the client then opens
it again, to know what the server has. The bytes are the same object, so what was found in them is
what would be found again. It takes a third of the time of a client's small round.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from flowerpress.compressors.wire.payload import Sparse
from flowerpress.compressors.wire.reading import Opened

_LARGEST = 2048  # bytes of a packet
_MOST_NUMBERS = 1024  # in it
_MOST = 1024  # packets


class Recent:
    """Opened packets by the identity of their bytes, which are held too: none is another's."""

    def __init__(self) -> None:
        self._opened: OrderedDict[int, Opened] = OrderedDict()
        self._lock, self._users = Lock(), 0

    @contextmanager
    def used(self) -> Iterator[None]:
        """Remember packets for as long as this lasts; outside, none are."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._opened.clear()

    def add(self, opened: Opened) -> None:
        """Remember a packet, if it is small, in the place of the oldest."""
        data, decoded = opened.packet.data, opened.decoded
        if not self._users or type(data) is not bytes or len(data) > _LARGEST:
            return
        if isinstance(decoded, Sparse) and decoded.ids.size <= _MOST_NUMBERS:
            with self._lock:
                self._opened[id(data)] = opened
                if len(self._opened) > _MOST:
                    self._opened.popitem(last=False)

    def take(self, data: bytes) -> Opened | bytes:
        """Return what these very bytes were opened to, and forget it; else the bytes."""
        if not self._opened:
            return data
        with self._lock:
            opened = self._opened.get(id(data))
            if opened is None or opened.packet.data is not data:
                return data
            del self._opened[id(data)]
            return opened


RECENT = Recent()
