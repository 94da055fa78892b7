"""Certificates that are shut out, and certificates of which there are two holders."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowerpress.cli import main as command
from flowerpress.transport import Limits
from flowerpress.transport.certs import CertificateError, make_certs, read_certs, revoke_certificate
from flowerpress.transport.denied import DENY_LIST, DenyList, read_denied
from flowerpress.transport.join import make_client

from .linked import LIVE, ask_all, echo_app, run_in_thread, start_server

BRISK = Limits(heartbeat=0.3, grace=3.0, hello=2.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_certs(tmp_path / "certs", 3)
    return tmp_path / "certs"


def wait_for(ready: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Served]]:
    """Start a server that is ended after the test, however that goes."""
    started: list[Served] = []

    def start(**options: Any) -> Served:
        started.append(Served(folder, **options))
        return started[-1]

    yield start
    for served in started:
        served.end()


class Served:
    """A server with certificates that asks client 0 again and again, until it is told to stop."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder, self.over = folder, threading.Event()
        self.errors = 0

        def main(grid: Any, context: Any) -> None:
            while not self.over.wait(0.02):
                self.errors += ask_all(grid, (2,), 5)[2].has_error()

        certs = read_certs(folder, "server")
        self.service, self.report = start_server(main, 1, certs=certs, limits=BRISK, **options)

    def join(self, client: int, certs: Any = None, **more: Any) -> tuple[Any, Any]:
        certs = certs or read_certs(self.folder, f"client-{client}")
        link = make_client(
            echo_app(), f"localhost:{self.service.port}", certs, client, node_config=LIVE, **more
        )
        return link, run_in_thread(link.run)

    def end(self) -> None:
        self.over.set()
        self.report.result(30)


def test_a_revoked_certificate_is_shut_out_while_the_server_serves(
    folder: Path, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection ends, it comes in no more, and made anew it does; others notice nothing."""
    served = serve(denied=folder / DENY_LIST)
    honest, other = served.join(0), served.join(2)
    wait_for(lambda: honest[0].answered > 3 and other[0].logins)
    stolen = read_certs(folder, "client-2")
    assert command(["certs", str(folder), "--revoke", "client-2"]) == 0
    begun = time.monotonic()
    done, reason = other[1].result(10)
    assert (done, reason) == (False, "the certificate of client 2 has been revoked")
    assert time.monotonic() - begun < 3
    assert served.service.hub.online() == [served.service.hub.peers[0]]  # it is not waited for
    again = served.join(2, stolen)
    assert again[1].result(10) == (False, "the certificate of client 2 has been revoked")
    assert again[0].mistaken  # exit code 2: a service manager does not start it for ever
    assert again[0].logins == 0
    assert command(["certs", str(folder), "--clients", "3"]) == 0
    renewed = read_certs(folder, "client-2")
    assert renewed.key != stolen.key
    anew = served.join(2)
    wait_for(lambda: anew[0].logins == 1)
    assert served.join(2, stolen)[1].result(10).reason.endswith("has been revoked")
    served.end()
    assert honest[1].result(30).done
    assert anew[1].result(30).done
    assert (honest[0].logins, served.errors) == (1, 0)
    assert "its connection is ended" in caplog.text


def test_a_list_that_is_damaged_while_the_server_serves_changes_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = folder / DENY_LIST
    revoke_certificate(folder, "client-1")
    revoked = DenyList(file)
    (digest,) = read_denied(file)
    assert digest in revoked
    assert not revoked.look()
    file.write_text("0123 client-0\n", encoding="utf-8")
    assert not revoked.look()
    assert "line 1: expected the SHA-256 of a key and a name" in caplog.text
    assert digest in revoked
    file.unlink()
    assert revoked.look()
    assert digest not in revoked


@pytest.mark.parametrize("content", [b"0123 client-0\n", b"\xff\xfe", b"x" * 70 + b" client-0"])
def test_a_list_that_is_damaged_stops_the_start(folder: Path, content: bytes) -> None:
    (folder / DENY_LIST).write_bytes(content)
    with pytest.raises(ValueError, match="revoked"):
        DenyList(folder / DENY_LIST)


def test_revoking_twice_or_nobody(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert revoke_certificate(folder, "client-1")
    assert not revoke_certificate(folder, "client-1")
    assert len(read_denied(folder / DENY_LIST)) == 1
    assert command(["certs", str(folder), "--revoke", "client-1"]) == 0
    assert "client-1 was revoked already" in capsys.readouterr().out
    with pytest.raises(CertificateError, match=r"no file .*client-7.pem"):
        revoke_certificate(folder, "client-7")
    for name in ("server", "client-", "../client-0", "client-0.pem"):
        with pytest.raises(ValueError, match="the name of a client"):
            revoke_certificate(folder, name)
    assert command(["certs", str(folder)]) == 2
    assert "--clients N" in capsys.readouterr().err


def test_an_expired_certificate_of_a_revoked_key_gets_another_key(folder: Path) -> None:
    """A certificate is made anew for the key that is there: not for one that was stolen."""
    before = (folder / "client-1.key").read_bytes()
    revoke_certificate(folder, "client-1")
    make_certs(folder, 3)
    assert (folder / "client-1.key").read_bytes() != before
    assert (folder / "client-0.key").exists()
    make_certs(folder, 3)  # and it stays then
    read_certs(folder, "client-1")


# --- two processes with one certificate -----------------------------------------------------------


def test_a_second_process_with_a_stolen_certificate_is_said_on_all_sides(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The newer one works, the older is sent away for a while; it comes back, and works again."""
    caplog.set_level(logging.INFO, "flowerpress")
    served = serve()
    honest = served.join(0)
    wait_for(lambda: honest[0].answered > 3)
    thief = served.join(0)
    wait_for(lambda: thief[0].answered > 3)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    advice = "flowerpress certs DIR --revoke client-0"
    assert any("client 0 logs in again, as another process" in s and advice in s for s in said)
    assert any("localhost" in s and "this client has logged in again" in s for s in said)
    assert any("another process of this client was connected" in s and advice in s for s in said)
    before = honest[0].answered
    wait_for(lambda: honest[0].answered > before + 3)  # after 0.9 s here, 15 s by default
    assert not honest[1].done()
    served.end()
    outcomes = [each[1].result(30) for each in (honest, thief)]
    assert outcomes[0].done
    assert "this client has logged in again" in outcomes[1].reason  # it does not wait for a server


def test_a_client_that_connects_again_is_no_second_process(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its network was away: the server believes the old connection alive, and takes the new one."""
    served = serve()
    client = served.join(0)
    wait_for(lambda: client[0].answered > 3)
    peer = served.service.hub.peers[0]
    stream = peer._stream
    client[0]._stream.hang_up()
    wait_for(lambda: client[0].logins == 2 and peer._stream is not stream)
    assert "another process" not in caplog.text
    served.end()
    assert client[1].result(30).done
