"""Time to an accuracy over slow links: EF21-SGDM with top-1 % against dense FedAvg.

    python benchmarks/slow_network.py

Five hosts in network namespaces of their own, each with 10 Mbit/s either way (`tc tbf`): a server
and four clients, `flowerpress serve` and `flowerpress join`, training on MNIST with unequal shards.
Counted is the time from the first training message to the first round at the target accuracy. The
settings of both were chosen in the simulator, on this seed.
Needs Linux, root, `ip` and `tc`; says so and exits with 0 where they are not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

CLIENTS = 4
NET = "10.213.7"
WORK = (
    'partition="dirichlet:0.5" model={model} local-steps=4 local-lr=0.1 num-server-rounds={rounds}'
)
DENSE = "strategy=fedavg lr=0.1"
PRESSED = (
    'strategy="ef21-sgdm" compressor="topk:0.01" downlink="topk:0.01" init=compressed '
    "lr=0.15 momentum=0.3"
)


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


def name_of(host: int) -> str:
    return f"fp{os.getpid()}h{host}"


@contextmanager
def hosts(rates: Sequence[str]) -> Iterator[None]:
    """Make namespaces whose hosts see each other, each through a link of so many bits a second."""
    bridge = f"fp{os.getpid() % 10**6}br"
    with ExitStack() as stack:
        run("ip", "netns", "add", bridge)
        stack.callback(run, "ip", "netns", "del", bridge)
        inside = ("ip", "-n", bridge)
        run(*inside, "link", "add", "br0", "type", "bridge")
        run(*inside, "link", "set", "br0", "up")
        for host, rate in enumerate(rates):
            own = name_of(host)
            run("ip", "netns", "add", own)
            stack.callback(run, "ip", "netns", "del", own)
            port = f"port{host}"
            ends = ("name", "eth0", "netns", own)
            run(*inside, "link", "add", port, "type", "veth", "peer", *ends)
            run(*inside, "link", "set", port, "master", "br0", "up")
            run("ip", "-n", own, "address", "add", f"{NET}.{host + 1}/24", "dev", "eth0")
            run("ip", "-n", own, "link", "set", "eth0", "up")
            run("ip", "-n", own, "link", "set", "lo", "up")
            shape = ("root", "tbf", "rate", rate, "burst", "16kb", "latency", "200ms")
            run("tc", "-n", own, "qdisc", "add", "dev", "eth0", *shape)
            run("tc", "-n", bridge, "qdisc", "add", "dev", port, *shape)
        yield


def start(host: int, log: Path, *words: object) -> subprocess.Popen[bytes]:
    with log.open("wb") as stderr:
        return subprocess.Popen(
            ["ip", "netns", "exec", name_of(host), sys.executable, "-m", "flowerpress"]
            + [str(word) for word in words],
            stderr=stderr,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # the hosts share these cores
        )


def train(config: str, folder: Path) -> dict[str, Any]:
    """Run once; returns what is in result.json."""
    folder.mkdir()
    out = folder / "out"
    words = ["serve", "mnist", "--insecure", "--bind", f"{NET}.1:9400", "--out", out]
    processes = [
        start(0, folder / "serve.log", *words, "--min-clients", CLIENTS, "--run-config", config)
    ]
    for i in range(CLIENTS):
        words = ["join", "mnist", "--insecure", "--server", f"{NET}.1:9400", "--client", i]
        words += ["--state-dir", folder / "state"]
        processes.append(start(i + 1, folder / f"join{i}.log", *words))
    try:
        for process in processes:
            if process.wait(1200):
                raise SystemExit((folder / "serve.log").read_text(encoding="utf-8"))
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    result: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return result


def seconds_to(result: dict[str, Any], target: float) -> tuple[float, int] | None:
    """Return when the target was reached, in seconds and rounds; None if it was not."""
    hello, total = result["exchanges"][0]["seconds"], 0.0
    for record in result["rounds"][1:]:
        total += record["seconds"]
        if record["metrics"]["accuracy"] >= target:
            return total - hello, record["round"]
    return None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", default="10mbit")
    parser.add_argument("--model", default="mlp", choices=("mlp", "cnn"))
    parser.add_argument("--target", type=float, default=0.93)
    parser.add_argument("--dense-rounds", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--pressed", default=PRESSED, help="run config of the pressed run")
    given = parser.parse_args()
    if os.geteuid() or not (shutil.which("ip") and shutil.which("tc")):
        print("skipped: needs root, ip and tc")
        return 0
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        try:
            stack.enter_context(hosts([given.rate] * (CLIENTS + 1)))
        except subprocess.CalledProcessError as error:
            print(f"skipped: {' '.join(error.cmd)}: {error.stderr.strip()}")
            return 0
        found = {}
        for label, config, rounds in (
            ("dense FedAvg", DENSE, given.dense_rounds),
            ("EF21-SGDM top-1 %", given.pressed, given.rounds),
        ):
            work = WORK.format(model=given.model, rounds=rounds)
            begun = time.monotonic()
            result = train(f"{config} {work}", Path(name) / label.split()[0])
            reached = seconds_to(result, given.target)
            best = max(record["metrics"]["accuracy"] for record in result["rounds"])
            up = sum(client["received"] for client in result["clients"].values())
            down = sum(client["sent"] for client in result["clients"].values())
            when = "never" if reached is None else f"{reached[0]:.1f} s, {reached[1]} rounds"
            print(
                f"{label:<20}{100 * given.target:.0f} % after {when}; best {100 * best:.1f} %; "
                f"{up / 1e6:.2f} MB up, {down / 1e6:.2f} MB down, {time.monotonic() - begun:.0f} s"
            )
            found[label] = reached
    dense, pressed = found.values()
    if dense is None or pressed is None:
        print("MISSED: the target was not reached")
        return 1
    print(f"{dense[0] / pressed[0]:.1f} times sooner")
    held = dense[0] >= 10 * pressed[0]
    print(f"{'held' if held else 'MISSED'}: at least 10 times sooner")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
