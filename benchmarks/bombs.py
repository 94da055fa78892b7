"""Search for packets that cost a receiver much: ``python -m benchmarks.fuzz --bombs``.

A packet is grown as a tree: leaves are packets of any compressor, with the parameters and vectors
that cost most; around them come entropy codes, sums, chains and scalings, as deep as one likes, and
perhaps damage where it is found last. Trees are changed at random, and what costs more is kept.

What counts is the time and the memory of whichever public way to read a packet takes most, against
an honest packet of the same length: the slower of `identity` and of the outermost codec's own usual
packet. Time is the process's, so that other work on the machine does not count; what is above the
limit is measured again, right beside the honest packet.
"""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import numpy as np

from flowerpress.compressors import (
    Draw,
    Packet,
    PacketError,
    add_to,
    decompress,
    make_compressor,
    norm,
)
from flowerpress.compressors.composed.entropy import _HEAD as STAGE_HEAD
from flowerpress.compressors.composed.entropy import Entropy, Rans
from flowerpress.compressors.composed.huffman import Huffman
from flowerpress.compressors.kernels.packing import unpack
from flowerpress.compressors.linear.countsketch import CountSketch, merge
from flowerpress.compressors.testing.hostile import resealed

T = TypeVar("T")
MOST_BYTES = 1 << 20
MOST_TIME, MOST_MEMORY = 20.0, 4.0  # times an honest packet's; vectors
DIMS = (1, 9, 1000, 8193, 100_000, 250_000, 530_000, 1_000_000)  # one just above a power of two
VECTORS = ("zeros", "ones", "gaussian", "one")
# With parameters at the ends of their ranges, which a sender may choose whatever the run does.
LEAVES = (
    "identity", "topk:k=1", "topk:0.5", "topk:1.0", "randk:0.5", "randk:1.0",
    "randk:1.0,law=stratified", "sign", "sign:block=1", "sign:block=tensor", "qsgd:1,bucket=1",
    "qsgd:32767", "qsgd:127,bucket=1", "fp16", "bf16", "uniform:1,bucket=1", "uniform:8,bucket=7",
    "natural", "permk", "cq", "cq:3,c=1", "cq:256,range=l2", "cq:2,range=0.1",
    "terngrad", "loggrid:63", "randsign:9", "signtopk:1.0", "signtopk:0.01", "threshold:1e-300",
    "hadamard", "drive", "eden:1", "eden:6",
    "countsketch:1,columns=1", "countsketch:15,columns=1", "countsketch:15,columns=2",
    "countsketch:15,columns=3", "countsketch:15,columns=63", "countsketch:15,ratio=0.01",
    "countsketch:5,ratio=1.0", "powersgd:1,rows=2", "powersgd:16,rows=99", "powersgd:256,rows=500",
    "powersgd:256,rows=1000", "powersgd:1", "powersgd:2",
)  # fmt: skip
FRONTS = ("topk:k=1", "topk:0.5", "topk:1.0", "randk:1.0", "permk", "hadamard")
# What each codec's packets usually are.
USUAL = {
    "+": "topk:0.01+qsgd:7", "induced": "induced(topk:0.01; randk:0.01)", "rans": "qsgd:7+rans",
    "scaled": "scaled(randk:0.01)", "huffman": "qsgd:127+huffman", "topk": "topk:0.01",
    "randk": "randk:0.01", "threshold": "threshold:2", "signtopk": "signtopk:0.01",
    "countsketch": "countsketch:ratio=0.01", "powersgd": "powersgd:2,rows=100",
    "randsign": "randsign:9",
}  # fmt: skip
DRAW = Draw(seed=1)


@dataclass(frozen=True)
class Tree:
    """A packet to be: ``kind`` is a leaf's spec, a front's spec and ``+``, or a wrapper's name."""

    kind: str
    vector: str = "zeros"
    inside: tuple[Tree, ...] = ()
    damaged: bool = False

    def __str__(self) -> str:
        mark = "!" if self.damaged else ""
        if not self.inside:
            return f"{self.kind}/{self.vector}{mark}"
        return f"{self.kind}({'; '.join(map(str, self.inside))}){mark}"


@cache
def vector(name: str, dim: int, dtype: type) -> np.ndarray:
    if name == "gaussian":
        return np.random.default_rng(0).standard_normal(dim).astype(dtype)
    x = np.full(dim, name == "ones", dtype=dtype)
    x[dim // 2] = name != "zeros"
    return x


def shapes(kind: str, dim: int) -> list[tuple[int, ...]]:
    """Return tensors that make up `dim`, many and small ones."""
    if kind == "sign:block=tensor":
        return [(1,)] * dim
    side = 2 if kind == "powersgd:1" else 5
    count = min(dim // (side * (side + 1)), 60_000)
    rest = dim - count * side * (side + 1)
    return [(side, side + 1)] * count + [(rest,)] * (rest > 0)


@cache
def leaf(kind: str, name: str, dim: int, dtype: type) -> Packet:
    compressor = make_compressor(kind)
    if kind in ("sign:block=tensor", "powersgd:1", "powersgd:2"):
        compressor = compressor.bind_shapes(shapes(kind, dim))
    return compressor.compress(vector(name, dim, dtype), DRAW)


def grown(tree: Tree, dim: int, dtype: type) -> Packet:
    """Return the packet of a tree; ValueError if it cannot be."""
    packet = _grown(tree, dim, dtype)
    if packet.nbytes > MOST_BYTES:
        raise ValueError("too long")
    if tree.damaged:
        data = bytearray(packet.data)
        data[-1] ^= 0x55
        packet = Packet(resealed(bytes(data)))
    return packet


def _grown(tree: Tree, dim: int, dtype: type) -> Packet:
    if not tree.inside:
        return leaf(tree.kind, tree.vector, dim, dtype)
    if tree.kind.endswith("+"):
        front = make_compressor(tree.kind[:-1])
        header, values = front.split(vector(tree.vector, dim, dtype), DRAW)
        inner = grown(tree.inside[0], values.size, dtype)
        size = sum(len(memoryview(part).cast("B")) for part in header)
        parts = [struct.pack("<B3sI", front.codec, bytes(3), size), *header, inner.data]
        return Packet.build(25, np.dtype(dtype), dim, parts)
    packets = [grown(each, dim, dtype) for each in tree.inside]
    if tree.kind == "induced":
        parts = [struct.pack("<Q", packets[0].nbytes), *(each.data for each in packets)]
        return Packet.build(26, np.dtype(dtype), dim, parts)
    if tree.kind == "scaled":
        return Packet.build(27, np.dtype(dtype), dim, [struct.pack("<d", 0.5), packets[0].data])
    return staged({"rans": Rans, "huffman": Huffman}[tree.kind], packets[0])


def staged(stage: type[Entropy], packet: Packet) -> Packet:
    """Return `packet` with all bytes of its payload as symbols, however many these are."""
    payload = np.frombuffer(packet.payload, dtype=np.uint8)
    symbols = unpack(payload, payload.size, 8)
    counts = np.bincount(symbols).astype(np.uint32)
    first = int(np.flatnonzero(counts)[0])
    code = stage.write(symbols - np.uint32(first), counts[first:])
    entries = counts.size - first
    head = STAGE_HEAD.pack(packet.header.codec, 8, first, payload.size, entries, 0, 0)
    return Packet.build(stage.codec, packet.dtype, packet.dim, [head, *code])


def readers(packet: Packet) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the public ways to read a packet; the accumulator is the caller's."""
    data, out = packet.data, np.zeros(packet.dim, packet.dtype)
    yield "add_to", lambda: add_to(data, out, 0.5)
    yield "decompress", lambda: decompress(data)
    yield "norm", lambda: norm(data)
    yield "compressor", lambda: Packet(data).compressor
    if packet.header.codec == CountSketch.codec:
        yield "merge", lambda: merge([packet, packet])


def cost(read: Callable[[], object], tries: int) -> tuple[float, float, bool]:
    """Return the least seconds of reading, the most bytes at a time, and whether it is refused."""
    least, refused = np.inf, False
    for _ in range(tries):
        start = time.process_time()
        try:
            read()
        except PacketError:
            refused = True
        least = min(least, time.process_time() - start)
    tracemalloc.start()
    try:
        read()
    except PacketError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return least, float(peak), refused


@cache
def honest(name: str, dim: int, dtype: type) -> float:
    """Return the seconds of reading the slower of the usual packet and of `identity`."""
    x = vector("gaussian", dim, dtype)
    found = []
    for spec in {"identity", USUAL.get(name, name)}:
        data = make_compressor(spec).compress(x, DRAW).data
        out = np.zeros_like(x)
        add_to(data, out, 0.5)  # a kernel's first call compiles it
        found.append(cost(lambda data=data, out=out: add_to(data, out, 0.5), 7)[0])
    return max(found)


@dataclass
class Worst:
    """The most that was found of packets whose outermost codec is this."""

    seen: int = 0
    refused: int = 0
    time: tuple[float, str] = (0.0, "")
    memory: tuple[float, str] = (0.0, "")
    kept: list[tuple[float, Tree, int, type]] = field(default_factory=list)


class Search:
    """Grows trees, and keeps of each outermost codec those that cost most."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.worst: dict[str, Worst] = {}

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.rng.integers(len(choices)))]

    def new(self, depth: int) -> Tree:
        """Return a random tree of at most so many levels."""
        kinds = ["leaf", "rans", "huffman", "scaled", "induced", "chain"]
        kind = self.pick(kinds) if depth > 1 else "leaf"
        name, damaged = self.pick(VECTORS), self.rng.random() < 0.05
        if kind == "leaf":
            return Tree(self.pick(LEAVES), name, damaged=damaged)
        inside = tuple(self.new(depth - 1) for _ in range(1 + (kind == "induced")))
        if kind == "chain":
            return Tree(self.pick(FRONTS) + "+", name, inside, damaged)
        return Tree(kind, name, inside, damaged)

    def doubled(self, tree: Tree, times: int) -> Tree:
        """Return a sum of sums of a tree."""
        for _ in range(times):
            tree = Tree("induced", inside=(tree, tree))
        return tree

    def changed(self, tree: Tree) -> Tree:
        """Return a tree with one change somewhere."""
        if tree.inside and self.rng.random() < 0.6:
            at = int(self.rng.integers(len(tree.inside)))
            inside = list(tree.inside)
            inside[at] = self.changed(inside[at])
            return Tree(tree.kind, tree.vector, tuple(inside), tree.damaged)
        choice = int(self.rng.integers(6))
        if choice == 0:
            return Tree("induced", inside=(tree, self.pick([tree, self.new(1)])))
        if choice == 1:
            return Tree(self.pick(["rans", "huffman", "scaled"]), inside=(tree,))
        if choice == 2:
            return Tree(self.pick(FRONTS) + "+", self.pick(VECTORS), (tree,))
        if choice == 3 and tree.inside:
            return self.pick(tree.inside)
        if choice == 4:
            return Tree(tree.kind, self.pick(VECTORS), tree.inside, self.rng.random() < 0.1)
        return self.new(3)

    def next(self) -> tuple[Tree, int, type]:
        """Return what to try now."""
        kept = [each for worst in self.worst.values() for each in worst.kept]
        if not kept or self.rng.random() < 0.25:
            tree = self.new(int(self.rng.integers(1, 5)))
            if self.rng.random() < 0.2:
                tree = self.doubled(tree, int(self.rng.integers(1, 8)))
            return tree, self.pick(DIMS), self.pick((np.float32, np.float64))
        _, tree, dim, dtype = self.pick(kept)
        dim = self.pick(DIMS) if self.rng.random() < 0.2 else dim
        return self.changed(tree), dim, dtype

    def tried(self, tree: Tree, dim: int, dtype: type) -> None:
        """Read a tree's packet in every way, and remember it if it is among the worst."""
        try:
            packet = grown(tree, dim, dtype)
        except (ValueError, OverflowError, RecursionError):
            return
        name = next(each for each in NAMES if CODECS[each] == packet.header.codec)
        worst = self.worst.setdefault(name, Worst())
        worst.seen += 1
        best, usual = 0.0, honest(name, dim, dtype)
        for way, read in readers(packet):
            seconds, peak, refused = cost(read, 1)
            # A first call may have compiled a kernel, or met a busy machine.
            if seconds > usual * MOST_TIME / 2 or peak > MOST_MEMORY / 2 * dim * 4:
                seconds, peak, refused = cost(read, 3)
            worst.refused += refused and way == "add_to"
            spare = 2 * packet.nbytes + SPARE_BYTES
            ratio = seconds / (usual + SPARE_SECONDS)
            if ratio > MOST_TIME:  # other work on the machine slows memory and caches down
                again = honest.__wrapped__(name, dim, dtype) + SPARE_SECONDS
                ratio = min(ratio, cost(read, 7)[0] / again)
            vectors = max(0.0, peak - spare) / (dim * packet.dtype.itemsize)
            what = f"{way} of {tree}, {dim} x {packet.dtype}, {packet.nbytes} bytes"
            worst.time = max(worst.time, (ratio, what))
            worst.memory = max(worst.memory, (vectors, what))
            best = max(best, ratio / MOST_TIME, vectors / MOST_MEMORY)
        worst.kept = sorted([*worst.kept, (best, tree, dim, dtype)], key=lambda each: -each[0])[:6]

    def run(self, seconds: float) -> None:
        """Try every leaf once, then change what cost most until time is up."""
        stop = time.monotonic() + seconds
        for kind in LEAVES:
            for name in ("zeros", "gaussian"):
                self.tried(Tree(kind, name), 250_000, np.float32)
        while time.monotonic() < stop:
            self.tried(*self.next())


# Overheads of any packet, however short: calls, tables, pieces that stay in the cache.
SPARE_SECONDS, SPARE_BYTES = 100e-6, 2 << 20
NAMES = sorted({*USUAL, *(kind.partition(":")[0] for kind in LEAVES)})
CODECS = {"+": 25, "induced": 26, "scaled": 27, "rans": 28, "huffman": 29} | {
    kind.partition(":")[0]: make_compressor(kind).codec for kind in LEAVES
}


def search(seconds: float, seed: int) -> dict[str, Worst]:
    """Return the worst that was found, by the name of the outermost codec."""
    found = Search(seed)
    found.run(seconds)
    return found.worst


def report(worst: dict[str, Worst]) -> bool:
    """Print the worst of each codec; return whether all is within the limits."""
    print(f"{'codec':12} {'packets':>8} {'refused':>8} {'time':>7} {'memory':>7}")
    for name, each in sorted(worst.items()):
        print(
            f"{name:12} {each.seen:8} {each.refused / each.seen:8.0%} {each.time[0]:6.1f}x "
            f"{each.memory[0]:6.1f}v   {each.time[1]}"
        )
        if each.memory[0] > MOST_MEMORY:
            print(f"{'':12} too much memory: {each.memory[1]}")
    good = all(w.time[0] <= MOST_TIME and w.memory[0] <= MOST_MEMORY for w in worst.values())
    print(
        f"{'within' if good else 'ABOVE'} {MOST_TIME:g} times an honest packet's time and "
        f"{MOST_MEMORY:g} vectors of memory"
    )
    return good
