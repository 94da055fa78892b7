"""A pressed app on the link, its clients and its server killed by SIGKILL: it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flowerpress.simulations.loopback import free_port
from tests.dropin import kills_app
from tests.dropin.apps import distance

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["server", *(f"client-{i}" for i in range(kills_app.N))]
KILLS = ["client-0", "server", "client-1", "server", "client-2", "client-0", "server"]


class Run:
    """The processes of a run."""

    def __init__(self, folder: Path, **config: str) -> None:
        self.folder, self.port = folder, free_port()
        given = {"folder": str(folder), "checkpoint": "pressed", **config}
        self.config = " ".join(f"{key}={json.dumps(value)}" for key, value in given.items())
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in NAMES:
            self.start(name)

    def start(self, name: str) -> None:
        address = f"127.0.0.1:{self.port}"
        app = kills_app.__file__
        if name == "server":
            words = ["serve", app, "--bind", address, "--min-clients", str(kills_app.N)]
            words += ["--grace", "60", "--resume", "--run-config", self.config]
        else:
            words = ["join", app, "--server", address, "--client", name.removeprefix("client-")]
            words += ["--state-dir", "state"]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "flowerpress", *words, "--insecure"],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def told(self) -> list[dict[str, int]]:
        file = self.folder / "told.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def log(self) -> str:
        return "\n".join((self.folder / f"{name}.log").read_text()[-1500:] for name in NAMES)

    def wait_for(self, number: int) -> None:
        end = time.monotonic() + 120
        while not (rows := self.told()) or rows[-1]["round"] < number:
            assert time.monotonic() < end, self.log()
            time.sleep(0.01)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()
        self.start(name)

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "downlink"), [("ef14", ""), ("ef21", ""), ("ef14", "topk:0.3")])
def test_kills_of_a_pressed_app(tmp_path: Path, memory: str, downlink: str) -> None:
    """Nobody starts over: what clients owe stays owed, and ef21's sums stay on both sides."""
    run = Run(tmp_path, memory=memory, downlink=downlink)
    rng = np.random.default_rng(0)
    try:
        for number, name in enumerate(KILLS, start=1):
            run.wait_for(6 * number)
            time.sleep(float(rng.uniform(0, 0.1)))
            run.kill(name)
        codes = [run.processes[name].wait(180) for name in NAMES]
        assert codes == [0] * len(NAMES), run.log()
    finally:
        run.end()
    rows = run.told()
    assert rows[-1]["round"] == kills_app.ROUNDS
    assert [row["round"] for row in rows] == sorted({row["round"] for row in rows})
    # A replica that was lost with a kill is said so by one answer; else nothing is refused.
    assert max(row["refused"] for row in rows) <= len(KILLS)
    with np.load(tmp_path / "model.npz") as found:
        model = {key: found[key] for key in ("w", "b")}
    assert distance(model, kills_app.N) < 0.15
