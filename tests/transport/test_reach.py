"""A server that cannot be reached: why, what to do, and for how long a client tries."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from flowerpress.transport.address import Address
from flowerpress.transport.attempts import Attempts
from flowerpress.transport.certs import make_certs, read_certs
from flowerpress.transport.join import make_client
from flowerpress.transport.reach import Trouble, explain, proxy_of

from .linked import LIVE, echo_app, run_in_thread, start_server

FAR = Address("far.example", 9400)
# What gRPC 1.70 and 1.85 say.
DETAILS = {
    "Ssl handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:"
    "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate": (
        "another authority than ca.pem",
        True,
    ),
    "CERTIFICATE_VERIFY_FAILED: certificate has expired": ("has expired", True),
    "UNKNOWN: ipv4:127.0.0.1:38307: Custom verification check failed with error: UNAUTHENTICATED: "
    "Hostname Verification Check failed.": ("--host far.example", True),
    "UNKNOWN: ipv4:127.0.0.1:40443: Peer name vm is not in peer certificate": ("--host", True),
    "SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER": ("does not speak TLS", True),
    "UNAVAILABLE: ipv4:127.0.0.1:38307: Socket closed": ("may not know the authority", False),
    "recvmsg:Connection reset by peer": ("may not know the authority", False),
    "Failed to connect to remote host: Connection refused": ("", False),
    "errors resolving far.example:9400: Domain name not found": ("", False),
}


@pytest.mark.parametrize("details", DETAILS)
def test_what_grpc_says_is_explained(details: str) -> None:
    hint, lasting = DETAILS[details]
    trouble = explain(details, FAR, secure=True, proxy="through the proxy p:3128")
    assert hint in trouble.hint
    assert bool(trouble.hint) == bool(hint)
    assert trouble.lasting == lasting
    assert trouble.reason == f"{details[:200]} (through the proxy p:3128)"


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, ""),
        ({"http_proxy": "http://p:1"}, "p:1 of http_proxy"),
        ({"http_proxy": "http://p:1", "https_proxy": "q:2"}, "q:2 of https_proxy"),
        ({"grpc_proxy": "http://me:secret@r:3/", "https_proxy": "q:2"}, "r:3 of grpc_proxy"),
        ({"https_proxy": "q:2", "no_proxy": "near.example, .far.example"}, "q:2 of https_proxy"),
        ({"https_proxy": "q:2", "no_proxy": "near.example,far.example"}, ""),
        ({"https_proxy": "q:2", "no_proxy": ".example"}, ""),
        ({"https_proxy": "q:2", "no_grpc_proxy": "x", "no_proxy": "far.example"}, "q:2 of"),
        ({"https_proxy": ""}, ""),
    ],
)
def test_a_proxy_of_the_environment_is_named(environment: dict[str, str], proxy: str) -> None:
    said = proxy_of(FAR, environment)
    assert proxy in said
    assert bool(said) == bool(proxy)
    assert "secret" not in said
    assert proxy_of(Address("127.0.0.1", 9400), environment) == ""


def test_blocks_of_addresses_go_round_a_proxy() -> None:
    environment = {"https_proxy": "q:2", "no_proxy": "10.0.0.0/8"}
    assert proxy_of(Address("10.1.2.3", 9400), environment) == ""
    assert "q:2" in proxy_of(Address("11.1.2.3", 9400), environment)


def test_loopback_goes_round_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    service, report = start_server(lambda grid, context: None, 1)
    client = make_client(
        echo_app(), f"127.0.0.1:{service.port}", None, 0, node_config=LIVE, patience=5
    )
    farewell = run_in_thread(client.run)
    report.result(30)
    assert farewell.result(30).done


def test_a_proxy_that_is_in_the_way_is_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    client = make_client(echo_app(), "far.example:9400", None, 0, node_config=LIVE, patience=0.1)
    done, reason = client.run()
    assert not done
    assert "through the proxy 127.0.0.1:9 of https_proxy; no_proxy=far.example goes round" in reason


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of ours, of others, and of ours for another host."""
    root = tmp_path_factory.mktemp("certs")
    make_certs(root / "ours", 1)
    make_certs(root / "theirs", 1)
    make_certs(root / "elsewhere", 1, hosts=("far.example",))
    return root


@pytest.mark.parametrize(
    ("server", "client", "hint"),
    [
        ("ours", "theirs", "shows a certificate of another authority than ca.pem"),
        ("elsewhere", "elsewhere", "names other hosts: make it with `flowerpress certs DIR --host"),
        (None, "ours", "does not speak TLS: was the server started with --insecure?"),
    ],
)
def test_a_wrong_certificate_is_said_within_seconds(
    server: str | None, client: str, hint: str, certs: Path
) -> None:
    pair = None if server is None else read_certs(certs / server, "server")
    service, _ = start_server(lambda grid, context: None, 1, certs=pair)
    own = read_certs(certs / client, "client-0")
    begun = time.monotonic()
    link = make_client(echo_app(), f"localhost:{service.port}", own, 0, node_config=LIVE)
    done, reason = link.run()
    assert not done
    assert link.mistaken
    assert hint in reason
    assert "\n" not in reason
    assert time.monotonic() - begun < 5  # of 600 s of patience
    service._server.close(0)


@pytest.mark.parametrize(
    ("client", "hint"),
    [
        (None, "the server may want certificates (--certs)"),
        ("stranger", "the server may not know the authority of this client's certificate"),
    ],
)
def test_where_the_server_says_no_a_hint_comes_soon(
    client: str | None, hint: str, certs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may also be full, so the client goes on trying."""
    pair = read_certs(certs / "ours", "server")
    service, _ = start_server(lambda grid, context: None, 1, certs=pair)
    theirs = read_certs(certs / "theirs", "client-0")
    own: Any = None if client is None else theirs._replace(ca=pair.ca)
    link = make_client(
        echo_app(), f"localhost:{service.port}", own, 0, node_config=LIVE, patience=1.0
    )
    done, reason = link.run()
    assert (done, link.mistaken) == (False, False)
    assert hint in reason
    assert sum(hint in record.getMessage() for record in caplog.records) == 1
    service._server.close(0)


class Clock:
    """A clock that goes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_attempts_become_rare_and_end_with_the_patience() -> None:
    clock = Clock()
    attempts = Attempts("h:1", 600, clock)
    waits = []
    while not (reason := attempts.failed("refused", Trouble("refused"))):
        waits.append(attempts.wait())
        clock.now += waits[-1]
    assert reason == "h:1 was not reached: refused"
    assert 600 < clock.now < 615
    assert 0.05 <= waits[0] <= 0.1
    assert all(7.5 <= wait <= 15 for wait in waits[8:])


def test_a_trouble_that_lasts_is_not_believed_once_the_server_was_reached() -> None:
    """Its certificate may be being made anew."""
    trouble = Trouble("no", "look there", lasting=True)
    clock = Clock()
    never, once = Attempts("h:1", 600, clock), Attempts("h:1", 600, clock)
    once.connected()
    once.ended("gone")
    assert [never.failed("no", trouble) for _ in range(3)] == ["", "", "h:1: look there [no]"]
    assert [once.failed("no", trouble) for _ in range(3)] == ["", "", ""]
    assert (never.in_vain, once.in_vain) == (True, False)


def test_who_was_replaced_waits_as_it_was_told_and_for_no_server() -> None:
    clock = Clock()
    attempts = Attempts("h:1", 600, clock)
    attempts.connected()
    attempts.replaced("another has come", 15.0)
    attempts.ended("another has come")
    assert attempts.wait() == 15.0
    clock.now = 15.1
    assert attempts.failed("refused", None) == ""  # one failure is none
    assert attempts.wait() < 1
    clock.now = 19.0
    assert attempts.failed("refused", None) == (
        "another has come; then h:1 was not reached: refused"
    )
    attempts.connected()
    attempts.ended("gone")
    clock.now = 300.0
    assert attempts.failed("refused", None) == ""  # and now it has the place again
