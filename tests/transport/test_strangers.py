"""Strangers who connect and prove nothing: they cost descriptors, but no round and no client."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerpress.cli.serve import clients_allowed
from flowerpress.simulations.loopback import free_port
from flowerpress.transport import Limits, descriptors, door
from flowerpress.transport.certs import make_certs, read_certs
from flowerpress.transport.frames import METHOD
from flowerpress.transport.join import make_client

from .linked import LIVE, ask_all, echo_app, run_in_thread, start_server
from .raw_http2 import PREFACE, call, frame, settings

# What a stranger says before it falls silent.
NOISE = b"GET / HTTP/1.1\r\n\r\n"
IN_PLAIN_TEXT = [
    b"",
    PREFACE,
    PREFACE + settings(0),
    PREFACE + settings(0) + frame(1, 0, 1, b"\x83"),  # the beginning of a call
    PREFACE + settings(0) + call(1, METHOD),  # and no hello
    PREFACE + settings(0) + call(1, "/some/Other"),
    NOISE,
]
WITH_TLS = [b"", b"\x16\x03\x01\x02\x00\x01\x00", NOISE]  # the second begins a handshake
CERTIFIED = ("server", "client-0", "client-1")
LIMITS = Limits(clients=3, hello=1.0, unknown=8, heartbeat=1.0, grace=3.0)


def end_of(stranger: socket.socket, end: float) -> bool:
    """Whether the other side closes a connection by then."""
    stranger.settimeout(max(0.01, end - time.monotonic()))
    try:
        while stranger.recv(2**16):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def invade(port: int, count: int, words: bytes) -> list[socket.socket]:
    """Open so many connections that say this, and no more."""
    strangers = []
    for _ in range(count):
        stranger = socket.create_connection(("127.0.0.1", port), timeout=5)
        with contextlib.suppress(ConnectionError):  # it may be closed already
            stranger.sendall(words)
        strangers.append(stranger)
    return strangers


def held(port: int) -> int:
    """Return how many connections this process has accepted on a port."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(int(f[1].rpartition(":")[2], 16) == port and f[3] == "01" for f in fields)


@pytest.mark.parametrize("secure", [False, True], ids=["plain text", "TLS"])
def test_strangers_have_their_time_and_no_more(
    secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get no more connections than there are, and the clients notice nothing."""
    monkeypatch.setattr(descriptors, "STRANGERS", 60)
    monkeypatch.setattr(door, "LAST_WORDS", 0.3)
    make_certs(tmp_path, 2)
    certs = {name: read_certs(tmp_path, name) if secure else None for name in CERTIFIED}
    over, bad = threading.Event(), list[Any]()

    def main(grid: Any, context: Any) -> None:
        while not over.wait(0.02):
            bad.extend(r for r in ask_all(grid, (2,), 5).values() if r.has_error())

    service, report = start_server(main, 1, certs=certs["server"], limits=LIMITS)
    target = f"localhost:{service.port}"
    clients = [
        make_client(echo_app(), target, certs[f"client-{i}"], i, node_config=LIVE) for i in (0, 1)
    ]
    farewells = [run_in_thread(clients[0].run)]
    wait_for(lambda: clients[0].answered > 3)
    kinds = WITH_TLS if secure else IN_PLAIN_TEXT
    strangers = [each for words in kinds for each in invade(service.port, 30, words)]
    time.sleep(0.5)  # for what is refused to be closed; those who may wait have a second
    assert held(service.port) <= 2 * LIMITS.clients + 60
    end = time.monotonic() + 8
    assert all(end_of(stranger, end) for stranger in strangers)
    for stranger in strangers:
        stranger.close()
    farewells.append(run_in_thread(clients[1].run))
    wait_for(lambda: clients[1].logins == 1)
    answered = clients[0].answered
    wait_for(lambda: clients[0].answered > answered)
    over.set()
    report.result(30)
    assert [farewell.result(30).done for farewell in farewells] == [True, True]
    assert bad == []
    assert [client.logins for client in clients] == [1, 1]


def wait_for(ready: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- descriptors ----------------------------------------------------------------------------------


class Machine:
    """A machine that allows so many open files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> None:
        self.limits = (soft, hard)
        monkeypatch.setattr(resource, "getrlimit", lambda which: self.limits)
        monkeypatch.setattr(resource, "setrlimit", self.set)
        monkeypatch.setattr(descriptors, "_open_now", lambda: 20)

    def set(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "clients", "raised", "room"),
    [
        (1024, 4096, 256, 4096, 1024),  # all that is wanted
        (1024, 1024, 256, 1024, 428),  # what 20 open files, 64 others and 512 answers leave
        (256, resource.RLIM_INFINITY, 256, 65_536, 1024),
        (1024, 1024, 2, 1024, 516),
        (1_000_000, 1_000_000, 256, 1_000_000, 1024),
    ],
)
def test_the_soft_limit_is_raised_and_files_are_kept_in_reserve(
    soft: int, hard: int, clients: int, raised: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, soft, hard)
    assert descriptors.room_for_connections(clients) == room
    assert machine.limits == (raised, hard)
    assert room + 20 + 64 + 2 * clients <= raised


def test_more_clients_than_open_files_are_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Machine(monkeypatch, 512, 512)
    with pytest.raises(
        ValueError,
        match=r"256 clients take 884 open files.* 512: raise `ulimit.*LimitNOFILE.*--max-clients",
    ):
        descriptors.room_for_connections(256)


@pytest.mark.parametrize(
    ("hard", "fitting", "raised"),
    [(1024, 270, 1024), (4096, 1294, 4096), (20_000, 2048, 20_000), (1_000_000, 2048, 65_536)],
)
def test_as_many_clients_may_log_in_as_open_files_allow(
    hard: int, fitting: int, raised: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless somebody has said how many: then all of them fit, or the server does not start."""
    machine = Machine(monkeypatch, 1024, hard)
    assert descriptors.clients_that_fit(2048) == fitting
    assert machine.limits == (raised, hard)
    assert descriptors.room_for_connections(fitting) >= fitting + 128


def test_the_soft_limit_is_raised_to_what_very_many_clients_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, 1024, resource.RLIM_INFINITY)
    assert descriptors.room_for_connections(50_000) == 100_512
    assert machine.limits[0] == 20 + 64 + 100_000 + 100_512


def test_who_says_nothing_is_told_how_many_clients_there_may_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Machine(monkeypatch, 1024, 1024)
    assert clients_allowed(2, None) == 270
    assert "room for 270 clients: for more, raise the hard limit" in capsys.readouterr().err
    assert clients_allowed(500, None) == 500  # which does not fit, as listening says
    assert clients_allowed(2, 1000) == 1000
    with pytest.raises(ValueError, match="--min-clients 3 is more than --max-clients 2"):
        clients_allowed(3, 2)


def test_a_server_without_descriptors_lets_its_clients_wait() -> None:
    """What the machine lacks is mended, and the server started again: clients are to come back."""

    def main(grid: Any, context: Any) -> None:
        raise OSError(24, "Too many open files")

    service, report = start_server(main, 1, limits=LIMITS)
    client = make_client(
        echo_app(), f"127.0.0.1:{service.port}", None, 0, node_config=LIVE, patience=1.0
    )
    farewell = run_in_thread(client.run)
    with pytest.raises(OSError, match="Too many open files"):
        report.result(30)
    assert "was not reached" in farewell.result(30).reason  # so it did try again


# --- at full scale --------------------------------------------------------------------------------

APP = """
import time
import numpy as np
from flwr.serverapp import ServerApp
from flowerpress.clients import FunctionTask, client_app as make
from flowerpress.strategies import make_strategy

def task_fn(i, n):
    def gradient(x, batch):
        time.sleep(0.25)
        return 0.0, x - np.float32(i)
    return FunctionTask(np.zeros(500, "f4"), gradient)

client_app = make(task_fn)
server_app = ServerApp()

@server_app.main()
def main(grid, context):
    with open("times.txt", "w", buffering=1) as times:
        strategy = make_strategy("ef21", compressor="topk:0.1", lr=0.1, min_available_nodes=4)
        initial = task_fn(0, 4).initial_arrays()
        note = lambda server_round, arrays: times.write(f"{time.time()}\\n") and None
        strategy.start(grid, initial, num_rounds=10_000, evaluate_fn=note)
"""


class Run:
    """A server that may have 1,024 open files, and four clients, with certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        (folder / "app.py").write_text(APP, encoding="utf-8")
        make_certs(folder / "certs", 4)
        words = ["--bind", f"127.0.0.1:{self.port}", "--min-clients", "4", "--out", "out"]
        self.processes = {"server": self.start("server", "serve", *words)}
        for i in range(4):
            words = ["--server", f"localhost:{self.port}", "--client", str(i), "--state-dir", "s"]
            self.processes[f"client-{i}"] = self.start(f"client-{i}", "join", *words)

    def start(self, name: str, command: str, *words: str) -> subprocess.Popen[bytes]:
        call = [sys.executable, "-m", "flowerpress", command, "app.py", "--certs", "certs", *words]
        limited = ["sh", "-c", 'ulimit -n 1024 && exec "$@"', "sh", *call]
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(limited, stdout=log, stderr=log, cwd=self.folder)

    def times(self) -> list[float]:
        file = self.folder / "times.txt"
        text = file.read_text(encoding="ascii") if file.exists() else ""
        return [float(line) for line in text.split("\n")[:-1]]

    def end(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_eleven_hundred_and_ten_thousand_idle_connections(tmp_path: Path) -> None:
    """No round is late by more than the round before, and nobody ends."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    run = Run(tmp_path)
    try:
        wait_for(lambda: len(run.times()) > 8, 90)
        begun = time.time()
        strangers = invade(run.port, 1100, b"")
        time.sleep(12)  # longer than they may stay
        for _ in range(10):
            wave = invade(run.port, 1000, b"")
            time.sleep(0.3)
            for stranger in wave:
                stranger.close()
        time.sleep(2)
        for stranger in strangers:
            stranger.close()
        codes = {name: process.poll() for name, process in run.processes.items()}
        assert codes == dict.fromkeys(run.processes), (tmp_path / "server.log").read_text()
        times = np.array(run.times())
    finally:
        run.end()
    assert (times > begun).sum() > 30
    rounds = np.diff(times)[3:]
    print(f"{len(rounds)} rounds of {np.median(rounds):.2f} s, the longest {rounds.max():.2f} s;")
    print(f"at most {(rounds[1:] / rounds[:-1]).max():.2f} times the one before")
    assert (rounds[1:] <= 2 * rounds[:-1]).all(), rounds
