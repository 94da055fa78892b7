"""The Huffman stage: symbols in whole bits, decoded by looking them up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowerpress.compressors.composed.entropy import Entropy
from flowerpress.compressors.kernels import twin
from flowerpress.compressors.kernels.numpy.huffman import (
    LENGTH_BITS,
    MAX_LENGTH,
    Symbols,
    code_lengths,
    is_complete,
    stream_edges,
)
from flowerpress.compressors.kernels.packing import U32
from flowerpress.compressors.wire.packet import Buffer
from flowerpress.compressors.wire.payload import Reader

# Bits of the longest word that is written for up to 256 symbols: a table of it is quick to read.
_USUAL_LENGTH = 12


@dataclass(frozen=True)
class Huffman(Entropy):
    """Code symbols by their frequency in whole bits, quickly; written ``qsgd:127+huffman``.

    A canonical code of least length (Huffman, "A method for the construction of minimum-redundancy
    codes", 1952). A word has whole bits, so it merits an alphabet without a frequent symbol: where
    none has more than 15 %, a symbol takes 0.02 to 0.05 bits more than its entropy, which is
    within 1 % for 5 bits and more: ``qsgd:127``, ``uniform:8``, ``eden:5``. In general the excess
    is at most p + 0.0861 bits, p the share of the most frequent symbol (Gallager, "Variations on a
    theme by Huffman", 1978). Where few symbols are common, as in ``qsgd:7``, use ``rans``: words
    have at least one bit each.

    Examples
    --------
    >>> from flowerpress.compressors import make_compressor
    >>> x = np.repeat([-127.0, -126.0, -125.0], [32, 16, 16])
    >>> stage = make_compressor("uniform:8,rounding=nearest+huffman")
    >>> coded = stage.compress(x).payload[36:]
    >>> coded[:2].hex()  # lengths 1, 2, 2
    '2102'
    >>> coded[2:18].hex(" ", -4), coded[18:].hex(" ", -4)  # sizes, and the streams
    ('01000000 01000000 01000000 01000000', '00000000 00000000 55555555 ffffffff')
    """

    name: ClassVar[str] = "huffman"
    codec: ClassVar[int] = 29
    symbol_work: ClassVar[Mapping[int, float]] = {4: 2.8, 8: 2.8}

    @classmethod
    def write(cls, symbols: U32, counts: U32) -> Sequence[Buffer]:
        """Return the lengths of the words, the sizes of the streams and the streams."""
        limit = _USUAL_LENGTH if counts.size <= 256 else MAX_LENGTH
        lengths = code_lengths(counts, limit)
        sizes, stream = twin("huffman").encode(symbols, lengths)
        return [twin("symbols").pack(lengths, LENGTH_BITS), sizes, stream]

    @classmethod
    def read(cls, reader: Reader, entries: int, count: int) -> Callable[[Symbols], None]:
        """Check the lengths and the sizes."""
        lengths = twin("symbols").unpack(reader.codes(entries, LENGTH_BITS), entries, LENGTH_BITS)
        if entries > 1 and not (lengths[0] and lengths[-1]):
            raise reader.error("the first and the last length must not be zero")
        if not is_complete(lengths):
            raise reader.error("the lengths are not those of a complete prefix code")
        sizes = reader.array(stream_edges(count).size - 1, np.dtype("<u4"), "sizes of streams")
        total = int(sizes.sum(dtype=np.uint64))
        if 4 * total != reader.left:
            raise reader.error(f"streams of {total} words in {reader.left} bytes")
        shortest = int(lengths[lengths > 0].min(initial=MAX_LENGTH)) if entries > 1 else 0
        if count * shortest > 32 * total:
            raise reader.error(f"{total} words are too few for {count} symbols")
        stream = reader.array(total, np.dtype("<u4"), "streams")

        def decode(symbols: Symbols) -> None:
            if not twin("huffman").decode(sizes, stream, lengths, symbols):
                raise reader.error(f"the streams do not hold {count} symbols, each to its end")

        return decode
