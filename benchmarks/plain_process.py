"""Encoding in a plain process, against one that keeps the memory it once had.

    python -m benchmarks.plain_process                    # some minutes
    python -m benchmarks.plain_process --against HEAD~1   # beside another state of the sources

A plain process gives freed memory back to the system, which clears each page when it is asked for
it again. Each figure is of a process of its own; processes alternate. A process encodes by all
compressors in turn, each time after a copy of the vector. Printed are medians of processes: times
the speed of a copy, and faults of pages for each packet. Exits with 1 where a plain process encodes
at less than 0.8 times the speed of one that keeps its memory.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

DIM = 10_000_000
SPECS = ("sign", "natural", "uniform:8", "qsgd:7", "cq", "topk:0.01", "fp16")
BAR = 0.8
ROUNDS = 7


def keep_freed_memory() -> None:
    """Ask glibc to give nothing back."""
    trim_threshold, mmap_threshold = -1, -3
    library = ctypes.CDLL(None)
    library.mallopt(trim_threshold, 1 << 30)
    library.mallopt(mmap_threshold, 1 << 30)


def encode() -> dict[str, tuple[float, float]]:
    """Return, by compressor, the copy's time over encoding's, and page faults a packet."""
    import resource

    from flowerpress.compressors import make_compressor

    x = np.random.default_rng(0).standard_normal(DIM, dtype=np.float32)
    copy = np.ones_like(x)
    compressors = {spec: make_compressor(spec).bind((DIM,)) for spec in SPECS}
    found: dict[str, list[tuple[float, float]]] = {spec: [] for spec in SPECS}
    for number in range(ROUNDS + 1):
        for spec, compressor in compressors.items():
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            start = time.process_time()
            np.copyto(copy, x)
            middle = time.process_time()
            compressor.compress(x)
            ratio = (middle - start) / (time.process_time() - middle)
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
            if number:  # the first one warms up
                found[spec].append((ratio, faults))
    return {
        spec: (
            statistics.median(ratio for ratio, _ in each),
            statistics.mean(faults for _, faults in each),
        )
        for spec, each in found.items()
    }


def process(sources: Path, kind: str) -> dict[str, tuple[float, float]]:
    """Return what `encode` does in a process of its own."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    env |= {"PYTHONPATH": str(sources), "FLOWERPRESS_KERNELS": "numba"}
    command = [sys.executable, "-P", __file__, "--one", kind]
    said = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {spec: tuple(each) for spec, each in json.loads(said).items()}  # type: ignore[misc]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", metavar="REF", help="another state of the sources")
    parser.add_argument("--times", type=int, default=5, help="processes of each kind")
    parser.add_argument("--one", choices=["plain", "kept"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        if options.one == "kept":
            keep_freed_memory()
        print(json.dumps(encode()))
        return 0
    from benchmarks.trees import ROOT, tree

    with ExitStack() as stack:
        columns = {"plain": (ROOT, "plain"), "kept": (ROOT, "kept")}
        if options.against:
            other = stack.enter_context(tree(options.against))
            columns[f"plain, {options.against}"] = (other, "plain")
        found = {name: [] for name in columns}
        for _ in range(options.times):
            for name, (sources, kind) in columns.items():
                found[name].append(process(sources, kind))
    print(f"{'x copy / page faults':22}", *(f"{name:>20}" for name in columns), f"{'ratio':>6}")
    missed = 0
    for spec in SPECS:
        middle = {
            name: tuple(statistics.median(each[spec][i] for each in runs) for i in (0, 1))
            for name, runs in found.items()
        }
        ratio = middle["plain"][0] / middle["kept"][0]
        missed += ratio < BAR
        shown = (f"{speed:.2f} / {faults:.0f}" for speed, faults in middle.values())
        print(f"{spec:22}", *(f"{each:>20}" for each in shown), f"{ratio:6.2f}")
    print(f"a plain process against one that keeps its memory: bar {BAR}, missed by {missed}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
