"""Flower's own engines as real processes on this machine, for trials and tests.

`Loopback` starts a SuperLink, and SuperNodes where it is not a Ray simulation, on free ports of the
loopback interface. Flower's home, logs and states are in one folder, telemetry is off, and leaving
the block ends every process it started, each by its own id.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
_PORTS = range(15_000, 32_000)  # none of these is given to outgoing connections, on Linux
COMPLETED = "finished:completed"
_CONNECTION = "loopback"
_START_LIMIT = 120.0  # seconds for a process to be ready; a loaded machine takes half a minute
_END_LIMIT = 15.0  # seconds for a process to end by itself
_ORPHAN_LIMIT = 10.0  # what is left of a group that was told to end

Value = bool | int | float | str


class LoopbackError(RuntimeError):
    """A process did not start, or a run did not end: says which, and where its log is."""


@dataclass(frozen=True)
class RunReport:
    """A run that has ended, as `flwr list` tells it.

    Parameters
    ----------
    status : str
        ``finished:completed`` if all went well.
    up_bytes, down_bytes : int
        Flower's own account: bytes of messages and objects from and to the clients, without HTTP
        heads. Zero in a Ray simulation, where nothing is sent.
    seconds : float
        From submitting the run to its end.
    """

    status: str
    up_bytes: int
    down_bytes: int
    seconds: float


@dataclass
class Loopback:
    """A SuperLink on the loopback interface, and its SuperNodes.

    Parameters
    ----------
    folder : Path
        Gets ``home`` (Flower's files), ``logs``, and whatever the runs write.
    simulation : bool (default: False)
        Run the clients in Ray instead of SuperNodes.

    Raises
    ------
    LoopbackError
        A process ended or was not ready in time.
    """

    folder: Path
    simulation: bool = False
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Loopback:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._port = free_port()
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\n'
            f'address = "{HOST}:{self._port}"\ninsecure = true\n',
            encoding="utf-8",
        )
        options = ["--host", HOST, "--port", str(self._port)]
        options += ["--disable-runtime-dependency-installation"]
        options += ["--simulation"] if self.simulation else []
        try:
            self._start("superlink", "flower-superlink", "--insecure", *options)
            self._wait_healthy("superlink", self._port)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def _logs(self) -> Path:
        return self.folder / "logs"

    def log(self, name: str) -> str:
        """Return what process `name` ("superlink", "run", a node's name) has written."""
        return (self._logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def start_node(self, name: str, config: Mapping[str, Value]) -> None:
        """Start a SuperNode with this node config; returns once the SuperLink knows it."""
        port = free_port()
        options = ["--superlink", f"{HOST}:{self._port}", "--host", HOST, "--port", str(port)]
        self._start(
            name, "flower-supernode", "--insecure", *options, "--node-config", as_toml(config)
        )
        self._wait_until(name, lambda: "SuperNode ID" in self.log(name))

    def kill_node(self, name: str) -> None:
        """End a SuperNode as a power cut would: at once, without a goodbye."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()
        _end_group(process.pid)

    def run(
        self,
        app: Path,
        run_config: Mapping[str, Value],
        *,
        federation_config: Mapping[str, Value] | None = None,
        limit: float = 600.0,
    ) -> RunReport:
        """Run a Flower App to its end.

        Parameters
        ----------
        app : Path
            The app's directory.
        run_config, federation_config : mapping
            What is set by ``--run-config`` and ``--federation-config``.
        limit : float
            Seconds after which the run is given up.

        Raises
        ------
        LoopbackError
            The run was not accepted, or did not end within `limit`.
        """
        start = time.monotonic()
        command = ["run", str(app), _CONNECTION, "--stream", "--run-config", as_toml(run_config)]
        if federation_config:
            command += ["--federation-config", as_toml(federation_config)]
        process = self._start("run", "flwr", *command)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise LoopbackError(
                f"the run has not ended after {limit:g} s\n{self._tail('run')}"
            ) from None
        if code:
            raise LoopbackError(f"flwr run ended with code {code}\n{self._tail('run')}")
        # The stream ends a moment before the run does, and its exit code says nothing about it.
        while True:
            last = self._last_run()
            if str(last["status"]).startswith("finished"):
                break
            if time.monotonic() - start > limit:
                raise LoopbackError(f"the run is still {last['status']} after {limit:g} s")
            time.sleep(1.0)
        traffic = last.get("network-traffic", {})
        return RunReport(
            str(last["status"]),
            int(traffic.get("inbound-bytes", 0)),
            int(traffic.get("outbound-bytes", 0)),
            time.monotonic() - start,
        )

    def _last_run(self) -> dict[str, Any]:
        done = subprocess.run(  # noqa: S603  (Flower's own program, no shell)
            [_program("flwr"), "list", _CONNECTION, "--format", "json"],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=_START_LIMIT,
            check=False,
        )
        try:
            run: dict[str, Any] = json.loads(done.stdout)["runs"][0]  # the newest
        except (ValueError, LookupError):
            raise LoopbackError(f"flwr list gave no run: {done.stdout}{done.stderr}") from None
        return run

    def close(self) -> None:
        """End all processes: nodes first, then the SuperLink, then what they left behind."""
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in reversed(self._processes.values()):
            try:
                process.wait(_END_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _end_group(process.pid)
        self._processes.clear()

    def _start(self, name: str, program: str, *options: str) -> subprocess.Popen[bytes]:
        # Each in a process group of its own, so that what it starts can be ended with it.
        with (self._logs / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603  (likewise)
                [_program(program), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,
            )
        return self._processes[name]

    def _environment(self) -> dict[str, str]:
        own = {
            "FLWR_HOME": str(self.folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLOWERPRESS_STATE_DIR": str(self.folder / "state"),
            # Flower starts its further programs by name.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        return {**os.environ, **own}

    def _wait_healthy(self, name: str, port: int) -> None:
        def healthy() -> bool:
            try:
                with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2) as answer:
                    return bool(answer.status == 200)
            except (urllib.error.URLError, OSError):
                return False

        self._wait_until(name, healthy)

    def _wait_until(self, name: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + _START_LIMIT
        while not ready():
            if (code := self._processes[name].poll()) is not None:
                raise LoopbackError(f"{name} ended with code {code}\n{self._tail(name)}")
            if time.monotonic() > end:
                raise LoopbackError(
                    f"{name} was not ready after {_START_LIMIT:g} s\n{self._tail(name)}"
                )
            time.sleep(0.2)

    def _tail(self, name: str, lines: int = 30) -> str:
        return "\n".join(self.log(name).splitlines()[-lines:])


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on now."""
    while True:
        with socket.socket() as listener, suppress(OSError):
            listener.bind((HOST, secrets.choice(_PORTS)))
            return int(listener.getsockname()[1])


def as_toml(config: Mapping[str, Value]) -> str:
    """Return `config` as Flower's command line takes it.

    >>> as_toml({"lr": 0.5, "compressor": "topk:0.05", "client-compressors": True})
    'lr=0.5 compressor="topk:0.05" client-compressors=true'
    """
    return " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())


def _program(name: str) -> str:
    """Return the path of a program installed beside this Python."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise LoopbackError(f"{path} is not there: pip install 'flwr[simulation]' in this Python")
    return str(path)


def _end_group(group: int) -> None:
    """End what is left of a process group; its leader has ended."""
    end = time.monotonic() + _ORPHAN_LIMIT
    number = signal.SIGTERM
    while time.monotonic() < end:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.2)
        number = signal.SIGTERM if time.monotonic() < end - _ORPHAN_LIMIT / 2 else signal.SIGKILL
