"""How fast the gRPC link is, on the loopback interface, with each client in a process of its own.

    python benchmarks/link.py latency   8 clients, d = 1000: a round, beside Flower's SuperLink
    python benchmarks/link.py bulk      4 clients, 100 MB both ways: beside plain TCP
    python benchmarks/link.py bytes     what a TCP proxy counts, beside the ledger

Each prints what it measured and what is promised, and exits with 1 where a promise is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

APP = Path(__file__).resolve().parent / "link_app"
sys.path.insert(0, str(APP.parents[1]))

from tests.transport.proxy import Proxy  # noqa: E402

FLOWERPRESS = [sys.executable, "-m", "flowerpress"]


@contextmanager
def server(
    folder: Path, app: Path, clients: int, config: str, every: int = 0
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start `flowerpress serve`; yields its process and port. `every`: rounds to a checkpoint."""
    log = folder / "serve.log"
    words = ["serve", app, "--insecure", "--bind", "127.0.0.1:0", "--min-clients", clients]
    words += ["--out", folder / "out", "--run-config", config, "--checkpoint-every", every]
    with log.open("wb") as stderr:
        process = subprocess.Popen([*FLOWERPRESS, *map(str, words)], stderr=stderr)
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"on port (\d+)", log.read_text(encoding="utf-8"))):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(log.read_text(encoding="utf-8"))
            time.sleep(0.1)
        yield process, int(found[1])
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextmanager
def joined(folder: Path, app: Path, port: int, clients: int, store: str) -> Iterator[None]:
    """Start so many `flowerpress join`; waits for their end."""
    processes = []
    for i in range(clients):
        words = ["join", app, "--insecure", "--server", f"127.0.0.1:{port}", "--client", i]
        words += ["--state-dir", folder / "state", "--node-config", f'state-store="{store}"']
        with (folder / f"join-{i}.log").open("wb") as stderr:
            processes.append(subprocess.Popen([*FLOWERPRESS, *map(str, words)], stderr=stderr))
    try:
        yield
        for process in processes:
            process.wait(60)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def over_link(clients: int, config: str, store: str, every: int = 0) -> list[float]:
    """Run the app over the link; returns the seconds of each round."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = folder / "times.json"
        own = f'{config} clients={clients} times="{times}"'
        with (
            server(folder, APP, clients, own, every) as (process, port),
            joined(folder, APP, port, clients, store),
        ):
            if process.wait(600):
                raise SystemExit((folder / "serve.log").read_text(encoding="utf-8"))
        return json.loads(times.read_text(encoding="utf-8"))


def over_superlink(clients: int, config: dict[str, object]) -> list[float]:
    """Run the app on Flower's own SuperLink and SuperNodes."""
    from flowerpress.simulations.loopback import Loopback

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app = folder / "app"
        shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
        times = folder / "times.json"
        with Loopback(folder) as flower:
            for i in range(clients):
                flower.start_node(f"node-{i}", {"partition-id": i, "num-partitions": clients})
            flower.run(app, {**config, "clients": clients, "times": str(times)}, limit=900)
        return json.loads(times.read_text(encoding="utf-8"))


def report(lines: dict[str, str], promises: dict[str, bool]) -> int:
    for what, figure in lines.items():
        print(f"{what:<44}{figure}")
    for promise, held in promises.items():
        print(f"{'held' if held else 'MISSED'}: {promise}")
    return int(not all(promises.values()))


def latency(rounds: int, superlink_rounds: int) -> int:
    clients = 8
    found = {}
    for name, store, every in (("saved", "disk", 1), ("disk", "disk", 0), ("live", "live", 0)):
        times = over_link(clients, f"num-server-rounds={rounds}", store, every)[5:]
        found[name] = statistics.median(times)
    lines = {
        "link, a checkpoint a round, ms a round": f"{1e3 * found['saved']:.1f}",
        "link, memory on disk, ms a round": f"{1e3 * found['disk']:.1f}",
        "link, memory in the process, ms a round": f"{1e3 * found['live']:.1f}",
    }
    promises = {"at most 12 ms a round, memory on disk": found["disk"] <= 0.012}
    if superlink_rounds:
        config: dict[str, object] = {"num-server-rounds": superlink_rounds}
        slow = statistics.median(over_superlink(clients, config)[1:])
        lines["SuperLink, ms a round"] = f"{1e3 * slow:.0f}"
        lines["SuperLink / link"] = f"{slow / found['disk']:.0f}"
        promises["100 times faster than the SuperLink"] = slow >= 100 * found["disk"]
    return report(lines, promises)


# --- 100 MB ---------------------------------------------------------------------------------------

ECHO = """
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.app import Array, ArrayRecord, Message, RecordDict
import json, time, numpy as np
client_app, server_app = ClientApp(), ServerApp()
run_config = {"mb": 100, "clients": 4, "rounds": 5, "times": ""}

@client_app.train()
def train(message, context):
    return Message(message.content, reply_to=message)

def memory(name):
    with open("/proc/self/status") as file:
        return 1024 * int(next(line for line in file if line.startswith(name)).split()[1])

@server_app.main()
def main(grid, context):
    config = context.run_config
    arrays = ArrayRecord({"x": Array(np.random.default_rng(0).random(config["mb"] * 125_000))})
    times = []
    before = memory("VmRSS")
    for _ in range(config["rounds"]):
        start = time.perf_counter()
        nodes = sorted(grid.get_node_ids())
        sent = [Message(RecordDict({"a": arrays}), node, "train") for node in nodes]
        replies = list(grid.send_and_receive(sent, timeout=300))
        times.append(time.perf_counter() - start)
        while replies:
            reply = replies.pop()
            assert reply.content["a"]["x"].data == arrays["x"].data
        assert len(sent) == config["clients"]
    after = memory("VmHWM")
    with open(config["times"], "w") as file:
        json.dump([times, before, after], file)
"""

TCP = """
import socket, sys
link = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
size = int(sys.argv[2])
data = bytearray(size)
view = memoryview(data)
while True:
    left = view
    while len(left):
        n = link.recv_into(left)
        if n == 0: sys.exit()
        left = left[n:]
    link.sendall(data)
"""


def over_tcp(clients: int, size: int, rounds: int) -> list[float]:
    """Send `size` bytes to each client, a plain program, and receive as many; seconds of each."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        for _ in range(clients):
            process = subprocess.Popen([sys.executable, "-c", TCP, str(port), str(size)])
            stack.callback(process.wait)
        links = [stack.enter_context(listener.accept()[0]) for _ in range(clients)]
        data = os.urandom(size)
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            threads = [threading.Thread(target=_exchange, args=(link, data)) for link in links]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            times.append(time.perf_counter() - start)
        for link in links:
            link.close()
        return times


def _exchange(link: socket.socket, data: bytes) -> None:
    link.sendall(data)
    left = memoryview(bytearray(len(data)))
    while left:
        left = left[link.recv_into(left) :]


def bulk(rounds: int) -> int:
    clients, mb = 4, 100
    plain = over_tcp(clients, mb * 10**6, rounds)[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app = folder / "echo_app.py"
        app.write_text(ECHO, encoding="utf-8")
        out = folder / "times.json"
        config = f'mb={mb} clients={clients} rounds={rounds} times="{out}"'
        with (
            server(folder, app, clients, config) as (process, port),
            joined(folder, app, port, clients, "live"),
        ):
            if process.wait(600):
                raise SystemExit((folder / "serve.log").read_text(encoding="utf-8"))
        times, before, after = json.loads(out.read_text(encoding="utf-8"))
    tcp = statistics.median(plain + over_tcp(clients, mb * 10**6, rounds)[1:])  # before and after
    link = statistics.median(times[1:])
    return report(
        {
            "plain TCP, GB/s": f"{2 * clients * mb / 1e3 / tcp:.2f}",
            "link, GB/s": f"{2 * clients * mb / 1e3 / link:.2f}",
            "link / TCP": f"{tcp / link:.2f}",
            "server's memory at its peak, MB more": f"{(after - before) / 1e6:.0f}",
        },
        {
            "at least 0.4 of plain TCP": tcp / link >= 0.4,
            "memory of chunks and one answer, not of all": after - before < 3 * mb * 1e6,
        },
    )


# --- bytes ----------------------------------------------------------------------------------------


def counted() -> int:
    lines, promises = {}, {}
    for config, dim in (("strategy=fedavg", 100_000), ('compressor="topk:0.1"', 1_000_000)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ledger = folder / "ledger.json"
            own = f'{config} dim={dim} clients=2 num-server-rounds=10 ledger="{ledger}"'
            with (
                server(folder, APP, 2, own) as (process, port),
                Proxy(port) as proxy,
                joined(folder, APP, proxy.port, 2, "live"),
            ):
                process.wait(600)
            counts = json.loads(ledger.read_text(encoding="utf-8"))
        for way, seen in (("up", proxy.up), ("down", proxy.down)):
            more = seen / counts[way] - 1
            lines[f"{config}, {way}: ledger, proxy, more"] = (
                f"{counts[way]:,}  {seen:,}  {100 * more:.2f} %"
            )
            promises[f"{config}, {way}: within 2 %"] = abs(more) <= 0.02
    return report(lines, promises)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("latency", "bulk", "bytes"))
    parser.add_argument("--rounds", type=int, help="of the link; 300, or 12 of 100 MB")
    parser.add_argument("--superlink-rounds", type=int, default=4, help="0: without it")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended too
    runs: dict[str, Callable[[], int]] = {
        "latency": lambda: latency(given.rounds or 300, given.superlink_rounds),
        "bulk": lambda: bulk(given.rounds or 12),
        "bytes": counted,
    }
    return runs[given.what]()


if __name__ == "__main__":
    sys.exit(main())
