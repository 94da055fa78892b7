"""A message on its way out, cut into frames, and one on its way in, put together again.

Both may stop anywhere and go on from there: that is how a message survives a connection.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from tempfile import TemporaryFile
from typing import Any, Protocol
from weakref import finalize

import numpy as np

from flowerpress.compressors.kernels.paging import HAS_PAGES, LARGE, Paged, shift
from flowerpress.protocol.arrays import ALIGNED, misplaced
from flowerpress.protocol.blob import start_of_packets
from flowerpress.protocol.grids import Upload
from flowerpress.protocol.rooms import room_for
from flowerpress.transport.frames import CHUNK, FrameError, chunk, make

IN_MEMORY = 8 * 2**20  # bytes of an incoming message; what is longer goes to a temporary file
_HEAD = 64  # bytes of a message of packets that say where these begin
_FIRST = 2**16  # bytes of the frame after the announcement of a message
_SHORT = 2**14  # bytes of a message that travels with its announcement
_ANNOUNCED = 2**12  # bytes that travel with that of a longer one: the rest shows how fast it comes
_LEAST = 2**13  # bytes in a frame on the slowest network
_QUICK, _SLOW = 0.05, 0.2  # seconds that a frame takes where the next may be longer, or must not


class Outgoing:
    """A message that is sent once, or again from some byte on.

    Parameters
    ----------
    id : int
        The number of the question that it is, or answers.
    buffers : sequence of bytes or views
        The message. Views must not change while it is sent.

    Examples
    --------
    >>> from flowerpress.transport.frames import parse
    >>> message = Outgoing(7, [b"abc", b"de"])
    >>> [parse(frame).data for frame in message.frames(1)]
    [b'bcde']
    """

    def __init__(self, id: int, buffers: Sequence[bytes | memoryview]) -> None:  # noqa: A002  (as in link.proto)
        self.id, self.size, self.cancelled = id, sum(map(len, buffers)), False
        self._buffers: Sequence[bytes | memoryview] = buffers

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


class Place(ABC):
    """Where an incoming message is put, and read from."""

    @abstractmethod
    def write(self, data: bytes | memoryview) -> int:
        """Write where the last one ended."""

    @abstractmethod
    def seek(self, position: int) -> int:
        """Go to a position."""

    @abstractmethod
    def read(self, size: int) -> bytes:
        """Return the next `size` bytes; fewer at the end."""

    @abstractmethod
    def view(self, size: int) -> memoryview:
        """Return the next `size` bytes; where they may be written to, that changes no file.

        If they are a message of packets, the first packet lies where any float may lie. What is
        viewed may not be read again.
        """


class Memory(Place):
    """A place in memory for a message whose length is known.

    Pages of it are taken as they are written, and not when it is made: a length that is said and
    does not come costs nothing.

    Examples
    --------
    >>> memory = Memory(6)
    >>> memory.write(b"abc"), memory.write(b"def"), memory.seek(0)
    (3, 3, 0)
    >>> memory.read(4), bytes(memory.view(4))
    (b'abcd', b'ef')
    """

    def __init__(self, size: int) -> None:
        self._bytes = room_for(size, np.uint8).data
        self._at = self._room = 0  # the position; bytes before it that nobody needs any more

    def write(self, data: bytes | memoryview) -> int:
        self._bytes[self._at : self._at + len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, position: int) -> int:
        self._at, self._room = position, 0
        return position

    def read(self, size: int) -> bytes:
        found = bytes(self._bytes[self._at : self._at + size])
        self._at, self._room = self._at + len(found), self._room + len(found)
        return found

    def view(self, size: int) -> memoryview:
        data, at = self._bytes, self._at
        found = data[at : at + size]
        past = misplaced(found, start_of_packets(found))
        if past > self._room:
            past = 0
        if past:  # to the left by so many bytes: the two overlap, which a memoryview allows
            data[at - past : at - past + len(found)] = found
        self._at, self._room = at + len(found), past
        return data[at - past : at - past + len(found)]


class Stored(Place):
    """A place in a temporary file, which is closed when it is let go.

    What is viewed of it is a copy in memory or, where that would be large, the file itself, see
    `flowerpress.compressors.kernels.paging`: that may be read only. It may be viewed again.
    """

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115
        # A place before which bytes were put, so that the packets that follow lie where floats may.
        self._gap_at = self._gap = 0
        finalize(self, self._file.close)

    def write(self, data: bytes | memoryview) -> int:
        return self._file.write(data)

    def seek(self, position: int) -> int:
        past = self._gap if position > self._gap_at else 0
        return self._file.seek(position + past) - past

    def read(self, size: int) -> bytes:
        self._pass_gap()
        return self._file.read(size)

    def view(self, size: int) -> memoryview:
        self._pass_gap()
        found = self._in_file(size) if size >= LARGE and HAS_PAGES else None
        return self._copied(size) if found is None else found

    def _pass_gap(self) -> None:
        if self._gap and self._file.tell() == self._gap_at:
            self._file.seek(self._gap, os.SEEK_CUR)

    def _in_file(self, size: int) -> memoryview | None:
        """Return a part of the file where it lies; None where floats may not lie so.

        The first such part is moved until they may, with all that follows it.
        """
        self._file.flush()
        file, at = self._file.fileno(), self._file.tell()
        first = at + start_of_packets(os.pread(file, _HEAD, at))
        past, end = -first % ALIGNED, os.fstat(file).st_size
        if past:
            if self._gap or not _extended(file, end, past):
                return None
            shift(file, at, end, past)
            self._gap_at, self._gap = at, past
            at = self._file.seek(at + past)
        try:
            memory = Paged(file)
        except (OSError, ValueError):  # no room among addresses
            return None
        self._file.seek(at + size)
        return memoryview(memory)[at : at + size]

    def _copied(self, size: int) -> memoryview:
        first = self._file.read(min(size, _FIRST))
        memory = room_for(size + ALIGNED, np.uint8).data
        past = misplaced(memory, start_of_packets(first))
        start = -past % ALIGNED
        memory[start : start + len(first)] = first
        filled = start + len(first)
        while filled < start + size and (count := _fill(self._file, memory[filled : start + size])):
            filled += count
        return memory[start:filled]


def _extended(file: int, end: int, count: int) -> bool:
    """Make a file longer by so many bytes; returns whether there was room."""
    try:
        return os.pwrite(file, bytes(count), end) == count
    except OSError:
        return False


def _fill(file: Any, memory: memoryview) -> int:
    return int(file.readinto(memory))


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
        self._file: Place = Memory(size) if self.in_memory else Stored()

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
