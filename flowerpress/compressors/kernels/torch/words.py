"""Random words and packed codes by torch operations; `philox` and `packing` say what they are.

32-bit words are int32 tensors with the same bits. Sums and products wrap around as those of
unsigned words do; right shifts copy the sign, so a mask follows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from flowerpress.compressors.kernels.device import to_device, to_host
from flowerpress.compressors.kernels.packing import BLOCK, LANES, U8, packed_bytes
from flowerpress.compressors.kernels.sums import Offsets

if TYPE_CHECKING:
    from torch import Tensor

# Coordinates worked on at once, a multiple of 1024: bounds the temporaries' memory.
PIECE = 1 << 22

_MASK = 0xFFFFFFFF


def pieces(count: int) -> Iterator[tuple[int, int]]:
    """Split `count` coordinates into ranges of `PIECE`; the last may be shorter."""
    for start in range(0, count, PIECE):
        yield start, min(start + PIECE, count)


def signed(word: int) -> int:
    """Return the int32 number that has the bits of an unsigned word.

    >>> signed(5), signed(0xFFFFFFFF)
    (5, -1)
    """
    return word - (1 << 32) if word >> 31 else word


def shifted(words: Tensor, count: int) -> Tensor:
    """Return int32 `words` shifted right by ``1 <= count <= 31``, with zeros coming in."""
    return (words >> count) & ((1 << (32 - count)) - 1)


def _block_keys(key: tuple[int, int], first: int, count: int, device: Any) -> tuple[Tensor, Tensor]:
    """Return the two key words of blocks `first`, ..., each as a column of int32."""
    import torch

    c0 = torch.arange(first, first + count, dtype=torch.int64, device=device)
    c1 = c2 = c3 = torch.zeros_like(c0)
    k0, k1 = key
    for _ in range(10):
        # All 64 bits of the products are right, though int64 takes the topmost for a sign.
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        high_0, high_1 = (p0 >> 32) & _MASK, (p1 >> 32) & _MASK
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, p1 & _MASK, high_0 ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0.to(torch.int32)[:, None], c1.to(torch.int32)[:, None]


def rounding_words(key: tuple[int, int], start: int, stop: int, device: Any) -> Tensor:
    """Return the int32 words for roundings of coordinates from `start`, a multiple of 1024."""
    import torch

    first = start // BLOCK
    k0, k1 = _block_keys(key, first, -(-stop // BLOCK) - first, device)
    index = torch.arange(BLOCK // 2, dtype=torch.int32, device=device)[None, :]
    x = index * signed(0x9E3779B9) + k0
    x = (x ^ shifted(x, 17)) * signed(0xED5AD4BB)
    x = ((x ^ shifted(x, 11)) + k1) * signed(0xAC4C1B51)
    low = (x ^ shifted(x, 15)) * signed(0x31848BAB)
    high = (x ^ shifted(x, 13)) * signed(0x7FEB352D)
    words = torch.cat([low ^ shifted(low, 14), high ^ shifted(high, 16)], dim=1)
    return words.reshape(-1)[: stop - start]


def float_bits(x: Tensor) -> Tensor:
    """Return the bits of floats as integers of the same width."""
    import torch

    return x.view(torch.int32 if x.dtype == torch.float32 else torch.int64)


def magnitude_bits(x: Tensor) -> Tensor:
    """Return the bits of ``|x|``."""
    bits = float_bits(x)
    return bits & ((1 << (8 * bits.element_size() - 1)) - 1)


def unsigned(words: Tensor) -> Tensor:
    """Return int32 words as int64 numbers from 0 to ``2**32 - 1``."""
    import torch

    return words.to(torch.int64) & _MASK


def packed(count: int, width: int, device: Any, codes: Callable[[int, int], Tensor]) -> U8:
    """Pack `count` codes of `width` bits and bring the bytes to the host.

    Parameters
    ----------
    count, width : int
    device : torch.device
    codes : function
        Returns the int32 codes from one coordinate to before another.
    """
    import torch

    result = torch.empty(packed_bytes(count, width), dtype=torch.uint8, device=device)
    for start, stop in pieces(count):
        first, last = packed_bytes(start, width), packed_bytes(stop, width)
        result[first:last] = _pack(codes(start, stop), width)
    return to_host(result)


def _pack(codes: Tensor, width: int) -> Tensor:
    import torch

    whole = codes.numel() // BLOCK * BLOCK
    rows = codes[:whole].reshape(-1, LANES, LANES)
    words = rows.new_zeros((rows.shape[0], width, LANES))
    for row in range(LANES):
        word, shift = divmod(row * width, 32)
        words[:, word].bitwise_or_(rows[:, row] << shift)
        if shift + width > 32:
            words[:, word + 1].bitwise_or_(rows[:, row] >> (32 - shift))
    return torch.cat([words.reshape(-1).view(torch.uint8), _pack_stream(codes[whole:], width)])


def _pack_stream(codes: Tensor, width: int) -> Tensor:
    """Pack codes one after the other, lowest bit first, padded with zeros to a byte."""
    import torch

    places = torch.arange(max(width, 8), dtype=torch.int32, device=codes.device)
    bits = ((codes[:, None] >> places[:width]) & 1).reshape(-1)
    bits = torch.nn.functional.pad(bits, (0, -bits.numel() % 8)).reshape(-1, 8)
    return (bits << places[:8]).sum(dim=1).to(torch.uint8)


def spread(values: Tensor, offsets: Offsets, start: int, stop: int) -> Tensor:
    """Return, for each coordinate from `start` to `stop`, the value of its block."""
    import torch

    first = int(np.searchsorted(offsets, start, side="right")) - 1
    last = int(np.searchsorted(offsets, stop, side="left"))
    if last - first == 1:
        return values[first].expand(stop - start)
    sizes = np.diff(np.clip(offsets[first : last + 1], start, stop))
    counts = to_device(sizes, values.device)
    return torch.repeat_interleave(values[first:last], counts, output_size=stop - start)
