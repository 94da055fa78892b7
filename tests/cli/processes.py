"""`serve` and `join` as a user types them, each a process that ends with its test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Processes:
    """Processes of one test, ended with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *words: object) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.all[name] = subprocess.Popen(
                [sys.executable, "-m", "flowerpress", *map(str, words)],
                stderr=log,
                stdout=log,
                cwd=self.folder,
            )
        return self.all[name]

    def serve(self, app: object, clients: int, *words: object, name: str = "serve") -> int:
        """Start a server; returns its port."""
        self.start(name, "serve", app, "--min-clients", clients, "--out", "out", *words)
        return int(self.wait_for(name, r"listening on port (\d+)"))

    def join(self, app: object, port: int, i: int, *words: object) -> subprocess.Popen[bytes]:
        words = ("--server", f"localhost:{port}", "--client", i, "--state-dir", "state", *words)
        return self.start(f"join{i}", "join", app, *words)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def wait_for(self, name: str, pattern: str) -> str:
        end = time.monotonic() + 60  # starting Python with torch or numba takes seconds
        while not (found := re.search(pattern, self.log(name))):
            assert time.monotonic() < end, self.log(name)
            time.sleep(0.05)
        return found[found.re.groups]

    def ended(self, name: str) -> int:
        return self.all[name].wait(60)

    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "out" / "result.json").read_text(encoding="utf-8"))

    def end(self) -> None:
        """Kill those that are left."""
        for process in self.all.values():
            if process.poll() is None:
                process.kill()
            process.wait()
