"""A certified client that opens many streams and takes nothing: nobody waits for it."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from flowerpress.transport import Limits, door
from flowerpress.transport.certs import make_certs, read_certs
from flowerpress.transport.frames import METHOD, make
from flowerpress.transport.join import make_client

from .linked import LIVE, ask_all, echo_app, run_in_thread, start_server
from .raw_http2 import DATA, call, connect, frame
from .test_link import large

HELLO = make("hello", protocol=1, client=3)
BEAT = make("beat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certs")
    make_certs(made, 4)
    return made


SAID = (HELLO, b"", b"\xff")  # each is to be answered, or refused, in a way of its own


def streams_of(number: int) -> bytes:
    """Return the bytes that open so many streams of one connection."""
    return b"".join(call(2 * i + 1, METHOD, SAID[i % len(SAID)]) for i in range(number))


@pytest.mark.parametrize("each", [300, 3], ids=["one connection", "100 connections"])
def test_300_stalled_streams_keep_nobody_out(folder: Path, each: int) -> None:
    """Each has a window of 0, so that no byte of an answer can be sent to it."""
    over = threading.Event()
    service, report = start_server(
        lambda grid, context: over.wait(60), 1, certs=read_certs(folder, "server"), limits=Limits()
    )
    evil = read_certs(folder, "client-3")
    links = []
    for _ in range(300 // each):
        links.append(connect(service.port, evil))
        links[-1].sendall(streams_of(each))
    begun = time.monotonic()
    honest = make_client(
        echo_app(), f"localhost:{service.port}", read_certs(folder, "client-0"), 0, node_config=LIVE
    )
    farewell = run_in_thread(honest.run)
    while not honest.logins:
        assert time.monotonic() - begun < 2
        time.sleep(0.01)
    print(f"the other client is in after {time.monotonic() - begun:.2f} s")
    threads = sum(thread.name.startswith("link") for thread in threading.enumerate())
    assert threads < 100  # and not one or two for each stream
    for link in links:
        link.close()
    over.set()
    report.result(30)
    assert farewell.result(30).done


def test_what_is_not_taken_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is there, gives signs of life, and takes none of a question of 20 MB."""
    monkeypatch.setattr(door, "LAST_WORDS", 0.3)
    got: list[Any] = []

    def main(grid: Any, context: Any) -> None:
        sent = [Message(large(20 * 2**20), 5, "train"), Message(large(10), 2, "train")]
        got.extend(grid.send_and_receive(sent, timeout=60))
        got.append(ask_all(grid, (2,), 10)[2])

    service, report = start_server(
        main,
        2,
        certs=read_certs(folder, "server"),
        limits=Limits(heartbeat=0.4, grace=0.5),
    )
    honest = make_client(
        echo_app(), f"localhost:{service.port}", read_certs(folder, "client-0"), 0, node_config=LIVE
    )
    farewell = run_in_thread(honest.run)
    link = connect(service.port, read_certs(folder, "client-3"), window=1000)
    link.sendall(call(1, METHOD, HELLO))
    begun = time.monotonic()
    while len(got) < 3:
        assert time.monotonic() - begun < 20
        with contextlib.suppress(OSError):  # once it is closed, which is right
            link.sendall(frame(DATA, 0, 1, struct.pack(">BI", 0, len(BEAT)) + BEAT))
        time.sleep(0.1)
    link.close()
    report.result(30)
    assert "client 3 is away" in str(got[0].error.reason)
    assert not got[1].has_error()
    assert not got[2].has_error()
    assert farewell.result(30).done
