"""A first run, whose kernels are not compiled yet, against a later one.

    python -m benchmarks.cold_start                    # five of each, alternated
    python -m benchmarks.cold_start --against HEAD~1   # beside another state of the sources

Each is a process of its own, ``flowerpress run digits --rounds 2 --clients 4``: cold with an empty
cache of kernels, warm with one that has all it needs. CPU time is of the process and of all that it
started. Exits with 1 if the median cold run takes more than 1.5 times the wall time of the warm.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.trees import ROOT, tree

WORDS = ["run", "digits", "--rounds", "2", "--clients", "4", "--out", "runs"]
BAR = 1.5  # times the warm run's wall time


def run(sources: Path, folder: Path, cache: Path, kernels: str = "") -> tuple[float, float]:
    """Return the seconds of a run, by the clock and of the processor."""
    env = {**os.environ, "PYTHONPATH": str(sources), "NUMBA_CACHE_DIR": str(cache)}
    env |= {"FLOWERPRESS_KERNELS": kernels, "FLWR_TELEMETRY_ENABLED": "0"}
    command = [sys.executable, "-P", "-m", "flowerpress", *WORDS]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return seconds, used.ru_utime + used.ru_stime


def measure(sources: dict[str, Path], times: int) -> dict[str, float]:
    """Print what runs of each state of the sources took; return the ratios of wall times."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, path in sources.items():
            run(path, folder, folder / f"warm-{name}", "numba")
        for number in range(times):
            for name, path in sources.items():
                for kind in ("cold", "warm"):
                    cache = folder / f"{kind}-{name}"
                    cache = cache if kind == "warm" else cache.with_name(f"{cache.name}-{number}")
                    found.setdefault((name, kind), []).append(run(path, folder, cache))
    ratios = {}
    print(f"{'sources':12} {'what':4}  {'cold, s':>8} {'warm, s':>8} {'ratio':>6}")
    for name in sources:
        for what, place in (("wall", 0), ("CPU", 1)):
            cold, warm = (
                statistics.median(each[place] for each in found[name, kind])
                for kind in ("cold", "warm")
            )
            print(f"{name:12} {what:4}  {cold:8.2f} {warm:8.2f} {cold / warm:6.2f}")
            ratios.setdefault(name, cold / warm)  # the wall time's, which comes first
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", metavar="REF", help="another state of the sources")
    parser.add_argument("--times", type=int, default=5, help="runs of each kind")
    options = parser.parse_args()
    with ExitStack() as stack:
        sources = {"these": ROOT}
        if options.against:
            sources[options.against] = stack.enter_context(tree(options.against))
        ratio = measure(sources, options.times)["these"]
    print(f"cold against warm: {ratio:.2f}, bar {BAR}")
    return int(ratio > BAR)


if __name__ == "__main__":
    sys.exit(main())
