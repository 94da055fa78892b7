"""198 kills of clients and servers at random moments: the bytes are those of a calm run.

The seed is `FLOWERPRESS_CHAOS_SEED`, 0 if there is none; what it gives also depends on how fast the
machine is.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from flowerpress.simulations import simulate
from flowerpress.simulations.loopback import free_port
from tests.algorithms.lives import N, Noisy

from . import kills_app

APP = Path(kills_app.__file__)
ROOT = APP.parents[2]
STRATEGIES = ("ef14", "ef21", "marina", "onebit-adam", "sketched-sgd", "squarm-sgd")
KILLS = 33  # of each
SEED = int(os.environ.get("FLOWERPRESS_CHAOS_SEED", "0"))


class Chaos:
    """The processes of a run, and what is done to them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.port = folder, free_port()
        self.rng = np.random.default_rng([SEED, STRATEGIES.index(name)])
        self.config = f'strategy="{name}" result="{folder / "result.json"}"'
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kills = {"server": 0, "client": 0}
        self.names = ["server", *(f"client-{i}" for i in range(N))]
        for each in self.names:
            self.start(each)

    def start(self, name: str) -> None:
        address = f"127.0.0.1:{self.port}"
        if name == "server":
            words = ["serve", str(APP), "--bind", address, "--min-clients", str(N), "--resume"]
            words += ["--grace", "120", "--run-config", self.config]
        else:
            number = name.removeprefix("client-")
            words = ["join", str(APP), "--server", address, "--client", number]
            words += ["--state-dir", "state"]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "flowerpress", *words, "--insecure"],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()
        self.kills[name.partition("-")[0]] += 1

    def round(self) -> int:
        """Return the round of the newest checkpoint."""
        names = [path.name for path in (self.folder / "out" / "checkpoints").glob("round-*")]
        return max((int(re.sub(r"\D", "", name)) for name in names), default=-1)

    def wait_for(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + 180  # a loaded machine takes a quarter of a minute for each start
        while not ready():
            assert time.monotonic() < end, self.log()
            time.sleep(0.005)

    def wait_for_a_round(self) -> None:
        before = self.round()
        self.wait_for(lambda: self.round() > before)

    def log(self) -> str:
        texts = [(self.folder / f"{name}.log").read_text()[-2000:] for name in self.names]
        return "\n".join([f"seed {SEED}, {self.kills} kills", *texts])

    def play(self) -> None:
        """Kill one after the other, each at a random moment of a round; some while others start."""
        while sum(self.kills.values()) < KILLS:
            if self.rng.random() < 0.8:
                self.wait_for_a_round()
                time.sleep(float(self.rng.uniform(0.0, 0.3)))
            name = str(self.rng.choice(self.names, p=[0.3, *[0.7 / N] * N]))
            self.kill(name)
            self.start(name)
        assert self.round() < kills_app.ROUNDS, self.log()  # they all fell into the run

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_kills_change_nothing(name: str, tmp_path: Path) -> None:
    calm = simulate(
        kills_app.new_strategy(name), lambda i, n: Noisy(i), N, kills_app.ROUNDS, timeout=300
    )
    chaos = Chaos(tmp_path, name)
    try:
        chaos.play()
        chaos.wait_for(lambda: chaos.processes["server"].poll() is not None)
        codes = [chaos.processes[each].wait(60) for each in chaos.names]
        assert codes == [0] * (N + 1), chaos.log()
    finally:
        chaos.end()
    print(f"seed {SEED}: {chaos.kills}")
    assert min(chaos.kills.values()) > 2, chaos.kills
    told = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert bytes.fromhex(told["model"]) == kills_app.bytes_of(calm.arrays), chaos.log()
    assert told["rows"] == [asdict(row) for row in calm.ledger.rows]
