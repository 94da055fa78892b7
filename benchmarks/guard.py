"""What measuring every update costs the server, and how much memory many answers take it.

    python benchmarks/guard.py

Processor's time to take one update of a million float32 coordinates, read from its message to added
up, with `max_scale` (see `flowerpress.server.guard`) and without; the first round, which looks at
its answers twice, is apart. Then the most memory that the server took at a time for a round's
answers, beside the messages themselves, for few clients and many.
"""

from __future__ import annotations

import argparse
import logging
import platform
import statistics
import time
import tracemalloc
from typing import Any
from unittest.mock import patch

import numpy as np

from flowerpress.clients import FunctionTask, Task, client_app
from flowerpress.server.run import Run
from flowerpress.simulations import InProcessGrid
from flowerpress.strategies import make_strategy

COMPRESSORS = ("topk:0.01", "sign", "qsgd:7", "qsgd:7+rans", "identity")
CLIENTS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    print(f"{platform.machine()}, Python {platform.python_version()}, d = {given.dim}, float32\n")
    print("| compressor  | without, ms | with, ms | more | first round, ms |")
    print("|-------------|------------:|---------:|-----:|----------------:|")
    for spec in COMPRESSORS:
        runs = [times(spec, given.dim, given.rounds, scale) for scale in (0.0, 1000.0) * 2]
        bare = statistics.median(runs[0][1:] + runs[2][1:])
        guarded = statistics.median(runs[1][1:] + runs[3][1:])
        first = min(runs[1][0], runs[3][0])
        more = f"{guarded / bare - 1:4.0%}"
        print(f"| {spec:<11} | {bare:11.3f} | {guarded:8.3f} | {more} | {first:15.3f} |")
    print("\n| answers of identity | memory, MB |")
    print("|--------------------:|-----------:|")
    for clients in (2, 16):
        print(f"| {clients:19} | {memory(given.dim, clients):10.1f} |")


def play(spec: str, dim: int, rounds: int, scale: float, clients: int, collect: Any) -> None:
    """Run a strategy whose server takes the answers of a round by way of `collect`."""
    x0 = np.zeros(dim, np.float32)
    gradients = np.random.default_rng(0).standard_normal((clients, dim), np.float32)

    def task_fn(i: int, n: int) -> Task:
        del n
        return FunctionTask(x0, lambda *_: (0.0, gradients[i]))

    strategy = make_strategy("dsgd", compressor=spec, lr=1e-6, max_scale=scale)
    strategy.min_available_nodes = clients
    own = Run.take
    with (
        patch.object(Run, "take", lambda *given: collect(own, *given)),
        InProcessGrid(lambda: client_app(task_fn), clients) as grid,
    ):
        strategy.start(grid, task_fn(0, clients).initial_arrays(), num_rounds=rounds)
    if strategy.run.exchange.refused:
        raise RuntimeError("an update was refused")


def times(spec: str, dim: int, rounds: int, scale: float) -> list[float]:
    """Return the milliseconds per update of each round."""
    found = []

    def collect(own: Any, *given: Any) -> Any:
        start = time.thread_time()
        taken = own(*given)
        found.append(1e3 * (time.thread_time() - start) / CLIENTS)
        return taken

    play(spec, dim, rounds, scale, CLIENTS, collect)
    return found


def memory(dim: int, clients: int) -> float:
    """Return the most megabytes that were taken for one round's answers."""
    peaks = []

    def collect(own: Any, *given: Any) -> Any:
        tracemalloc.start()
        taken = own(*given)
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
        return taken

    play("identity", dim, 2, 1000.0, clients, collect)
    return max(peaks)


if __name__ == "__main__":
    main()
