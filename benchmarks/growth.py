"""How a run in one process grows with its clients, its model and its rounds.

    python -m benchmarks.growth                    # in some minutes
    python -m benchmarks.growth --whole            # 1,000 clients x 10^6 numbers x 20 rounds
    python -m benchmarks.growth --against HEAD~1   # ratios to another commit, each in turn

Each run has a process of its own.

EF21-SGDM with top-0.1 %, whose first messages are whole. *CPU* is of the process, after its first
round (`--whole`: of all); *peak* is the largest memory of the process, the first round included;
*received* are the packets that the server took. Bars are met or missed on the right; exits with 1
where one is missed. A busy machine takes more CPU for the same work: `--against` gives ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMPRESSOR = "topk:0.001"
QUICK = (
    *((10, 1_000, 100), (100, 1_000, 20), (1_000, 1_000, 5)),
    *((10, 100_000, 10), (100, 100_000, 5), (1_000, 100_000, 3)),
    *((10, 1_000_000, 5), (10, 1_000_000, 20)),
)
ON_DISK = (1_000, 1_000, 5)
WHOLE = (1_000, 1_000_000, 20)
SMALL_BAR = 4.5  # ms of CPU a round: 10 clients x 1,000 numbers
PEAK_BARS = {(1_000, 100_000): 2**30, (1_000, 1_000_000): 10 * 2**30}  # bytes
DISK_BAR = 2.0  # times the CPU of the same run in memory
LINEAR_BAR = 1.3  # times the CPU a client and round, at 1,000 clients against 10


def one(clients: int, dim: int, rounds: int, disk: bool) -> dict[str, Any]:
    """Make one run in this process; returns its figures."""
    import numpy as np

    from flowerpress.clients import FunctionTask
    from flowerpress.simulations import simulate
    from flowerpress.strategies import make_strategy

    to = np.random.default_rng(0).standard_normal(dim).astype(np.float32)

    def task_fn(client: int, _: int) -> FunctionTask:
        shift = np.float32(client + 1)
        return FunctionTask(to, lambda x, _: (0.0, x - shift))

    ended: list[tuple[float, float]] = []
    strategy = make_strategy("ef21-sgdm", compressor=COMPRESSOR, lr=0.1)
    begun = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = simulate(
            strategy,
            task_fn,
            clients,
            rounds,
            state_dir=folder if disk else None,
            on_round=lambda _: ended.append((time.process_time(), time.perf_counter())),
        )
    first, last = ended[1], ended[-1]  # of rounds; before them is the initial model's record
    each = sorted(b[0] - a[0] for a, b in pairwise(ended[1:]))
    return {
        "first": first[1] - begun[1],
        "cpu": (last[0] - first[0]) / (rounds - 1),
        "median": each[len(each) // 2],
        "seconds": (last[1] - first[1]) / (rounds - 1),
        "received": result.ledger.up_payload,
        "peak": peak(),
    }


def peak() -> int:
    """Return the most memory that this process had at once, in bytes."""
    try:
        status = Path("/proc/self/status").read_text("utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):  # no Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measured(size: tuple[int, int, int], disk: bool = False, tree: Path = ROOT) -> dict[str, Any]:
    """Make one run in a process of its own, of the code in `tree`."""
    numbers = [str(number) for number in (*size, int(disk))]
    command = [sys.executable, str(Path(__file__).resolve()), "--one", *numbers]
    env = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, env=env, cwd=tree, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def checked_out(ref: str) -> Iterator[Path]:
    """Give another commit's tree, for as long as this lasts."""
    with tempfile.TemporaryDirectory() as name:
        tree, git = Path(name) / "tree", ["git", "worktree"]
        subprocess.run(
            ["git", "worktree", "add", "-q", "--detach", tree, ref], cwd=ROOT, check=True
        )
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", tree], cwd=ROOT, check=True)


class Table:
    """Prints rows, and knows whether a bar was missed."""

    def __init__(self) -> None:
        self.missed = False
        print("| clients | numbers | rounds | store | first s | s/round | CPU ms/round |", end="")
        print(" us/client | peak MB | received MB | |")
        print("|" + "---:|" * 3 + "---|" + "---:|" * 6 + "---|")

    def row(self, size: tuple[int, int, int], found: dict[str, Any], store: str, bar: str) -> None:
        clients, dim, rounds = size
        print(
            f"| {clients:,} | {dim:,} | {rounds} | {store} | {found['first']:.2f} "
            f"| {found['seconds']:.4f} | {found['cpu'] * 1e3:.1f} "
            f"| {found['cpu'] / clients * 1e6:.0f} | {found['peak'] / 1e6:.0f} "
            f"| {found['received'] / 1e6:.2f} | {bar} |",
            flush=True,
        )

    def judge(self, what: str, value: float, bar: float) -> str:
        """Say whether a bar is met."""
        self.missed |= value > bar
        return f"{what} {value:.3g}, bar {bar:.3g}: {'met' if value <= bar else 'MISSED'}"


def grow(sizes: tuple[tuple[int, int, int], ...]) -> bool:
    """Print the table; returns whether a bar was missed."""
    table, each = Table(), {}
    for size in sizes:
        found, bar, of = measured(size), "", size[:2]
        if of == (10, 1_000):
            bar = table.judge("CPU ms", found["median"] * 1e3, SMALL_BAR)
        if of in PEAK_BARS:
            bar = table.judge("peak GB", found["peak"] / 1e9, PEAK_BARS[of] / 1e9)
        each[of] = found["cpu"] / size[0]
        table.row(size, found, "live", bar)
        if size == ON_DISK:
            on_disk = measured(size, disk=True)
            bar = table.judge("times live", on_disk["cpu"] / found["cpu"], DISK_BAR)
            table.row(size, on_disk, "disk", bar)
    for dim in (1_000, 100_000):
        if (10, dim) in each and (1_000, dim) in each:
            ratio = each[1_000, dim] / each[10, dim]
            print(f"1,000 clients of {dim:,}: {table.judge('times 10', ratio, LINEAR_BAR)}")
    return table.missed


def against(ref: str, times: int = 3) -> None:
    """Print the quick runs' ratios to those of another commit, made in turn."""
    print("| clients | numbers | CPU ms/round | before | ratio | peak MB | before |")
    print("|" + "---:|" * 7)
    with checked_out(ref) as tree:
        for size in QUICK[:6]:
            pairs = [(measured(size), measured(size, tree=tree)) for _ in range(times)]
            now, before = (
                min(each, key=lambda f: f["median"]) for each in zip(*pairs, strict=True)
            )
            print(
                f"| {size[0]:,} | {size[1]:,} | {now['median'] * 1e3:.2f} "
                f"| {before['median'] * 1e3:.2f} | {before['median'] / now['median']:.2f} "
                f"| {now['peak'] / 1e6:.0f} | {before['peak'] / 1e6:.0f} |",
                flush=True,
            )


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whole", action="store_true", help="1,000 x 10^6 x 20 alone")
    parser.add_argument("--against", metavar="REF", help="a commit to compare with")
    parser.add_argument("--one", nargs=4, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        clients, dim, rounds, disk = options.one
        print(json.dumps(one(clients, dim, rounds, bool(disk))))
        return 0
    if options.against:
        against(options.against)
        return 0
    return int(grow((WHOLE,) if options.whole else QUICK))


if __name__ == "__main__":
    sys.exit(main())
