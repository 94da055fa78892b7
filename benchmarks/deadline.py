"""`compressor="auto:deadline=1s"` against every fixed choice, over slow and fast links.

    python benchmarks/deadline.py               links of 0.5, 10 and 100 Mbit/s: 20 minutes
    python benchmarks/deadline.py --only mixed

A server and three clients in network namespaces of their own (`tc tbf`), `flowerpress serve` and
`flowerpress join`, train a network of 814,090 numbers on MNIST by EF21-SGDM. Counted is the time
from the first training message to the first round at the target accuracy.

- Each link alone, all three clients with it: `auto` and the fixed steps that meet the deadline.
- Mixed, one client with each: `auto` and one spec for all.

Needs Linux, root, `ip` and `tc`; says so and exits with 0 where they are not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import slow_network as network
from wide_mnist import HIDDEN

from flowerpress.server.ladder import Ladder

NUMBERS = HIDDEN * 785 + 10 * (HIDDEN + 1)
TASK = Path(__file__).with_name("wide_mnist.py")
WORK = (
    'strategy="ef21-sgdm" compressor="{compressor}" downlink="topk:0.01" '
    "init=compressed lr=0.3 momentum=0.3 min-available-nodes=3 num-server-rounds={rounds}"
)
ALL = "0.5mbit", "10mbit", "100mbit"


def bytes_a_second(rate: str) -> float:
    return float(re.fullmatch(r"([0-9.]+)mbit", rate)[1]) * 1e6 / 8  # type: ignore[index]


def train(config: str, folder: Path, rates: list[str], seconds: float) -> dict[str, Any] | None:
    """Run once, on links of these rates, for so many seconds; returns what result.json has."""
    out = folder / "out"
    folder.mkdir()
    with network.hosts(["1gbit", *rates]):
        words = ["serve", TASK, "--insecure", "--bind", f"{network.NET}.1:9400", "--out", out]
        words += ["--min-clients", len(rates), "--run-config", config]
        processes = [network.start(0, folder / "serve.log", *words)]
        for i in range(len(rates)):
            words = ["join", TASK, "--insecure", "--server", f"{network.NET}.1:9400"]
            words += ["--client", i, "--state-dir", folder / "state"]
            processes.append(network.start(i + 1, folder / f"join{i}.log", *words))
        try:
            deadline = time.monotonic() + seconds
            while processes[0].poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            processes[0].terminate()  # which saves the result so far
            processes[0].wait(60)
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
    try:
        found: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    except OSError:
        print((folder / "serve.log").read_text(encoding="utf-8")[-2000:])
        return None
    return found


def reached(result: dict[str, Any] | None, target: float) -> tuple[float, int, float] | None:
    """Return the seconds and rounds to the target, and the mean seconds of the rounds after 10."""
    if result is None or not result["exchanges"]:
        return None
    hello, total, late = result["exchanges"][0]["seconds"], 0.0, []
    for record in result["rounds"][1:]:
        total += record["seconds"]
        if record["round"] > 10:
            late.append(record["seconds"])
        if record["metrics"]["accuracy"] >= target:
            return total - hello, record["round"], sum(late) / max(1, len(late))
    return None


def compared(
    name: str, rates: list[str], compressors: list[str], given: argparse.Namespace, folder: Path
) -> tuple[float, dict[str, float]]:
    """Train with each compressor; returns the seconds of the first, and of those that got there."""
    print(f"\n{name}: {', '.join(rates)}", flush=True)
    found: dict[str, float] = {}
    cap = given.cap
    for number, compressor in enumerate(compressors):
        config = WORK.format(compressor=compressor, rounds=given.rounds)
        where = folder / f"{name}-{number}"
        got = reached(train(config, where, rates, cap), given.target)
        label = compressor if len(compressor) < 40 else f"{compressor[:37]}..."
        if got is None:
            print(f"  {label:<40} not in {cap:.0f} s", flush=True)
            continue
        seconds, rounds, late = got
        print(f"  {label:<40}{seconds:8.1f} s{rounds:6} rounds{late:8.2f} s a round", flush=True)
        found[compressor] = seconds
        if not number:  # what takes longer than three times this, by far, need not be waited for
            cap = min(given.cap, 4 * seconds + 30)
    return found.get(compressors[0], float("inf")), {**found, "cap": cap}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds")
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--rounds", type=int, default=400, help="at most")
    parser.add_argument("--cap", type=float, default=180.0, help="seconds a run may take")
    parser.add_argument("--rates", default=",".join(ALL), help="such as 0.5mbit,10mbit")
    parser.add_argument("--only", choices=("alone", "mixed"))
    given = parser.parse_args()
    if os.geteuid() or not (shutil.which("ip") and shutil.which("tc")):
        print("skipped: needs root, ip and tc")
        return 0
    auto = f"auto:deadline={given.deadline:g}s"
    ladder = Ladder.parse(auto)
    sizes = dict(zip(ladder.steps, ladder.sizes(NUMBERS), strict=True))
    rates, held = given.rates.split(","), True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            if given.only != "mixed":
                for rate in rates:
                    budget = given.deadline * bytes_a_second(rate)
                    fitting = [step for step, size in sizes.items() if size <= budget][-3:]
                    mine, others = compared(rate, 3 * [rate], [auto, *fitting], given, folder)
                    others.pop("cap")
                    best = min((v for k, v in others.items() if k != auto), default=float("inf"))
                    good = mine <= 1.1 * best
                    held &= good
                    print(f"  {'held' if good else 'MISSED'}: {mine / best:.2f} of the best fixed")
            if given.only != "alone":
                steps = ["topk:0.001", "topk:0.01", "topk:0.1", "identity"]
                mine, others = compared("mixed", rates, [auto, *steps], given, folder)
                for step in steps:
                    least = others.get(step)
                    times = (least or others["cap"]) / mine
                    print(f"  {'' if least else 'more than '}{times:.1f} times sooner than {step}")
        except subprocess.CalledProcessError as error:
            print(f"skipped: {' '.join(error.cmd)}: {error.stderr.strip()}")
            return 0
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
