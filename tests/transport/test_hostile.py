"""Who may not log in, and what may not be sent: refused with a line in the log, and no harm."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from flowerpress.transport import Limits
from flowerpress.transport.certs import make_certs, read_certs
from flowerpress.transport.frames import METHOD, chunk, make, parse
from flowerpress.transport.join import make_client
from flowerpress.transport.limits import Lines

from .linked import (
    QUICK,
    ask_all,
    connected,
    echo_app,
    run_in_thread,
    start_server,
    wait_for,
)
from .proxy import Proxy

HELLO = make("hello", protocol=1, client=7)


# A connection each: gRPC would let channels of one process share theirs, and the server shuts down
# that of a client that keeps an ended stream open, with all that is on it.
_OWN = [("grpc.use_local_subchannel_pool", 1)]


class Raw:
    """A connection that sends what it is told, and keeps what it hears."""

    def __init__(self, port: int, *frames: bytes, certs: Any = None) -> None:
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        if certs is None:
            self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", _OWN)
        else:
            ca, cert, key = certs
            credentials = grpc.ssl_channel_credentials(ca, key, cert)
            self._channel = grpc.secure_channel(f"localhost:{port}", credentials, _OWN)
        self.call = self._channel.stream_stream(METHOD)(iter(self._out.get, None))
        self.send(*frames)

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self._out.put(frame)

    def hear_one(self) -> Any:
        """Return the next that is heard, None at the end."""
        try:
            return parse(next(self.call))
        except (grpc.RpcError, StopIteration):
            return None

    def heard(self) -> list[Any]:
        """Return all that is heard until the end of the connection."""
        found = []
        try:
            for frame in self.call:
                found.append(parse(frame))
        except grpc.RpcError as error:
            found.append(error.code())
        return found

    def close(self) -> None:
        self._out.put(None)
        self.call.cancel()
        self._channel.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """One server with one honest client, which all of these tests have to leave alone."""
    limits = Limits(clients=4, message=2**22, hello=0.5, heartbeat=0.5, grace=0.5, logins=6e4)
    with connected(echo_app(), 1, limits=limits) as (service, grid, _):
        yield service, grid


def served(grid: Any) -> bool:
    return not ask_all(grid, (2,), 10)[2].has_error()


def test_the_honest_client_is_served(server: Any) -> None:
    assert served(server[1])


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([b""], "cannot be read|no known kind"),
        ([b"\xff" * 100], "cannot be read"),
        ([chunk(b"hello")], "the first frame is no hello"),
        ([make("begin", id=1, size=5)], "the first frame is no hello"),
        ([make("hello", protocol=99, client=7)], "protocol 99"),
        ([make("hello", protocol=1, client=2**40)], "ids are below"),
        ([make("hello", protocol=1, client=7, node_config="[1]")], "no JSON object"),
        ([HELLO, HELLO], "a hello in mid-stream"),
        ([HELLO, chunk(b"x")], "belong to no answer"),
        ([HELLO, make("begin", id=5, size=2**30)], "an answer of"),
        ([HELLO, b"\xff\xff"], "cannot be read"),
        ([make("hello", protocol=1, client=0)], "client 0 is logged in already"),
        ([], "no hello came"),
    ],
    ids=range(13),
)
def test_what_may_not_be_said_ends_the_connection(
    server: Any, frames: list[bytes], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    service, grid = server
    caplog.set_level(logging.WARNING, "flowerpress")
    raw = Raw(service.port, *frames)
    last = raw.heard()[-1]
    raw.close()
    assert re.search(reason, last.reason)
    assert any(re.search(reason, record.getMessage()) for record in caplog.records)
    assert served(grid)


def test_a_frame_that_is_too_long_ends_the_connection(server: Any) -> None:
    service, grid = server
    raw = Raw(service.port, HELLO, bytes(8 * 2**20))
    assert raw.heard()[-1] is grpc.StatusCode.RESOURCE_EXHAUSTED
    raw.close()
    assert served(grid)


def test_no_more_clients_than_may_be(server: Any) -> None:
    service, grid = server
    raws = [Raw(service.port, make("hello", protocol=1, client=i)) for i in range(20, 30)]
    time.sleep(1)
    assert len(service.hub.peers) <= 4
    for raw in raws:
        raw.close()
    assert served(grid)


def test_who_logs_in_too_often_waits() -> None:
    with connected(echo_app(), 1, limits=QUICK) as (service, grid, _):
        last = []
        for _ in range(25):
            raw = Raw(service.port, HELLO)
            first = parse(next(raw.call))
            last.append(first)
            raw.close()
            time.sleep(0.02)
        assert any("too often" in getattr(frame, "reason", "") for frame in last)
        assert served(grid)


def resident() -> int:
    """Return this process's resident memory in bytes."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096


def hostile_frame(rng: np.random.Generator, number: int) -> bytes:
    """Return a frame that is wrong, or an answer to question `number` that is."""
    kind = rng.integers(7)
    if kind == 0:
        return rng.bytes(int(rng.integers(1, 2000)))
    if kind == 1:
        good = bytearray(make("begin", id=number, size=50, data=b"x" * 50))
        good[int(rng.integers(len(good)))] ^= 1 << int(rng.integers(8))
        return bytes(good)
    if kind == 2:
        return chunk(rng.bytes(int(rng.integers(2000))))
    if kind == 3:
        return make("begin", id=int(rng.integers(2**40)), size=2**22, data=b"x")
    if kind == 4:  # a long answer, of which little comes
        return make("begin", id=number, size=2**22, data=rng.bytes(1000))
    if kind == 5:  # an answer that is no message
        return make("begin", id=number, size=100, data=rng.bytes(100))
    return chunk(b"")


@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_hostile_frames_leave_nothing_behind(server: Any, count: int) -> None:
    """From a client that is asked a question whenever it has answered the last one."""
    service, grid = server
    rng, over = np.random.default_rng(0), threading.Event()
    raw = Raw(service.port, HELLO)
    raw.hear_one()

    def ask_on() -> None:
        while not over.is_set():
            ask_all(grid, (9,), 0.05)

    asking = threading.Thread(target=ask_on)
    asking.start()
    peer = service.hub.peers[7]
    sent = 0

    def attack(count: int) -> None:
        nonlocal raw, sent
        end = sent + count
        while sent < end:
            raw.close()
            raw = Raw(service.port, HELLO)
            if getattr(raw.hear_one(), "node_id", 0) != 9:  # the last connection still stands
                time.sleep(0.01)
                continue
            before = peer.counters.received
            while sent < end and peer.connected:
                raw.send(hostile_frame(rng, peer._asked))
                sent += 1
                if sent % 3 == 0:
                    time.sleep(0.002)  # let it be read, or the next be refused with this one
            # Something of each connection is read: of the last one, whose frames may be under way.
            wait_for(lambda before=before: peer.counters.received > before)

    try:
        attack(1000)  # caches, pools, threads
        before = resident()
        attack(count)
        assert peer.counters.malformed > count / 20
        assert resident() - before < 10e6 + 2e3 * count  # a stream or a thread each would be more
    finally:
        over.set()
        asking.join()
        raw.close()
    assert served(grid)


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The certificates of our CA, and those of another one."""
    ours, theirs = (tmp_path_factory.mktemp(name) for name in ("ours", "theirs"))
    make_certs(ours, 2)
    make_certs(theirs, 2)
    return ours, theirs


def test_identity_is_the_certificates(folders: tuple[Path, Path]) -> None:
    """A client with a certificate serves; it cannot log in as another, nor without one."""
    ours, theirs = folders
    service, report = start_server(
        lambda grid, context: time.sleep(2), 1, certs=read_certs(ours, "server")
    )
    target = f"localhost:{service.port}"
    honest = make_client(echo_app(), target, read_certs(ours, "client-0"), 0, node_config=LIVE)
    farewell = run_in_thread(honest.run)
    other = Raw(
        service.port, make("hello", protocol=1, client=0), certs=read_certs(ours, "client-1")
    )
    assert "client 1's certificate" in other.heard()[-1].reason
    for certs in (
        read_certs(theirs, "client-0"),
        (read_certs(ours, "client-0")[0], None, None),
    ):
        wrong = Raw(service.port, make("hello", protocol=1, client=0), certs=certs)
        assert wrong.heard() == [grpc.StatusCode.UNAVAILABLE]
    plain = Raw(service.port, make("hello", protocol=1, client=0))
    assert plain.heard() == [grpc.StatusCode.UNAVAILABLE]
    server_as_client = Raw(service.port, HELLO, certs=read_certs(ours, "server"))
    assert not any(getattr(frame, "node_id", 0) for frame in server_as_client.heard())
    counters = report.result(30)["clients"]
    assert set(counters) == {"0"}
    assert counters["0"]["logins"] == 1
    assert farewell.result(30).done


LIVE = {"state-store": "live"}


def test_a_second_login_of_a_proven_client_ends_the_first(folders: tuple[Path, Path]) -> None:
    ours, _ = folders
    service, report = start_server(
        lambda grid, context: time.sleep(2), 1, certs=read_certs(ours, "server")
    )
    target = f"localhost:{service.port}"
    clients = []
    for _ in range(2):
        client = make_client(echo_app(), target, read_certs(ours, "client-0"), 0, node_config=LIVE)
        clients.append(run_in_thread(client.run))
        time.sleep(0.7)
    done, reason = clients[0].result(30)
    assert not done
    assert "logged in again" in reason
    report.result(30)
    assert clients[1].result(30).done


@pytest.mark.parametrize("secure", [True, False])
def test_a_replayed_connection_gets_nothing(secure: bool, folders: tuple[Path, Path]) -> None:
    """All bytes that an honest client has said, said once more."""
    ours, _ = folders
    served = threading.Event()

    def main(grid: Any, context: Any) -> None:
        for _ in range(5):
            ask_all(grid, (2,), 10)
        served.wait(20)

    certs = {name: read_certs(ours, name) if secure else None for name in ("server", "client-0")}
    service, report = start_server(main, 1, certs=certs["server"])
    with Proxy(service.port) as proxy:
        honest = make_client(
            echo_app(), f"localhost:{proxy.port}", certs["client-0"], 0, node_config=LIVE
        )
        farewell = run_in_thread(honest.run)
        end = time.monotonic() + 20
        while honest.answered < 5:
            assert time.monotonic() < end
            time.sleep(0.02)
        said = b"".join(proxy.said)
        with socket.create_connection(("127.0.0.1", service.port)) as replay:
            replay.settimeout(1.0)
            replay.sendall(said)
            with contextlib.suppress(TimeoutError, ConnectionError):
                while replay.recv(2**16):
                    pass
        served.set()
        counters = report.result(30)["clients"]["0"]
        assert farewell.result(30).done
    assert (counters["logins"], counters["malformed"]) == (1, 0)
    assert service.hub.refusals == (0 if secure else 1)  # "client 0 is logged in already"


def test_failed_handshakes_leave_a_line(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """GRPC's own log, on stderr, says who was refused and why."""
    ours, theirs = folders
    log = tmp_path / "stderr"
    options = ["--bind", "127.0.0.1:0", "--min-clients", "1", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "flowerpress", "serve", "digits", "--certs", str(ours)]
    # Flower turns gRPC's log down where it is imported, as in this process.
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_VERBOSITY"}
    with log.open("wb") as stderr:
        process = subprocess.Popen([*command, *options], stderr=stderr, env=environment)
    try:
        port = int(wait_for_line(log, r"listening on port (\d+)"))
        ca = read_certs(ours, "client-0")[0]
        for key_pair in ((None, None), read_certs(theirs, "client-0")[1:]):
            raw = Raw(port, HELLO, certs=(ca, *key_pair))
            assert raw.heard() == [grpc.StatusCode.UNAVAILABLE]
            raw.close()
        wait_for_line(log, "PEER_DID_NOT_RETURN_A_CERTIFICATE")
        wait_for_line(log, "CERTIFICATE_VERIFY_FAILED")
    finally:
        process.kill()
        process.wait(20)


def wait_for_line(log: Path, pattern: str) -> str:
    """Return what the pattern finds in a log, once it is there."""
    end = time.monotonic() + 30  # a loaded machine takes some seconds to start a process
    while not (found := re.search(pattern, log.read_text(encoding="utf-8"))):
        assert time.monotonic() < end, pattern
        time.sleep(0.1)
    return found[found.re.groups]


def test_refusals_do_not_fill_the_log(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    service, grid = server
    hub = service.hub
    before = hub.refusals
    hub._lines = Lines()
    for number in range(500):
        hub.refuse("somewhere", f"reason {number}")
    assert hub.refusals == before + 500
    assert sum("somewhere: refused" in record.getMessage() for record in caplog.records) <= 52
    time.sleep(1.1)
    hub.refuse("somewhere", "the last")
    last = caplog.records[-1].getMessage()
    assert re.search(r"the last \(and \d+ lines like it that are left out\)$", last)
    assert served(grid)
