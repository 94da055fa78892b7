"""CPU of a small round in process: d = 1000, ten clients, EF21-SGDM with top-1 %.

    python -m benchmarks.small_round                     # milliseconds a round, and the bar
    python -m benchmarks.small_round --against 92fccfe   # an earlier commit too, in turns

A process of its own runs 300 rounds; its figure is the median of the last 200, which have compiled
kernels. Such processes follow one another, the commits in turns, and each commit's figure is the
least of its processes': other load only adds to it. Exits with 1 where the bar is missed, which
depends on the machine; the ratio does so much less.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from benchmarks.trees import ROOT, tree

BAR = 4.5  # milliseconds of CPU a round
RUNS = 5

ROUNDS = """
import statistics, time
from itertools import pairwise
import numpy as np
from flowerpress.clients import FunctionTask
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy

def task_fn(client, clients):
    to = np.random.default_rng(client).standard_normal(1000).astype(np.float32)
    return FunctionTask(np.zeros(1000, np.float32), lambda x, _: (0.0, x - to))

ended = []
strategy = make_strategy("ef21-sgdm", compressor="topk:0.01")
simulate(strategy, task_fn, 10, 300, on_round=lambda _: ended.append(time.process_time()))
print(1e3 * statistics.median(b - a for a, b in pairwise(ended[100:])))
"""


def milliseconds(place: Path) -> float:
    """Return what a round takes in a process that imports the package of `place`."""
    env = {**os.environ, "PYTHONPATH": str(place), "FLWR_TELEMETRY_ENABLED": "0"}
    command = [sys.executable, "-c", ROUNDS]
    done = subprocess.run(command, env=env, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{place}: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.splitlines()[-1])


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", metavar="REF", help="a commit that is measured too")
    parser.add_argument("--runs", type=int, default=RUNS, help="processes of each commit")
    given = parser.parse_args()
    with tree(given.against) if given.against else nullcontext() as before:
        places = {"now": ROOT} | ({given.against: before} if before else {})
        found: dict[str, list[float]] = {name: [] for name in places}
        for run in range(given.runs):
            for name, place in places.items():
                found[name].append(milliseconds(place))
            told = ", ".join(f"{name} {times[-1]:.2f}" for name, times in found.items())
            print(f"run {run + 1} of {given.runs}: {told} ms", flush=True)
    least = {name: min(times) for name, times in found.items()}
    for name, figure in least.items():
        print(f"{name:<12} {figure:.2f} ms of CPU a round")
    if given.against:
        print(f"ratio        {least['now'] / least[given.against]:.2f}")
    held = least["now"] <= BAR
    print(f"{'held' if held else 'MISSED'}: at most {BAR:g} ms")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
