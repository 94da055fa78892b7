"""How much of flowerpress one round goes through: calls, files, and how often a packet is opened.

    python benchmarks/round_trace.py                   # ef21, 2 clients, the third round
    python benchmarks/round_trace.py --strategy marina --top 20

Counted are calls of Python functions in flowerpress's own files, the server's and the clients'
together; *changes of file* says how often a call goes to another file than its caller's.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import flowerpress
from flowerpress.clients import FunctionTask
from flowerpress.compressors.kernels.choice import waiting_for_the_compiler
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy, strategy_names

ROOT = str(Path(flowerpress.__file__).parent)
ROUND, DIM = 3, 1000
OPENING = {
    ("compressors/wire/packet.py", "_parse_header"): "CRCs",
    ("compressors/wire/reading.py", "decode"): "decodes",
}


class Trace:
    """Counts the calls between two rounds."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.opened: Counter[str] = Counter()  # on the server
        self.changes = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(ROOT):
            return
        place = name[len(ROOT) + 1 :], frame.f_code.co_qualname
        self.calls[place] += 1
        self.changes += frame.f_back is not None and frame.f_back.f_code.co_filename != name
        if place in OPENING and side_of(frame) == "server":
            self.opened[OPENING[place]] += 1

    @property
    def files(self) -> int:
        """Files with a function that was called."""
        return len({name for name, _ in self.calls})


def side_of(frame: FrameType | None) -> str:
    """Return whose code a call is for: of "server" or "worker"."""
    while frame is not None:
        room = Path(frame.f_code.co_filename).parent.name
        if room in ("server", "worker"):
            return room
        frame = frame.f_back
    return ""


def task_fn(client: int, clients: int) -> FunctionTask:
    """Pull a client to a place of its own."""
    to = np.random.default_rng(client).standard_normal(DIM).astype(np.float32)
    return FunctionTask(np.zeros(DIM, np.float32), lambda x, _: (0.0, x - to))


def trace(strategy: str, clients: int) -> Trace:
    """Run three rounds; returns what the last one called."""
    found = Trace()

    def watch(record: Any) -> None:
        sys.setprofile(found if record.round == ROUND - 1 else None)

    with waiting_for_the_compiler():  # until then a switch between kernels is called as well
        simulate(make_strategy(strategy), task_fn, clients, ROUND, on_round=watch)
    sys.setprofile(None)
    return found


def main() -> int:
    """Print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strategy", default="ef21", choices=strategy_names())
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--top", type=int, default=10, help="functions to show")
    options = parser.parse_args()
    found = trace(options.strategy, options.clients)
    total = sum(found.calls.values())
    print(
        f"{options.strategy}, {options.clients} clients, round {ROUND}: {total} calls in ", end=""
    )
    print(f"{found.files} files, {found.changes} changes of file")
    for what in OPENING.values():
        print(f"{what} on the server: {found.opened[what] / options.clients:g} an update")
    for (file, name), count in found.calls.most_common(options.top):
        print(f"{count:6d}  {file}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
