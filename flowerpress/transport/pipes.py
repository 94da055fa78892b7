"""A message on its way out, cut into frames, and one on its way in, put together again.

Both may stop anywhere and go on from there: that is how a message survives a connection.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from tempfile import TemporaryFile
from typing import IO, Protocol
from weakref import finalize

from flowerpress.protocol.grids import Upload
from flowerpress.transport.frames import CHUNK, FrameError, chunk, make

IN_MEMORY = 8 * 2**20  # bytes of an incoming message; what is longer goes to a temporary file
_FIRST = 2**16  # bytes of the frame after the announcement of a message
_SHORT = 2**14  # bytes of a message that travels with its announcement
_ANNOUNCED = 2**12  # bytes that travel with that of a longer one: the rest shows how fast it comes
_LEAST = 2**13  # bytes in a frame on the slowest network
_QUICK, _SLOW = 0.05, 0.2  # seconds that a frame takes where the next may be longer, or must not
_SMALL = 2**14  # bytes of pieces that are joined as they come


class Outgoing:
    """A message that is sent once, or again from some byte on.

    Parameters
    ----------
    id : int
        The number of the question that it is, or answers.
    buffers : sequence of bytes
        The message.

    Examples
    --------
    >>> from flowerpress.transport.frames import parse
    >>> message = Outgoing(7, [b"abc", b"de"])
    >>> [parse(frame).data for frame in message.frames(1)]
    [b'bcde']
    """

    def __init__(self, id: int, buffers: Sequence[bytes]) -> None:  # noqa: A002  (as in link.proto)
        self.id, self.size, self.cancelled = id, sum(map(len, buffers)), False
        self._buffers = buffers

    def cancel(self) -> None:
        """Send no more of it, and let go of it."""
        self.cancelled, self._buffers = True, ()

    def _is_over(self) -> bool:
        return self.cancelled

    def frames(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the frames of the message from byte `offset` on; no more once it is cancelled."""
        if self._is_over():
            return
        cuts = self._cuts(offset)
        first = bytes(next(cuts, b""))
        yield make("begin", id=self.id, size=self.size, offset=offset, data=first)
        for data in cuts:
            if self._is_over():
                return
            yield chunk(data)

    def _cuts(self, offset: int) -> Iterator[bytes | memoryview]:
        """Yield what each frame carries: a little at first, then as much as fits."""
        pieces, filled, last = list[memoryview](), 0, time.monotonic()
        first = limit = _SHORT if self.size <= _SHORT else _ANNOUNCED
        for buffer in self._buffers:
            start, offset = min(offset, len(buffer)), max(0, offset - len(buffer))
            left = memoryview(buffer)[start:]
            while len(left):
                piece = left[: limit - filled]
                left = left[len(piece) :]
                pieces.append(piece)
                filled += len(piece)
                if filled == limit:
                    yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
                    now = time.monotonic()
                    limit = _FIRST if limit == first else _next_cut(limit, now - last)
                    pieces, filled, last = [], 0, now
        if pieces:
            yield b"".join(pieces)


def _next_cut(size: int, seconds: float) -> int:
    """Return how much goes into the next frame, from how long the last one took to be sent.

    A side that hears no whole frame for long takes the other for dead: frames must be short in
    time, and as long as they may be in bytes.
    """
    if seconds < _QUICK:
        return min(2 * size, CHUNK)
    return max(size // 2, _LEAST) if seconds > _SLOW else size


class Readable(Protocol):
    """What a message is read from."""

    def read(self, size: int, /) -> bytes:
        """Return the next `size` bytes; fewer at the end."""


class Pieces:
    """A file in memory that keeps what is written as it is, and copies it once, when it is read.

    Examples
    --------
    >>> pieces = Pieces()
    >>> pieces.write(b"abc"), pieces.write(b"def"), pieces.seek(0)
    (3, 3, 0)
    >>> pieces.read(4), pieces.read(4)
    (b'abcd', b'ef')
    """

    def __init__(self) -> None:
        self._pieces: list[memoryview | bytearray] = []
        self._next = self._within = 0  # the piece to read from, and where in it

    def write(self, data: bytes | memoryview) -> int:
        """Add to the end."""
        last = self._pieces[-1] if self._pieces else None
        if len(data) >= _SMALL:
            self._pieces.append(memoryview(data))
        elif isinstance(last, bytearray):
            last += data
        else:
            self._pieces.append(bytearray(data))
        return len(data)

    def seek(self, position: int) -> int:
        """Go to the beginning; `position` is 0."""
        self._next = self._within = position
        return position

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes; fewer at the end."""
        found = []
        while size and self._next < len(self._pieces):
            piece = self._pieces[self._next][self._within : self._within + size]
            found.append(piece)
            size -= len(piece)
            self._within += len(piece)
            if self._within == len(self._pieces[self._next]):
                self._next, self._within = self._next + 1, 0
        return b"".join(found)


class Incoming:
    """A message of which some bytes are there.

    Parameters
    ----------
    id, size : int
        Number of the question that it is, or answers, and its length.
    in_memory : int
        The longest message that is kept in memory, in bytes.

    Attributes
    ----------
    upload : Upload
        The bytes after the first frame, and the seconds that they took.

    Examples
    --------
    >>> message = Incoming(7, 5)
    >>> message.add(b"abc"), message.add(b"de"), message.open().read(5)
    (False, True, b'abcde')
    """

    def __init__(
        self,
        id: int,  # noqa: A002  (as in link.proto)
        size: int,
        *,
        in_memory: int = IN_MEMORY,
    ) -> None:
        self.id, self.size, self.received = id, size, 0
        self._at_first, self._begun = 0, 0.0
        self.upload = Upload(0, 0.0)
        self.in_memory = size <= in_memory
        self._file: IO[bytes] | Pieces = Pieces()
        if not self.in_memory:
            self._file = TemporaryFile()  # noqa: SIM115  (closed when let go)
            finalize(self, self._file.close)

    def add(self, data: bytes | memoryview) -> bool:
        """Take the next bytes; returns whether the message is whole now.

        Raises
        ------
        FrameError
            They are more than was announced.
        OSError
            The disk is full; the message is then of no more use.
        """
        received = self.received + len(data)
        if received > self.size:
            raise FrameError(f"{received} bytes of a message of {self.size}")
        self._file.write(data)
        now = time.monotonic()
        if not self.received:
            self._at_first, self._begun = received, now
        self.upload = Upload(received - self._at_first, now - self._begun)
        self.received = received
        return self.received == self.size

    def open(self) -> Readable:
        """Return the message as a file, at its first byte."""
        self._file.seek(0)
        return self._file
