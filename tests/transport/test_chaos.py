"""200 rounds: clients are killed, connections cut, held up and doubled, and the server dies.

The processes are `flowerpress serve` and `flowerpress join`; what they send passes a repeater,
which says some things twice, and a proxy, which cuts connections and holds them up.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from flowerpress.compressors import decompress
from flowerpress.server.tree import load
from flowerpress.simulations import simulate
from flowerpress.simulations.loopback import free_port
from flowerpress.transport.frames import METHOD, kind_of, parse
from flowerpress.worker.stores import DiskStore

from . import chaos_app
from .chaos_app import CLIENTS, DIM, ROUNDS
from .proxy import Proxy

APP = Path(chaos_app.__file__)


class Repeater:
    """Passes frames on to a server, some messages and answers twice."""

    def __init__(self, port: int, share: float) -> None:
        self.target, self.share, self.doubled = f"127.0.0.1:{port}", share, 0
        self.rng, self.lock = np.random.default_rng(3), threading.Lock()
        self.server = grpc.server(ThreadPoolExecutor(64))
        _, service, method = METHOD.split("/")
        handler = grpc.stream_stream_rpc_method_handler(self.connect)
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def connect(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        with grpc.insecure_channel(self.target) as channel:
            call = channel.stream_stream(METHOD)(self.some_twice(requests))
            context.add_callback(call.cancel)
            yield from self.some_twice(call)

    def some_twice(self, frames: Iterator[bytes]) -> Iterator[bytes]:
        while (frame := next_or_none(frames)) is not None:
            yield frame
            message = parse(frame)
            if kind_of(message) == "begin" and len(message.data) == message.size:
                with self.lock:
                    again = self.rng.random() < self.share
                    self.doubled += again
                if again:
                    yield frame


def next_or_none(frames: Iterator[bytes]) -> bytes | None:
    """Return the next frame, None at the end, however that comes."""
    try:
        return next(frames, None)
    except grpc.RpcError:
        return None


class Chaos:
    """The processes of the run, and what is done to them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.rng = np.random.default_rng(7)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kills = {"server": 0, "client": 0}

    def start(self, name: str, *words: object) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "flowerpress", *map(str, words)],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )

    def start_server(self) -> None:
        words = ["serve", APP, "--insecure", "--bind", f"127.0.0.1:{self.port}", "--grace", 0.5]
        self.start("server", *words, "--min-clients", 2, "--out", "out", "--resume")

    def start_client(self, i: int, port: int) -> None:
        words = ["join", APP, "--insecure", "--server", f"127.0.0.1:{port}", "--client", i]
        config = f"num-partitions={CLIENTS}"
        self.start(f"client-{i}", *words, "--state-dir", "state", "--node-config", config)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()
        self.kills[name.split("-", maxsplit=1)[0]] += 1

    def round(self) -> int:
        """Return the round of the newest checkpoint."""
        names = [path.name for path in (self.folder / "out" / "checkpoints").glob("round-*")]
        return max((int(re.sub(r"\D", "", name)) for name in names), default=0)

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


def play(chaos: Chaos, proxy: Proxy, port: int) -> None:
    """Do harm until the run has ended."""
    end = time.monotonic() + 150
    server_dies = 90
    while chaos.processes["server"].poll() is None:
        assert time.monotonic() < end, (chaos.folder / "server.log").read_text(encoding="utf-8")
        time.sleep(chaos.rng.uniform(0.2, 0.8))
        proxy.delay = float(chaos.rng.choice([0.0, 0.0, 0.005, 0.03]))
        event = chaos.rng.random()
        if chaos.round() > server_dies and not chaos.kills["server"]:
            chaos.kill("server")
            chaos.start_server()
        elif event < 0.4:
            proxy.cut_some(chaos.rng)
        elif event < 0.6 and 10 < chaos.round() < 0.9 * ROUNDS:
            i = int(chaos.rng.integers(CLIENTS))
            chaos.kill(f"client-{i}")
            chaos.start_client(i, port)


@pytest.mark.slow
def test_a_run_in_which_all_goes_wrong_ends_as_one_in_which_nothing_does(tmp_path: Path) -> None:
    calm = simulate(
        chaos_app.new_strategy(),
        chaos_app.task_of(0.0),
        CLIENTS,
        ROUNDS,
        evaluate_fn=chaos_app.gradient_norm,
    )
    chaos = Chaos(tmp_path)
    with ExitStack() as stack:
        stack.callback(chaos.end)
        chaos.start_server()
        proxy = stack.enter_context(Proxy(chaos.port))
        repeater = Repeater(proxy.port, share=0.05)
        stack.callback(repeater.server.stop, 0)
        for i in range(CLIENTS):
            chaos.start_client(i, repeater.port)
        play(chaos, proxy, repeater.port)
        log = (tmp_path / "server.log").read_text(encoding="utf-8")
        assert chaos.processes["server"].returncode == 0, log

    # It did go wrong.
    assert chaos.kills["server"] == 1
    assert chaos.kills["client"] >= 2
    assert proxy.cut >= 3
    assert repeater.doubled >= 20

    # No round is missing, none came twice.
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert [record["round"] for record in result["rounds"]] == list(range(ROUNDS + 1))
    assert not any(client["malformed"] for client in result["clients"].values())

    # The gradient is as small as in the calm run: the mean of the last 20 rounds, for noise.
    norms = np.array([record["metrics"]["norm"] for record in result["rounds"]])
    expected = np.array([record.metrics["norm"] for record in calm.history])
    assert norms[-20:].mean() < 2 * expected[-20:].mean()
    assert expected[-20:].mean() < 0.1 * expected[0]  # and small it is

    # EF21's invariant: what the server holds is the sum of what the clients know to have sent.
    newest = max((tmp_path / "out" / "checkpoints").glob("round-*.safetensors"))
    saved = load(newest)
    total = np.zeros(DIM)
    for client in saved["population"][0]:
        applied = client["receiver"]["applied"]
        state = DiskStore(state_file(tmp_path, client["id"])).load()
        own = state.vectors["memory"].copy()
        if state.numbers["settled"] != applied:
            assert state.numbers["pending"] == applied
            own += state.numbers["scale"] * decompress(state.packet)
        total += own
    scale = np.abs(total).max()
    np.testing.assert_allclose(saved["state"]["_sum"], total, rtol=0, atol=1e-12 * scale)


def state_file(folder: Path, client: int) -> Path:
    (path,) = (folder / "state").glob(f"run-*/client-{client}.safetensors")
    return path
