"""`compressor="auto:deadline=1s"` against every fixed choice, over slow and fast links.

    python benchmarks/deadline.py               links of 0.5, 10 and 100 Mbit/s: twenty minutes
    python benchmarks/deadline.py --only mixed
    python benchmarks/deadline.py --only mixed --deadline 0.12 --downlink topk:0.002

A server and three clients in network namespaces of their own (`tc tbf`), `flowerpress serve` and
`flowerpress join`, train a network of 814,090 numbers on MNIST by EF21-SGDM.

- Each link alone, all three clients with it: what `auto` sends, and how long a round takes, against
  the longest fixed step that meets the deadline, and the next one, which does not.
- Mixed, one client with each: the time to the target accuracy with `auto`, and with one spec for
  all.

Needs Linux, root, `ip` and `tc`; says so and exits with 0 where they are not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
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
    'strategy="ef21-sgdm" compressor="{compressor}" downlink="{downlink}" '
    "init=compressed lr=0.3 momentum=0.3 min-available-nodes=3 num-server-rounds={rounds}"
)
ALL = "0.5mbit", "10mbit", "100mbit"
_STARTING = 10.0  # seconds, more than it takes until all are there
SPECS = "topk:0.001", "topk:0.01", "topk:0.1", "identity"


def bytes_a_second(rate: str) -> float:
    return float(re.fullmatch(r"([0-9.]+)mbit", rate)[1]) * 1e6 / 8  # type: ignore[index]


def train(
    config: str, folder: Path, rates: list[str], seconds: float, target: float = 2.0
) -> dict[str, Any] | None:
    """Run once, on links of these rates, for so many seconds or until the accuracy is reached.

    Returns what result.json has.
    """
    out, reached = folder / "out", folder / "reached"
    folder.mkdir()
    os.environ |= {"WIDE_MNIST_TARGET": str(target), "WIDE_MNIST_REACHED": str(reached)}
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
                if reached.exists():
                    time.sleep(1.0)  # the round is noted after it was evaluated
                    break
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


def seconds_to(result: dict[str, Any] | None, target: float) -> tuple[float, bool]:
    """Return the seconds to the target accuracy, or of all rounds; and whether it was reached.

    The first exchange, in which the model goes out whole, is the same for all and is not counted.
    """
    total = 0.0
    for record in result["rounds"][1:] if result else []:
        total += record["seconds"]
        if record["metrics"]["accuracy"] >= target:
            return total - _first(result), True
    return max(0.0, total - _first(result)), False


def _first(result: dict[str, Any] | None) -> float:
    """Return the seconds of the first exchange."""
    exchanges = result["exchanges"] if result else []
    return float(exchanges[0]["seconds"]) if exchanges else 0.0


def settled(result: dict[str, Any]) -> tuple[float, float] | None:
    """Return the median seconds of the rounds after 12, and the mean bytes up a client."""
    rounds = result["rounds"][13:]
    if len(rounds) < 5:
        return None
    up = sum(record["up_bytes"] for record in rounds) / len(rounds) / len(result["clients"])
    return statistics.median(record["seconds"] for record in rounds), up


def alone(rate: str, auto: str, steps: list[str], given: argparse.Namespace, folder: Path) -> bool:
    """Train on three such links with `auto` and each step; returns whether `auto` did well."""
    budget = given.deadline * bytes_a_second(rate)
    print(f"\n{rate}: a deadline of {given.deadline:g} s carries {budget / 1e3:.0f} kB", flush=True)
    found: list[tuple[float, float] | None] = []
    for number, compressor in enumerate((auto, *steps)):
        config = WORK.format(compressor=compressor, downlink=given.downlink, rounds=given.settle)
        result = train(config, folder / f"{rate}-{number}", 3 * [rate], given.cap)
        found.append(result and settled(result))
        if found[-1] is None:
            print(f"  {compressor:<20} not settled in {given.cap:.0f} s", flush=True)
            continue
        seconds, up = found[-1]
        print(f"  {compressor:<20}{up / 1e3:9.1f} kB up{seconds:8.2f} s a round", flush=True)
    mine, best = found[0], found[1]
    if mine is None or best is None:
        return False
    good = mine[0] <= 1.1 * best[0] and mine[1] >= 0.9 * best[1]
    share, slower = mine[1] / best[1], mine[0] / best[0]
    verdict = "held" if good else "MISSED"
    print(f"  {verdict}: {share:.2f} of the bytes of {steps[0]} in {slower:.2f} of its seconds")
    return good


def mixed(rates: list[str], auto: str, given: argparse.Namespace, folder: Path) -> None:
    """Train on one link of each rate, with `auto` and with one spec for all."""
    print(f"\nmixed ({', '.join(rates)}): seconds to {100 * given.target:g} %", flush=True)
    mine, cap = 0.0, given.cap
    for number, compressor in enumerate((auto, *given.specs)):
        config = WORK.format(compressor=compressor, downlink=given.downlink, rounds=given.rounds)
        result = train(config, folder / f"mixed-{number}", rates, cap, given.target)
        seconds, reached = seconds_to(result, given.target)
        if result is None or not result["exchanges"]:
            said = f" nothing was trained in {cap:.0f} s"
        elif reached:
            said = f"{seconds:8.1f} s"
        else:
            if len(result["rounds"]) <= given.rounds:  # cut off: a round in flight is not in it
                seconds = max(seconds, cap - _STARTING - _first(result))
            said = f" not in {seconds:.0f} s"
        if number == 0:
            if not reached:
                print(f"  {compressor:<20}{said}: nothing to compare with", flush=True)
                return
            mine, cap = seconds, _first(result) + _STARTING + 4.5 * seconds
        elif seconds:
            said += f": auto is {'' if reached else 'more than '}{seconds / mine:.1f} times sooner"
        print(f"  {compressor:<20}{said}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds")
    parser.add_argument("--downlink", default="topk:0.01", metavar="SPEC")
    parser.add_argument("--specs", nargs="+", default=SPECS, metavar="SPEC", help="each for all")
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--rounds", type=int, default=400, help="at most, mixed")
    parser.add_argument("--settle", type=int, default=26, help="rounds of each link alone")
    parser.add_argument(
        "--cap",
        type=float,
        default=180.0,
        help="seconds a run of auto may take, and one of the links alone; others 4.5 times auto's",
    )
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
                    number = sum(size <= budget for size in sizes.values())
                    steps = [ladder.steps[number - 1], *ladder.steps[number : number + 1]]
                    held &= alone(rate, auto, steps, given, folder)
            if given.only != "alone":
                mixed(rates, auto, given, folder)
        except subprocess.CalledProcessError as error:
            print(f"skipped: {' '.join(error.cmd)}: {error.stderr.strip()}")
            return 0
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
