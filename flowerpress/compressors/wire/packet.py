"""The frame: 24 bytes that say what a packet is, then the codec's payload."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels import kernels
from flowerpress.compressors.kernels.arithmetic import by_default_rules
from flowerpress.compressors.kernels.paging import sweep

Bytes: TypeAlias = "bytes | bytearray | memoryview"
Buffer: TypeAlias = "Bytes | npt.NDArray[Any]"

MAGIC = b"FPRS"
VERSION = 1
DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("<f8")}
_DTYPE_CODES = {np.dtype(np.float32): 1, np.dtype(np.float64): 2}

# magic, version, codec, dtype, flags, payload length, dim; the CRC-32 follows.
_HEAD = struct.Struct("<4sBBBBQI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEAD.size + _CRC.size
MAX_DIM = (1 << 32) - 1
_LONG = 1 << 15  # bytes from which the kernels' CRC-32 pays


class PacketError(ValueError):
    """The bytes are not a packet that this version can decode; the message says what and where."""


class Header(NamedTuple):
    """The checked fields of a frame's header."""

    codec: int
    dtype: np.dtype[Any]
    dim: int


@dataclass(frozen=True)
class Packet:
    """The bytes of one compressed vector.

    Parameters
    ----------
    data : bytes
        A whole frame. The header, the length and the CRC-32 are checked here; the payload is
        checked by whoever decodes it.

    Attributes
    ----------
    header : Header
        What the frame says.
    dim : int
        Length of the vector that was compressed.
    dtype : numpy.dtype
        Its dtype: float32 or float64.

    Raises
    ------
    PacketError
        If the frame is damaged, or is of a version or dtype that is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from flowerpress.compressors import make_compressor
    >>> packet = make_compressor("identity").compress(np.array([1.0], dtype=np.float32))
    >>> packet.data[:4], packet.data[24:].hex()
    (b'FPRS', '0000803f')
    >>> Packet(packet.data[:-1])
    Traceback (most recent call last):
    ...
    flowerpress.compressors.wire.packet.PacketError: frame: 27 bytes, but its header says 24 + 4
    """

    data: bytes
    header: Header = field(init=False, repr=False, compare=False)
    dim: int = field(init=False, repr=False, compare=False)
    dtype: np.dtype[Any] = field(init=False, repr=False, compare=False)
    # Reads the payload's own parameters: put here by whoever knows the compressors.
    spec_reader: ClassVar[Callable[[Packet], str]]

    def __post_init__(self) -> None:
        header = _parse_header(self.data)
        # Fields, not properties: every reader asks for them, several times.
        vars(self).update(header=header, dim=header.dim, dtype=header.dtype)

    @classmethod
    def parse(cls, data: Packet | Buffer) -> Packet:
        """Return `data` as a checked packet; a packet is returned as it is."""
        if isinstance(data, Packet):
            return data
        return cls(bytes(data))

    @classmethod
    def view(cls, data: bytes | memoryview) -> Packet:
        """Return the frame in `data`, checked, and where it is: nothing is copied."""
        return cls._of(data, _parse_header(data))

    @classmethod
    def unframed(cls, header: Header, data: memoryview) -> Packet:
        """Return a packet of `header`; `data` is its payload after so many bytes as a head has.

        What these bytes are is not looked at.
        """
        return cls._of(data, header)

    @classmethod
    def _of(cls, data: bytes | memoryview, header: Header) -> Packet:
        packet = object.__new__(cls)
        vars(packet).update(data=data, header=header, dim=header.dim, dtype=header.dtype)
        return packet

    @classmethod
    def build(cls, codec: int, dtype: np.dtype[Any], dim: int, parts: Iterable[Buffer]) -> Packet:
        """Frame a payload, given as the pieces it is made of.

        Parameters
        ----------
        codec : int
            The codec's number, 0 to 255.
        dtype : numpy.dtype
            float32 or float64: the dtype of the vector that was compressed.
        dim : int
            The length of that vector, ``1 <= dim < 2**32``.
        parts : iterable of buffers
            The payload's pieces, in order; arrays are little-endian and C-contiguous.
        """
        pieces = cls.pieces(codec, dtype, dim, parts)
        return cls._of(b"".join(pieces), Header(codec, dtype, dim))

    @classmethod
    def pieces(
        cls, codec: int, dtype: np.dtype[Any], dim: int, parts: Iterable[Buffer]
    ) -> list[bytes | memoryview]:
        """Return the frame of a payload as its head of 24 bytes and the payload's pieces."""
        views, length = [], 0
        for part in parts:
            view = memoryview(cast(Bytes, part))
            if view.nbytes:
                views.append(view.cast("B"))
                length += view.nbytes
        head = _HEAD.pack(MAGIC, VERSION, codec, _DTYPE_CODES[dtype], 0, length, dim)
        crc = zlib.crc32(head)
        for view in views:
            crc = zlib.crc32(view, crc) if len(view) < _LONG else _crc32(view, crc)
        return [head + _CRC.pack(crc), *views]

    @property
    def nbytes(self) -> int:
        """Length of the whole frame in bytes."""
        return len(self.data)

    @property
    def payload(self) -> memoryview:
        """The codec's bytes, after the frame's header."""
        return memoryview(self.data)[HEADER_BYTES:]

    @property
    @by_default_rules
    def compressor(self) -> str:
        """The spec of a compressor that sends packets like this one.

        An entropy-coded packet is decoded for it, in memory of a few times `dim`: check that
        first.

        Raises
        ------
        PacketError
            If the codec is not known, the start of its payload is damaged, or what it says is none
            of a compressor.
        """
        return type(self).spec_reader(self)


def frame_length(head: bytes) -> int:
    """Return how long the frame is that begins with such a head, as it says itself."""
    if len(head) < HEADER_BYTES:
        raise PacketError(
            f"frame: {len(head)} bytes, fewer than the {HEADER_BYTES} bytes of a header"
        )
    return HEADER_BYTES + int(_HEAD.unpack_from(head)[5])


def total_bytes(parts: Iterable[Buffer]) -> int:
    """Return the bytes of some pieces of a payload."""
    return sum(bytes_of(part).nbytes for part in parts if len(part))


def bytes_of(part: Buffer) -> memoryview:
    """Return the bytes of a buffer, where they are."""
    return memoryview(cast(Bytes, part)).cast("B")


def _crc32(view: memoryview, start: int) -> int:
    """Return what ``zlib.crc32(view, start)`` does, faster for long payloads."""
    data = np.frombuffer(view, dtype=np.uint8)
    for first, stop in sweep(data):
        start = kernels().crc32(data[first:stop], start)
    return start


def _parse_header(data: bytes | memoryview) -> Header:
    if len(data) < HEADER_BYTES:
        raise PacketError(
            f"frame: {len(data)} bytes, fewer than the {HEADER_BYTES} bytes of a header"
        )
    magic, version, codec, dtype, flags, length, dim = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise PacketError(f"frame: starts with {magic!r} instead of {MAGIC!r}: not a packet")
    if version != VERSION:
        raise PacketError(f"frame: version {version}, this release reads version {VERSION}")
    if dtype not in DTYPES:
        raise PacketError(f"frame: dtype {dtype} at byte 6, known are 1 (float32) and 2 (float64)")
    if flags:
        raise PacketError(f"frame: flags {flags:#04x} at byte 7 must be zero")
    if length != len(data) - HEADER_BYTES:
        raise PacketError(
            f"frame: {len(data)} bytes, but its header says {HEADER_BYTES} + {length}"
        )
    if dim < 1:
        raise PacketError("frame: dim is 0, a packet holds at least one coordinate")
    view = memoryview(data)
    (stated,) = _CRC.unpack_from(data, _HEAD.size)
    crc = zlib.crc32 if length < _LONG else _crc32
    actual = crc(view[HEADER_BYTES:], zlib.crc32(view[: _HEAD.size]))
    if stated != actual:
        raise PacketError(f"frame: CRC-32 is {actual:#010x}, the header says {stated:#010x}")
    return Header(codec, DTYPES[dtype], dim)
