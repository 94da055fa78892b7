"""A real deployment on one machine: a SuperLink and three SuperNodes, each a process of its own.

The three clients share scikit-learn's digits and train one model. Client 0 has numpy only and
sends 5 % of its values, client 1 quantizes, client 2 uses what the strategy says: one round, three
kinds of packets. Their memory is on disk, a folder each. Started by `scripts/deploy`; ends only
what it started.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flowerpress.simulations.loopback import COMPLETED, Loopback, LoopbackError, RunReport, as_toml

APP = Path(__file__).resolve().parents[1]
NODES: list[dict[str, str]] = [
    {"compressor": "topk:0.05", "backend": "numpy"},
    {"compressor": "qsgd:7", "backend": "torch"},
    {"backend": "torch"},
]


def main() -> int:
    options = parse_arguments()
    # A polite `kill` ends the deployment as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console()
    with ExitStack() as stack:
        if options.folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowerpress-")))
        else:
            folder = options.folder.resolve()
            folder.mkdir(parents=True, exist_ok=True)
        try:
            report = deploy(console, folder, options)
        except (LoopbackError, KeyboardInterrupt) as error:
            console.print(str(error) or "interrupted: all processes are ended", markup=False)
            return 1
        if report.status != COMPLETED:
            log = (folder / "logs" / "run.log").read_text(encoding="utf-8", errors="replace")
            console.print(log[-4000:], markup=False, highlight=False)
            console.print(f"the run is {report.status}, not {COMPLETED}", markup=False)
            return 1
        show(console, folder, report)
        if options.folder is not None:
            console.print(f"logs, states and results in {folder}", markup=False, soft_wrap=True)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/deploy", description=__doc__)
    parser.add_argument("--strategy", default="ef21-sgdm", help="the algorithm, by name")
    parser.add_argument("--compressor", default="topk:0.1", help="of the clients without their own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--numpy-only", action="store_true", help="no client imports torch: faster")
    parser.add_argument("--folder", type=Path, help="keep logs, states and results here")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds the run may take")
    return parser.parse_args()


def deploy(console: Console, folder: Path, options: argparse.Namespace) -> RunReport:
    run_config = {
        "strategy": options.strategy,
        "task": "digits",
        "lr": options.lr,
        "seed": options.seed,
        "num-server-rounds": options.rounds,
        # All three from the first round on, so that the run can be repeated exactly.
        "min-train-nodes": len(NODES),
        "min-available-nodes": len(NODES),
        "round-timeout": 180,
        "hello-timeout": 180,  # on a busy machine a client takes a minute to load torch
        "out": str(folder / "results"),
    }
    if options.strategy != "fedavg":
        run_config["compressor"] = options.compressor
    with Loopback(folder) as flower:
        for i, node in enumerate(NODES):
            own = {**node, "backend": "numpy"} if options.numpy_only else node
            config: dict[str, Any] = {"partition-id": i, "num-partitions": len(NODES), **own}
            config["state-dir"] = str(folder / "state" / f"client-{i}")
            flower.start_node(f"client-{i}", config)
            console.print(f"client {i} is up: {as_toml(own)}", markup=False, highlight=False)
        console.print(f"{options.rounds} rounds of {options.strategy} ...", markup=False)
        return flower.run(APP, run_config, limit=options.limit)


def show(console: Console, folder: Path, report: RunReport) -> None:
    """Print the strategy's ledger by round and by client, and Flower's own account beside it."""
    results = max(folder.glob("results/*/results.json"))  # the newest: names begin with the time
    run = json.loads(results.read_text(encoding="utf-8"))["runs"][0]
    columns = ("up_payload", "up_framing", "down_payload", "down_framing")
    rounds = Table(title="bytes by round, all clients")
    clients = Table(title="bytes by client, all rounds")
    for table, first in ((rounds, "round"), (clients, "client")):
        table.add_column(first)
        for column in columns:
            table.add_column(column.replace("_", " "), justify="right")
    totals = dict.fromkeys(columns, 0)
    for row in run["ledger"]:
        rounds.add_row(str(row["round"]), *(str(row[column]) for column in columns))
        totals = {column: totals[column] + row[column] for column in columns}
    rounds.add_section()
    rounds.add_row("all", *(str(totals[column]) for column in columns))
    rows = json.loads((results.parent / "ledger.json").read_text(encoding="utf-8"))
    for client, node in enumerate(NODES):
        sums = dict.fromkeys(columns, 0)
        for row in rows:
            if row["client"] == client:
                sums[f"{row['direction']}_payload"] += row["payload"]
                sums[f"{row['direction']}_framing"] += row["framing"]
        title = f"{client}: {node.get('compressor', 'as the strategy says')}"
        clients.add_row(title, *(str(sums[column]) for column in columns))
    console.print(rounds, clients)
    final = ", ".join(f"{name} {value:.4g}" for name, value in run["final"].items())
    for line in (
        f"uplink {run['up_bytes']} B as handed to Flower; Flower's account of it: "
        f"{report.up_bytes} B (with its message objects, without HTTP heads)",
        f"downlink {run['down_bytes']} B as handed to Flower; Flower's account: "
        f"{report.down_bytes} B",
        f"{report.status} in {report.seconds:.0f} s; on held-out data: {final}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
