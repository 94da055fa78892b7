"""Entropy stages: the codes of a packet, in fewer bits where some are more frequent."""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.composed import nesting
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.kernels import twin
from flowerpress.compressors.kernels.numpy.rans import BITS, LANES, LOW, TOTAL, Symbols
from flowerpress.compressors.kernels.packing import U8, U32, packed_bytes, pieces
from flowerpress.compressors.wire import budget, reading
from flowerpress.compressors.wire.packet import HEADER_BYTES, Buffer, Header, Packet, total_bytes
from flowerpress.compressors.wire.payload import Reader

MAX_WIDTH = 12
_BYTE = 8
_SAMPLE = 1 << 16
# Steps until the first symbol is known, and for a byte of the code, beside those of the symbols.
_TABLE_WORK, _BYTE_WORK = 100_000.0, 0.25

# Codec inside, bits of a symbol, lowest symbol, symbols, entries of the table, two zero bytes,
# bytes before the symbols.
_HEAD = struct.Struct("<BBHIHHQ")


@dataclass(frozen=True)
class Entropy(Compressor):
    """A stage that codes the symbols at the end of another compressor's packets.

    Where a packet ends with packed codes of up to 12 bits, these are the symbols and what comes
    before them is sent as it is. Otherwise the symbols are the payload's bytes. A payload that
    would not become shorter is sent as it is.

    Parameters
    ----------
    inner : Compressor
        What makes the packets. The vector that is decoded is the same.
    """

    inner: Compressor

    reading_work: ClassVar[float] = 0.0  # that of what is inside, and of the symbols:
    symbol_work: ClassVar[Mapping[int, float]]  # by the bytes of a number of the vector

    def __post_init__(self) -> None:
        nesting.require_depth(self)

    @classmethod
    @abstractmethod
    def write(cls, symbols: U32, counts: U32) -> Sequence[Buffer]:
        """Return the pieces of the table, which has an entry for each symbol, and of the code.

        `counts` has how often each symbol from zero on occurs; the first and the last are not zero.
        """

    @classmethod
    @abstractmethod
    def read(cls, reader: Reader, entries: int, count: int) -> Callable[[Symbols], None]:
        """Check the table and how long the code is, before symbols take memory.

        What is returned sets an array to the symbols, from zero on, and raises `PacketError` unless
        the code holds just these.
        """

    @property
    def encodes_tensors(self) -> bool:
        """Whether what is inside compresses tensors on their device."""
        return self.inner.encodes_tensors

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the payload inside, its symbols coded if that is shorter."""
        packet = self.inner.compress(x, draw)
        payload = np.frombuffer(packet.payload, dtype=np.uint8)
        number = packet.header.codec
        count, width = _symbols_of(packet)
        coded = self._coded(number, payload, count, width) if count else None
        if coded is not None:
            size = total_bytes(coded)
            if size < payload.size and count <= _most_symbols(x.size, x.dtype, width, size):
                return coded
        return [_HEAD.pack(number, 0, 0, 0, 0, 0, payload.size), payload]

    @classmethod
    def _coded(cls, number: int, payload: U8, count: int, width: int) -> Sequence[Buffer]:
        cut = payload.size - packed_bytes(count, width)
        symbols = twin("symbols").unpack(payload[cut:], count, width)
        counts = twin("symbols").counts(symbols, width)
        used = np.flatnonzero(counts)
        first, stop = int(used[0]), int(used[-1]) + 1
        code = cls.write(symbols - np.uint32(first), counts[first:stop])
        head = _HEAD.pack(number, width, first, count, stop - first, 0, cut)
        return [head, payload[:cut], *code]

    @classmethod
    def inside(cls, packet: Packet) -> Packet:
        """Return the packet that was coded; `PacketError` if the code is wrong."""
        reader = Reader(packet, cls.name)
        number, width, first, count, entries, spare, cut = reader.unpack(_HEAD)
        if spare:
            raise reader.error("bytes 10 and 11 must be zero")
        payload = reader.take(cut, "what comes before the symbols")
        if not width:
            if first or count or entries:
                raise reader.error("a payload sent as it is has no symbols")
            reader.done()
            frame = memoryview(packet.data)[_HEAD.size :]  # with room for a head before it
        else:
            cls._require_symbols(reader, packet, width, first, count, entries)
            budget.charge(cls.symbol_work[packet.dtype.itemsize] * count)
            budget.charge(_TABLE_WORK + _BYTE_WORK * reader.left)
            frame = cls._unpacked(reader, payload, width, first, count, entries).data
        return Packet.unframed(Header(number, packet.dtype, packet.dim), frame)

    @classmethod
    def _unpacked(
        cls, reader: Reader, payload: U8, width: int, first: int, count: int, entries: int
    ) -> U8:
        """Return room for a head, `payload`, and the packed symbols that the rest holds."""
        start = HEADER_BYTES + payload.size
        narrow = width <= _BYTE
        decode = cls.read(reader, entries, count)
        reader.done()
        # A symbol takes no less room than it does packed: it is packed where it was.
        room = start + (count if narrow else packed_bytes(count, width))
        budget.keep(room + 2 * count * (not narrow))  # which the symbols are charged for
        frame: U8 = np.empty(room, np.uint8)
        frame[:HEADER_BYTES] = 0
        frame[HEADER_BYTES:start] = payload
        rest = frame[start:]
        symbols: Symbols = rest if narrow else np.empty(count, dtype=np.uint16)
        decode(symbols)
        for at, stop in pieces(count):
            codes = symbols[at:stop].astype(np.uint32) + np.uint32(first)
            packed = twin("symbols").pack(codes, width)
            rest[packed_bytes(at, width) :][: packed.size] = packed
        return frame[: start + packed_bytes(count, width)]

    @staticmethod
    def _require_symbols(
        reader: Reader, packet: Packet, width: int, first: int, count: int, entries: int
    ) -> None:
        if width > MAX_WIDTH:
            raise reader.error(f"symbols of {width} bits, at most {MAX_WIDTH} are read")
        if not 1 <= count <= _most_symbols(packet.dim, packet.dtype, width, len(packet.payload)):
            raise reader.error(f"{count} symbols of {width} bits for {packet.dim} coordinates")
        if not entries or first + entries > 1 << width:
            raise reader.error(f"symbols {first} to {first + entries - 1} of {width} bits")

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Undo the code and check the packet inside."""
        return reading.decode(cls.inside(packet))

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return the spec inside, and the stage."""
        return f"{reading.spec_of(cls.inside(packet))}+{cls.name}"

    def after_rotation(self, block: int) -> Compressor:
        """Return it with what is inside for such a vector."""
        return replace(self, inner=self.inner.after_rotation(block))

    def bind(self, sizes: Sequence[int]) -> Compressor:
        """Bind what is inside."""
        return replace(self, inner=self.inner.bind(sizes))

    def bind_shapes(self, shapes: Sequence[tuple[int, ...]]) -> Compressor:
        """Bind what is inside."""
        return replace(self, inner=self.inner.bind_shapes(shapes))

    @property
    def spec(self) -> str:
        """The spec inside, and the stage."""
        return f"{self.inner.spec}+{self.name}"

    def homogeneous(self, dim: int, cohort: int) -> float | None:
        """Return the constant inside."""
        return self.inner.homogeneous(dim, cohort)

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants inside; the bits are those of a Gaussian vector, by measurement."""
        return replace(self.inner.traits(dim, cohort), bits=_measured_bits(self, dim))


def _symbols_of(packet: Packet) -> tuple[int, int]:
    """Return how many symbols the payload ends with, and their bits."""
    count, width = reading.codes_of(packet)
    if not 1 <= width <= MAX_WIDTH:
        return len(packet.payload), _BYTE
    return count, width


def _most_symbols(dim: int, dtype: np.dtype[Any], width: int, coded: int) -> int:
    """Return how many symbols are read of a payload of `coded` bytes.

    Packed codes are one a coordinate at most. The bytes of any payload may be twice as many as
    those of the vector: a sketch with as many cells, say; or twice those that they are coded in,
    which is any payload whose bytes are not easily told beforehand.
    """
    if width != _BYTE:
        return dim
    most = max(2 * dtype.itemsize * dim, 2 * coded)
    return min(1024 + most, 1024 + 24 * dim, (1 << 32) - 1)


@lru_cache(maxsize=256)
def _measured_bits(stage: Entropy, dim: int) -> float:
    size = min(dim, _SAMPLE)
    x = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    sent = 8.0 * (stage.compress(x).nbytes - HEADER_BYTES)
    return sent * dim / size


@dataclass(frozen=True)
class Rans(Entropy):
    """Code symbols by their frequency with rANS, close to the entropy; written ``qsgd:7+rans``.

    Range asymmetric numeral systems (Duda, "Asymmetric numeral systems: entropy coding combining
    speed of Huffman coding with compression rate of arithmetic coding", 2013) spend as many bits on
    a symbol as its frequency says, fractions too. Frequencies are kept to 14 bits. Within 1 % of
    the empirical entropy for symbols of up to 8 bits, once the table of two bytes for each symbol
    and 128 bytes of lanes are small beside the code.

    Examples
    --------
    >>> from flowerpress.compressors import make_compressor
    >>> x = np.random.default_rng(0).standard_normal(100_000, dtype=np.float32)
    >>> [make_compressor(spec).compress(x).nbytes for spec in ("qsgd:1", "qsgd:1+rans")]
    [25816, 4...]
    """

    name: ClassVar[str] = "rans"
    codec: ClassVar[int] = 28
    symbol_work: ClassVar[Mapping[int, float]] = {4: 3.0, 8: 2.8}

    @classmethod
    def write(cls, symbols: U32, counts: U32) -> Sequence[Buffer]:
        """Return the frequencies, the lanes and the words."""
        frequencies = _shares(counts)
        lanes, words = twin("rans").encode(symbols, frequencies)
        return [frequencies.astype("<u2"), lanes, words]

    @classmethod
    def read(cls, reader: Reader, entries: int, count: int) -> Callable[[Symbols], None]:
        """Check the frequencies and the lanes."""
        table = reader.array(entries, np.dtype("<u2"), "the table").astype(np.uint32)
        if int(table.sum(dtype=np.uint64)) != TOTAL:
            raise reader.error(f"frequencies add up to {table.sum()}, must be {TOTAL}")
        if not table[0] or not table[-1]:
            raise reader.error("the first and the last frequency must not be zero")
        lanes = reader.array(LANES, np.dtype("<u4"), "lanes")
        if (lanes < LOW).any():
            raise reader.error(f"lane {int(np.argmax(lanes < LOW))} is below {LOW}")
        if reader.left % 2:
            raise reader.error("half a word at the end")
        words = reader.array(reader.left // 2, np.dtype("<u2"), "words")

        def decode(symbols: Symbols) -> None:
            if not twin("rans").decode(lanes, words, table, symbols):
                raise reader.error(f"the words do not hold {count} symbols")

        return decode


def _shares(counts: U32) -> U32:
    """Return frequencies that add up to ``TOTAL``, none zero of a symbol that occurs.

    What rounding down leaves goes to the largest remainders; what the rare symbols take too much
    comes from the most frequent ones.
    """
    wide = counts.astype(np.uint64) << np.uint64(BITS)
    total = counts.sum(dtype=np.uint64)
    shares = (wide // total).astype(np.int64)
    shares[(shares == 0) & (counts > 0)] = 1
    missing = TOTAL - int(shares.sum())
    if missing > 0:
        order = np.argsort(-(wide % total).astype(np.int64), kind="stable")
        shares[order[:missing]] += 1
    for _ in range(-missing):
        shares[np.argmax(shares)] -= 1
    result: U32 = shares.astype(np.uint32)
    return result
