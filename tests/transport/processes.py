"""A server and its clients on the link, each a process that may be killed and started again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flowerpress.simulations.loopback import free_port

ROOT = Path(__file__).parents[2]


class Processes:
    """The processes of a run, with their logs and memory in a folder.

    Parameters
    ----------
    folder : Path
    app : Path
        The app that all of them run.
    clients : int
    config : str
        The server's run config.
    """

    def __init__(self, folder: Path, app: Path, clients: int, config: str) -> None:
        self.folder, self.app, self.config, self.port = folder, app, config, free_port()
        self.clients = clients
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kills = {"server": 0, "client": 0}
        self.names = ["server", *(f"client-{i}" for i in range(clients))]
        for name in self.names:
            self.start(name)

    def start(self, name: str) -> None:
        address = f"127.0.0.1:{self.port}"
        if name == "server":
            words = ["serve", str(self.app), "--bind", address, "--min-clients", str(self.clients)]
            words += ["--resume", "--grace", "120", "--run-config", self.config]
        else:
            number = name.removeprefix("client-")
            words = ["join", str(self.app), "--server", address, "--client", number]
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

    def wait_for(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + 180  # a loaded machine takes a quarter of a minute for each start
        while not ready():
            assert time.monotonic() < end, self.log()
            time.sleep(0.005)

    def log(self) -> str:
        texts = [(self.folder / f"{name}.log").read_text()[-2000:] for name in self.names]
        return "\n".join([f"{self.kills} kills", *texts])

    def finish(self) -> None:
        """Wait for the server and then the clients to end, all of them well."""
        self.wait_for(lambda: self.processes["server"].poll() is not None)
        codes = [self.processes[name].wait(60) for name in self.names]
        assert codes == [0] * len(self.names), self.log()

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
