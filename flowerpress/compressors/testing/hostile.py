"""Damaged packets, made on purpose: the hostile half of the conformance kit."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Iterator

import numpy as np

from flowerpress.compressors.base import Compressor
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.wire.apply import add_to
from flowerpress.compressors.wire.packet import DTYPES, HEADER_BYTES, PacketError

_CRC_AT = HEADER_BYTES - 4


def resealed(data: bytes) -> bytes:
    """Return a frame with its length and CRC-32 made right, as an attacker would.

    >>> from flowerpress.compressors import make_compressor
    >>> packet = make_compressor("sign").compress(np.array([1.0]))
    >>> resealed(packet.data) == packet.data
    True
    """
    head = data[:8] + struct.pack("<Q", len(data) - HEADER_BYTES) + data[16:_CRC_AT]
    payload = data[HEADER_BYTES:]
    return head + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))) + payload


def damaged(data: bytes, seed: int = 0, count: int = 200) -> Iterator[bytes]:
    """Yield truncated, extended, bit-flipped and overwritten variants of a frame."""
    rng = np.random.default_rng(seed)
    for cut in {*range(min(len(data), 64)), len(data) // 2, len(data) - 1}:
        yield data[:cut]
    yield data + b"\0"
    for _ in range(count):
        copy = bytearray(data)
        at = int(rng.integers(len(copy)))
        kind = int(rng.integers(3))
        if kind == 0:
            copy[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            copy[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\x80\x7f"])
        else:
            copy[at:] = rng.integers(0, 256, len(copy) - at, dtype=np.uint8).tobytes()
        yield bytes(copy)


def check_hostile(compressor: Compressor, *, count: int = 200) -> None:
    """Check that damaged packets are refused with `PacketError`, or are packets of other values.

    Those with a wrong CRC-32 are always refused. Those whose CRC-32 was made right must never raise
    anything else, leave a non-finite number, touch the accumulator before refusing, or take much
    more memory than the vector and the packet.
    """
    for dim in (1, 40, 1100):
        for dtype in DTYPES.values():
            x = np.random.default_rng(dim).standard_normal(dim).astype(dtype)
            data = compressor.bind((dim,)).compress(x, Draw(seed=1)).data
            for bad in damaged(data, seed=dim, count=count):
                if bad != data and not refused(bad, dim):
                    raise AssertionError(f"d={dim}: a damaged frame was accepted: {bad.hex()}")
                if len(bad) >= HEADER_BYTES:
                    refused(resealed(bad), dim)


def refused(data: bytes, dim: int) -> bool:
    """Return whether `add_to` refuses `data`; AssertionError if it misbehaves in any way."""
    limit = 1_000_000 + 64 * (dim + len(data))
    verdict, peak = _judged(data, dim)
    if peak > limit:  # perhaps a kernel's first call, which compiles it
        verdict, peak = _judged(data, dim)
    if peak > limit:
        raise AssertionError(f"{peak} bytes were taken for {data.hex()}")
    return verdict


def _judged(data: bytes, dim: int) -> tuple[bool, int]:
    """Return whether `data` is refused, and the most memory that was taken at a time."""
    out = np.ones(dim, dtype=np.float32)
    tracemalloc.start()
    try:
        add_to(data, out)
        verdict = False
    except PacketError:
        verdict = True
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    if verdict and not (out == 1).all():
        raise AssertionError(f"refused, but out was changed: {data.hex()}")
    if np.isnan(out).any():
        raise AssertionError(f"accepted, but out is not a number: {data.hex()}")
    return verdict, peak
