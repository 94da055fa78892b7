"""What a checkpoint costs: time and bytes, by the length of the model and of the run.

python benchmarks/checkpoints.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from flowerpress.clients import FunctionTask
from flowerpress.server.rounds import Rounds
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy

CLIENTS = 4


def measure(dim: int, rounds: int, folder: Path) -> tuple[float, float, int]:
    """Return the seconds of a checkpoint, first ten and last ten, and the bytes of the last."""
    seconds, save = [], Rounds._save

    def timed(self: Rounds, server_round: int) -> None:
        start = time.perf_counter()
        save(self, server_round)
        seconds.append(time.perf_counter() - start)

    def task_fn(i: int, _: int) -> FunctionTask:
        return FunctionTask(np.zeros(dim, np.float32), lambda x, _: (0.0, x - i))

    Rounds._save = timed  # type: ignore[method-assign]
    try:
        # The clients' memory stays in this process: only the server's checkpoint is measured.
        states = folder / "unused"
        strategy = make_strategy("ef21", compressor="topk:0.01", downlink="topk:0.01", lr=0.1)
        simulate(
            strategy,
            task_fn,
            CLIENTS,
            rounds,
            checkpoint=folder,
            state_dir=states,
            node_configs={i: {"state-store": "live"} for i in range(CLIENTS)},
        )
    finally:
        Rounds._save = save  # type: ignore[method-assign]
    size = max(folder.glob("round-*")).stat().st_size
    steady = seconds[2:]  # the first rounds have no deltas yet
    return statistics.median(steady[:10]), statistics.median(steady[-10:]), size


def main() -> None:
    print(f"EF21, topk:0.01 both ways, {CLIENTS} clients; float32; files flushed to the disk")
    print(f"{'d':>9} {'rounds':>7} {'first, ms':>10} {'last, ms':>9} {'bytes':>10}")
    for dim, rounds in ((1_000, 1_000), (1_000_000, 40)):
        with tempfile.TemporaryDirectory() as name:
            first, last, size = measure(dim, rounds, Path(name))
        print(f"{dim:>9} {rounds:>7} {1e3 * first:>10.1f} {1e3 * last:>9.1f} {size:>10}")


if __name__ == "__main__":
    main()
