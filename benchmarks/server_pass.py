"""What a server's pass over a round's answers costs: check, norm and sum; time and memory.

    python -m benchmarks.server_pass                  # 100 answers of 25 M float32: minutes, 1 GB
    python -m benchmarks.server_pass --quick          # 20 answers of a million: seconds
    python -m benchmarks.server_pass --against HEAD~1 # and the same of that commit, in turn

The answers are made once, four of them different, and their bytes are put into a message when the
server asks for its content, as from a disk; that is not timed. From there on all is the server's
own (`flowerpress.server.run.Run.take`): messages are read, packets checked and decoded, their norms
compared, and what they hold is added to the round's sum. Seconds are the processor's, of the one
thread that does it: on an idle machine as many go by. Of some rounds the fastest counts. In the
first one answers are looked at before they are taken, for nothing is known of what is usual.

Memory is the most that is allocated at a time while a first or a later round's answers are taken,
beside the model and the sum. Each codec has a process of its own. Exits with 1 where the time of
the whole size, the ratio of its first round, or the memory misses its bar.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SPECS = ("topk:0.01", "sign", "qsgd:7", "topk:0.01+eden:2", "uniform:4", "natural", "fp16")
BARRED = SPECS[:4]
DIM, ANSWERS, ROUNDS = 25_000_000, 100, 3
QUICK = ["--dim", "1000000", "--answers", "20"]
SECONDS, FIRST, MEMORY = 1.6, 1.3, 64 << 20  # for 100 answers of 25 M; times a later round; bytes
DIFFERENT = 4  # answers that are really made


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"the same as {' '.join(QUICK)}")
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--answers", type=int, default=ANSWERS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of which the fastest counts")
    parser.add_argument("--only", nargs="*", default=SPECS, metavar="SPEC")
    parser.add_argument("--against", metavar="REF", help="a commit to compare with")
    parser.add_argument("--measure", metavar="SPEC", help="measure this one in this process")
    given = parser.parse_args([*QUICK, *words] if "--quick" in words else words)
    if given.measure:
        print(json.dumps(measure(given.measure, given.dim, given.answers, given.rounds)))
        return 0
    with tree(given.against) as other:
        return compare(given, other)


def compare(given: argparse.Namespace, other: Path | None) -> int:
    """Print a row for each codec; return 1 if one misses a bar."""
    whole = given.dim == DIM and given.answers == ANSWERS
    print(f"{given.answers} answers, d = {given.dim:,}, float32. Bars: memory {MEMORY >> 20} MiB;")
    print(f"of {ANSWERS} of {DIM:,} {SECONDS} s, the first round {FIRST} times a later one.\n")
    more = f" {given.against}: s | first | MiB | ratio |" if other else ""
    print(f"| codec | s | first round | x | MiB | bars |{more}")
    print(f"|---|---:|---:|---:|---:|---|{'---:|' * (4 if other else 0)}")
    missed = 0
    for spec in given.only:
        new, old = [], []
        for _ in range(2 if other else 1):
            if other:
                old.append(apart(spec, given, other))
            new.append(apart(spec, given, ROOT))
        row, before = fastest(new), fastest(old) if other else None
        ratio = row["first"] / row["later"]
        fine = row["memory"] <= MEMORY
        if whole:  # of less there are no bars for time
            fine &= row["later"] <= SECONDS and ratio <= FIRST
        verdict = "-" if spec not in BARRED else "met" if fine else "missed"
        missed |= verdict == "missed"
        text = f"| `{spec}` | {row['later']:.3g} | {row['first']:.3g} | {ratio:.2f} "
        text += f"| {row['memory'] / 2**20:.0f} | {verdict} |"
        if before:
            text += f" {before['later']:.3g} | {before['first']:.3g} "
            text += f"| {before['memory'] / 2**20:.0f} | {before['later'] / row['later']:.2f} |"
        print(text, flush=True)
    return missed


def fastest(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: min(row[key] for row in rows) for key in rows[0]}


def apart(spec: str, given: argparse.Namespace, root: Path) -> dict[str, float]:
    """Measure a codec in a process of its own, with the package below `root`."""
    sizes = ["--dim", str(given.dim), "--answers", str(given.answers)]
    command = [sys.executable, __file__, *sizes, "--rounds", str(given.rounds), "--measure", spec]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def tree(commit: str | None) -> Iterator[Path | None]:
    """Check a commit out into a temporary folder."""
    if commit is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(path), commit], check=True)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)


def measure(spec: str, dim: int, answers: int, rounds: int) -> dict[str, float]:
    """Return the seconds of a first and of a later round, and the most bytes of either."""
    logging.disable(logging.WARNING)
    Server(spec, 1 << 13, 3).take()  # kernels are compiled on their first call
    server = Server(spec, dim, answers)
    firsts, laters = [], []
    for _ in range(rounds):
        server.forget()
        firsts.append(server.take())
        laters.append(server.take())
    server.forget()
    peaks = [server.peak(), server.peak()]
    return {"first": min(firsts), "later": min(laters), "memory": float(max(peaks))}


class Server:
    """A run of DSGD with so many known clients, and the packets that they send."""

    def __init__(self, spec: str, dim: int, answers: int) -> None:
        import numpy as np
        from flwr.app import Array, ArrayRecord

        from flowerpress.compressors import Draw, make_compressor
        from flowerpress.protocol import Layout, ensure_task_identity
        from flowerpress.strategies import make_strategy

        ensure_task_identity(1)  # Flower's messages have a run's number
        arrays = ArrayRecord({"x": Array(np.zeros(dim, np.float32))})
        self.strategy = make_strategy("dsgd", compressor=spec, lr=0.1, weights="uniform")
        self.strategy.begin_run(arrays)
        self.strategy.run.begin(Layout.of(arrays))
        self.total = np.zeros(dim, np.float32)
        x = np.random.default_rng(0).standard_normal(dim, np.float32)
        compressor = make_compressor(spec)
        draws = [Draw(seed=1, rank=rank, cohort=DIFFERENT) for rank in range(DIFFERENT)]
        self.packets = [bytes(compressor.compress(x, draw).data) for draw in draws]
        self.answers, self.question, self.building = answers, 0, 0.0
        self.forget()

    def forget(self) -> None:
        """Know the clients, and none of their norms."""
        from flowerpress.server.client import Client

        clients = {i: Client(i, node=i + 2, examples=1) for i in range(self.answers)}
        self.strategy.run.population.clients = clients

    def take(self) -> float:
        """Let a round's answers in; return the seconds that it took."""
        from flowerpress.server.ask import Ask

        run, self.question = self.strategy.run, self.question + 1
        run.exchange.question, self.building = self.question, 0.0
        cohort = list(run.population.clients.values())
        messages = [self.answer(client) for client in cohort]
        ask = Ask(cohort, into=self.total)
        start = time.thread_time()
        taken = run.take(self.question, ask, messages)
        spent = time.thread_time() - start - self.building
        if len(taken) != self.answers:
            raise RuntimeError(f"{len(taken)} of {self.answers} answers went in")
        return spent

    def peak(self) -> int:
        """Let a round's answers in; return the most bytes that were allocated for it at a time."""
        tracemalloc.start()
        self.take()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    def answer(self, client: Any) -> Any:
        """Return a client's message, whose content is made whenever it is asked for."""
        from flwr.app import Message, RecordDict

        from flowerpress.protocol import Reply

        base = client.receiver.ask(self.question)
        packets = [self.packets[client.id % DIFFERENT]]
        reply = Reply(client.id, self.question, base=base, packets=packets)
        server = self

        class Kept(Message):
            @property
            def content(self) -> RecordDict:
                start = time.thread_time()
                content = reply.encode()
                server.building += time.thread_time() - start
                return content

            @content.setter
            def content(self, value: RecordDict) -> None:
                raise AttributeError("an answer is as it was sent")

        asked = Message(RecordDict(), client.node, "train")
        message = Message(RecordDict(), reply_to=asked)
        kept = Kept.__new__(Kept)
        kept.__dict__.update(message.__dict__)
        return kept


if __name__ == "__main__":
    sys.exit(main())
