"""Damage packets at random, for as long as asked: ``python -m benchmarks.fuzz --seconds 600``.

With ``--bombs`` it searches for packets that cost a receiver much; see `benchmarks.bombs`.

Every decoder must refuse with `PacketError` or accept; anything else, an accumulator that was
touched before a refusal, a result that is not a number, or memory beyond the vector, the packet
and 16 MB ends the run with the packet that did it.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from flowerpress.compressors import Draw, Packet, PacketError, add_to, make_compressor
from flowerpress.compressors.testing.hostile import resealed
from flowerpress.compressors.wire.packet import HEADER_BYTES

SPARE = 16 << 20  # bytes a decoder may take beyond vector and packet
MAGIC = b"FPRS"
ZERO, ONE, MOST, TOP = b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80"
INFINITY, NAN = b"\0\0\x80\x7f", b"\0\0\xc0\x7f"
WORDS = (ZERO, ONE, MOST, TOP, INFINITY, NAN)


def seeds(specs: tuple[str, ...]) -> dict[str, list[bytes]]:
    """Return right packets of each compressor: short and long, in both dtypes."""
    found: dict[str, list[bytes]] = {}
    for spec in specs:
        found[spec] = []
        for dim in (1, 7, 40, 1100, 9000):
            compressor = make_compressor(spec).bind((dim,))
            for dtype in (np.float32, np.float64):
                x = np.random.default_rng(dim).standard_normal(dim).astype(dtype)
                found[spec].append(compressor.compress(x, Draw(seed=dim)).data)
    return found


def sealed(data: bytes) -> bytes:
    """Return a frame with the right length and CRC-32, and so the last frame inside it, ..."""
    if len(data) < HEADER_BYTES:
        return data
    at = data.find(MAGIC, HEADER_BYTES)
    if at >= 0 and len(data) - at >= HEADER_BYTES:
        data = data[:at] + sealed(data[at:])
    return resealed(data)


def outermost_sealed(data: bytes) -> bytes:
    """Return a frame with the right length and CRC-32."""
    return resealed(data) if len(data) >= HEADER_BYTES else data


def damaged(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """Return `data` with one to four flips, words, cuts, repetitions and splices."""
    copy = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if len(copy) <= HEADER_BYTES:
            break
        # Headers decide most: they are hit as often as all the rest.
        near = rng.random() < 0.5
        at = int(rng.integers(HEADER_BYTES - 8, min(len(copy), 96) if near else len(copy)))
        kind = int(rng.integers(6))
        if kind == 0:
            copy[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            copy[at : at + 4] = WORDS[int(rng.integers(len(WORDS)))]
        elif kind == 2:
            copy[at:] = b""
        elif kind == 3:
            copy[at:at] = copy[at : at + int(rng.integers(1, 64))]
        elif kind == 4:
            other = others[int(rng.integers(len(others)))]
            copy[at:] = other[min(at, len(other)) :]
        else:
            copy[at] = int(rng.integers(256))
    if rng.random() < 0.1:
        copy[5] = int(rng.integers(32))  # another codec
    return bytes(copy)


def refused(data: bytes) -> bool:
    """Return whether `data` is refused; AssertionError if a decoder does anything else."""
    try:
        packet = Packet(data)
    except PacketError:
        return True
    out = np.ones(min(packet.dim, 20_000), dtype=np.float32)
    # A few temporaries as long as the vector are a decoder's right.
    limit = SPARE + 64 * (out.size + len(data))
    verdict, peak = judged(packet, out.copy())
    if peak > limit:  # perhaps a kernel's first call, which compiles it
        verdict, peak = judged(packet, out)
    assert peak <= limit, f"{peak} bytes were taken"
    return verdict


def judged(packet: Packet, out: np.ndarray) -> tuple[bool, int]:
    """Return whether `packet` is refused, and the most memory that was taken at a time."""
    tracemalloc.start()
    try:
        with suppress(PacketError):
            if packet.dim == out.size:  # as a receiver checks before it asks
                _ = packet.compressor
        add_to(packet, out)
        verdict = False
    except PacketError:
        verdict = True
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert not verdict or (out == 1).all(), "refused, but out was changed"
    assert not np.isnan(out).any(), "accepted, but out is not a number"
    return verdict, peak


def fuzz(specs: tuple[str, ...], seconds: float, seed: int = 0) -> Iterator[tuple[str, bool]]:
    """Yield the compressor and the verdict of each damaged packet; stops after `seconds`."""
    rng = np.random.default_rng(seed)
    corpus = seeds(specs)
    everything = [data for packets in corpus.values() for data in packets]
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        for spec, packets in corpus.items():
            data = packets[int(rng.integers(len(packets)))]
            # What a packet holds may be a frame that goes on to its end, or look like one.
            seal = sealed if rng.random() < 0.5 else outermost_sealed
            bad = seal(damaged(data, everything, rng))
            try:
                yield spec, refused(bad)
            except PacketError:
                raise
            except Exception as error:
                raise AssertionError(f"{spec}: {error!r} from the packet {bad.hex()}") from error


def main() -> None:
    from tests.compressors.table import COMPRESSORS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None, help="default: from the clock")
    parser.add_argument("--bombs", action="store_true", help="search for packets that cost much")
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    if options.bombs:
        from benchmarks import bombs

        print(f"seed {seed}, {options.seconds:g} seconds")
        sys.exit(not bombs.report(bombs.search(options.seconds, seed)))
    print(f"seed {seed}, {len(COMPRESSORS)} compressors, {options.seconds:g} seconds")
    seen: Counter[str] = Counter()
    gone: Counter[str] = Counter()
    for spec, was_refused in fuzz(COMPRESSORS, options.seconds, seed):
        seen[spec] += 1
        gone[spec] += was_refused
    for spec, count in seen.items():
        print(f"{count:8} packets, {gone[spec] / count:6.1%} refused: {spec}")
    print(f"{sum(seen.values())} packets: no decoder did anything but decode or refuse")


if __name__ == "__main__":
    main()
