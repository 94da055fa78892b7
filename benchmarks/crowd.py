"""What a server of the link costs with a thousand clients, with mutual TLS, on one machine.

    python -m benchmarks.crowd                    1,000 clients, EF21-SGDM with top-1 % at d = 1000
    python -m benchmarks.crowd --clients 100      fewer
    python -m benchmarks.crowd --against HEAD~3   the server of another commit too, and the ratios

The clients are tasks of two processes, each with its own certificate and connection, which come
back where they are turned away. Their answers are those that one of them computes, with another
number. Server and clients share the machine, so the wall time of a round has all their work in it;
the seconds of the server's CPU are its own. Prints what was measured and what is promised, and
exits with 1 where a promise is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DIM, WARM, PROCESSES = 1000, 2, 2
_SETTLE = 3.0  # seconds from the last login until the server is idle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds that idling is measured")
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument("--against", metavar="REF", help="a commit whose server is measured too")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        role, *words = given.part
        parts: dict[str, Callable[..., None]] = {"serve": serve, "stubs": stubs}
        parts[role](*words)
        return 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certs = "" if given.plain else str(make_all_certs(folder, given.clients))
        rest = (given.clients, given.rounds, given.idle, certs)
        before = None
        if given.against:
            tree = folder / "against"
            git = ["git", "-C", str(ROOT), "worktree"]
            subprocess.run([*git, "add", "-q", "--detach", tree, given.against], check=True)
            stack.callback(lambda: subprocess.run([*git, "remove", "--force", tree], check=True))
            before = measure(tree, folder, *rest)
        here = measure(ROOT, folder, *rest)
    return report(here, before, given.clients)


def make_all_certs(folder: Path, clients: int) -> Path:
    from flowerpress.transport.certs import make_certs

    make_certs(folder / "certs", clients)
    return folder / "certs"


def measure(
    tree: Path, folder: Path, clients: int, rounds: int, idle: float, certs: str
) -> dict[str, Any]:
    """Run the server of a tree with the clients of this one; returns what the server measured."""
    out, port = folder / "measured.json", folder / "port"
    out.unlink(missing_ok=True)
    port.unlink(missing_ok=True)
    words = ["serve", clients, rounds, idle, certs, port, out]
    server = start(tree, words)
    crowd = []
    try:
        wait_for(port.exists, server)
        each = -(-clients // PROCESSES)
        for first in range(0, clients, each):
            words = ["stubs", first, min(each, clients - first), port.read_text("ascii"), certs]
            crowd.append(start(ROOT, words))
        wait_for(lambda: server.poll() is not None, server, 900)
    finally:
        server.kill()
        for process in (server, *crowd):
            try:  # the clients end by themselves: they have heard a goodbye
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def start(tree: Path, words: list[Any]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "GRPC_VERBOSITY": "NONE"}
    command = [sys.executable, str(ROOT / "benchmarks" / "crowd.py"), "--part", *map(str, words)]
    return subprocess.Popen(command, env=environment, cwd=tree)


def wait_for(ready: Any, server: subprocess.Popen[bytes], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end or server.poll():
            raise SystemExit(f"the server has ended with {server.poll()}, or takes too long")
        time.sleep(0.1)


def report(here: dict[str, Any], before: dict[str, Any] | None, clients: int) -> int:
    lines = {
        "threads": "threads of the server",
        "idle_mb": "memory of a client that is there, MB",
        "peak_mb": "memory of a client at the peak, MB",
        "idle": "idle, % of a core",
        "wall": "a round, s",
        "cpu": "a round, s of the server's CPU",
        "login": "until all are there, s",
        "login_cpu": "the same, s of the server's CPU",
    }
    width = max(map(len, lines.values()))
    for key, what in lines.items():
        text = f"{what:<{width}}  {here[key]:8.3f}"
        if before is not None:
            text += (
                f"   before {before[key]:8.3f}   ratio {before[key] / max(here[key], 1e-9):6.2f}"
            )
        print(text)
    promises = {
        "all answered in every round": here["answers"] == [clients] * len(here["answers"]),
        "at most 16 threads": here["threads"] <= 16,
        "at most 0.3 MB a client": here["peak_mb"] <= 0.3,
        "idle: at most 1.5 % of a core": here["idle"] <= 1.5,
        "a round in 1.0 s, or 0.75 s of the server's CPU": here["wall"] <= 1 or here["cpu"] <= 0.75,
    }
    for promise, held in promises.items():
        print(f"{'held' if held else 'MISSED'}: {promise}")
    return int(not all(promises.values()))


# --- the server -----------------------------------------------------------------------------------


def memory(name: str) -> float:
    """Return VmRSS or VmHWM in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def serve(clients_: str, rounds_: str, idle_: str, certs: str, port: str, out: str) -> None:
    """Measure a server: idle first, then over some rounds."""
    import numpy as np
    from flwr.app import Array, ArrayRecord
    from flwr.serverapp import ServerApp

    from flowerpress.simulations import simulate
    from flowerpress.strategies import make_strategy
    from flowerpress.transport import Limits, Service
    from flowerpress.transport.certs import read_certs

    logging.getLogger("flwr").setLevel(logging.WARNING)
    clients, rounds, idle = int(clients_), int(rounds_), float(idle_)
    found: dict[str, Any] = {"threads": 0}

    def strategy(least: int) -> Any:
        options = {"compressor": "topk:0.01", "lr": 0.01, "min_available_nodes": least}
        return make_strategy("ef21-sgdm", **options)

    simulate(strategy(2), task_fn, 2, 3)  # what is loaded and compiled once, whoever comes
    pair = read_certs(Path(certs), "server") if certs else None
    service = Service("127.0.0.1:0", pair, clients, limits=Limits(clients=clients + 8))
    base, begun, cpu = memory("VmRSS"), time.monotonic(), time.process_time()
    over = threading.Event()

    def count_threads() -> None:
        while not over.wait(0.2):
            there = sum(1 for _ in Path("/proc/self/task").iterdir()) - 1  # but this one
            found["threads"] = max(found["threads"], there)

    app = ServerApp()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        found["login"], found["login_cpu"] = time.monotonic() - begun, time.process_time() - cpu
        time.sleep(_SETTLE)
        used, since = time.process_time(), time.monotonic()
        time.sleep(idle)
        found["idle"] = 100 * (time.process_time() - used) / (time.monotonic() - since)
        found["idle_mb"] = (memory("VmRSS") - base) / clients
        times = []

        def note(server_round: int, arrays: Any) -> None:
            times.append((time.perf_counter(), time.process_time()))

        training = strategy(clients)
        initial = ArrayRecord({"x": Array(np.zeros(DIM, np.float32))})
        training.start(grid, initial, num_rounds=WARM + rounds, timeout=120, evaluate_fn=note)
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(times)]
        found["wall"], found["cpu"] = map(statistics.median, zip(*steps[WARM:], strict=True))
        found["peak_mb"] = (memory("VmHWM") - base) / clients

    Path(port + ".new").write_text(str(service.port), encoding="ascii")
    Path(port + ".new").rename(port)
    counter = threading.Thread(target=count_threads, daemon=True)
    counter.start()
    result = service.run(app)
    over.set()
    exchanges = [each for each in result["exchanges"] if each["messages"] == clients]
    found["answers"] = [each["messages"] - each["late"] for each in exchanges]
    Path(out).write_text(json.dumps(found), encoding="utf-8")


def task_fn(i: int, n: int) -> Any:
    """Return client i's task: a quadratic that pulls towards the vector of i's."""
    import numpy as np

    from flowerpress.clients import FunctionTask

    return FunctionTask(np.zeros(DIM, np.float32), lambda x, batch: (0.0, x - np.float32(i)))


# --- the clients ----------------------------------------------------------------------------------


class Crowd:
    """The clients of one process, and the one that computes for all of them."""

    def __init__(self, first: int, count: int, port: str, certs: str) -> None:
        from flowerpress.clients import client_app

        self.clients = range(first, first + count)
        self.app, self.certs = client_app(task_fn), certs
        self.target = f"localhost:{port}"
        self.nodes: dict[int, Any] = {}
        self.model = self.node(first)
        self.rounds: dict[int, tuple[dict[str, Any], list[bytes], Any]] = {}

    def node(self, client: int) -> Any:
        from flowerpress.transport.join import Node

        config = {"partition-id": client, "client-id": client, "state-store": "live"}
        return Node(self.app, config)

    def answer(self, client: int, welcome: Any, data: bytes) -> bytes:
        """Return the answer of a client: of its own to a query, of the model's in a round."""
        from flwr.app import Message

        from flowerpress.protocol import blob
        from flowerpress.protocol.content import metrics_of, unwrap, wrap
        from flowerpress.transport.codec import encode

        head, content = read(data)
        if head.kind != "train":
            node = self.nodes.setdefault(client, self.node(client))
            return b"".join(node.answer(welcome, incoming(data)))
        number = blob.decode_array(unwrap(content)[0])[0]["round"]
        if number not in self.rounds:
            reply = read(b"".join(self.model.answer(welcome, incoming(data))))[1]
            self.rounds[number] = (*blob.decode_array(unwrap(reply)[0]), metrics_of(reply))
        header, packets, metrics = self.rounds[number]
        own = wrap(blob.unjoined({**header, "client": client}, packets), metrics)
        asked = Message(content, int(welcome.node_id), "train")
        return b"".join(encode(Message(own, reply_to=asked)))

    async def live(self, client: int) -> None:
        """Be one client, until the server says that the run has ended."""
        import random

        import grpc

        done = False
        while not done:
            async with self.channel(client) as channel:
                try:
                    done = await self.connect(client, channel)
                except (grpc.RpcError, EOFError, asyncio.InvalidStateError):
                    await asyncio.sleep(random.uniform(0.5, 2.0))

    def channel(self, client: int) -> Any:
        import grpc

        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        if not self.certs:
            return grpc.aio.insecure_channel(self.target, options=options)
        from flowerpress.transport.certs import read_certs

        ca, cert, key = read_certs(Path(self.certs), f"client-{client}")
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        return grpc.aio.secure_channel(self.target, credentials, options=options)

    async def connect(self, client: int, channel: Any) -> bool:
        """Serve one connection; returns whether the run has ended with it."""
        import grpc

        from flowerpress.transport.frames import BEAT, METHOD, kind_of, make, parse

        call = channel.stream_stream(METHOD)()
        await call.write(make("hello", protocol=1, client=client, instance=f"stub-{client}"))
        welcome: Any = None
        beating: asyncio.Task[None] | None = None
        try:
            while (data := await call.read()) is not grpc.aio.EOF:
                frame = parse(data)
                kind = kind_of(frame)
                if kind == "welcome":
                    welcome = frame
                    await call.write(BEAT)
                    beating = asyncio.create_task(beat(call, frame.heartbeat))
                elif kind == "begin":
                    if len(frame.data) != frame.size:
                        raise ValueError("a question in several frames")
                    own = self.answer(client, welcome, frame.data)
                    await call.write(make("begin", id=frame.id, size=len(own), data=own))
                elif kind == "goodbye":
                    return not frame.retry
            raise EOFError
        finally:
            if beating is not None:
                beating.cancel()
            call.cancel()


async def beat(call: Any, seconds: float) -> None:
    from flowerpress.transport.frames import BEAT

    while True:
        await asyncio.sleep(seconds)
        await call.write(BEAT)


def incoming(data: bytes) -> Any:
    from flowerpress.transport.pipes import Incoming

    message = Incoming(1, len(data), in_memory=len(data))
    message.add(data)
    return message


def read(data: bytes) -> Any:
    from flowerpress.transport.codec import decode

    return decode(incoming(data).open(), len(data))


def stubs(first: str, count: str, port: str, certs: str) -> None:
    """Be some clients, until the run has ended."""
    crowd = Crowd(int(first), int(count), port, certs)

    async def all_of_them() -> None:
        await asyncio.gather(*map(crowd.live, crowd.clients))

    asyncio.run(all_of_them())


if __name__ == "__main__":
    sys.exit(main())
