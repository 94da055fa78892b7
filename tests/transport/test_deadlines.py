"""What is done once a time has come: silence, absence, and nothing before."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from flowerpress.transport.deadlines import Deadlines
from flowerpress.transport.frames import make, parse
from flowerpress.transport.hub import Hub
from flowerpress.transport.limits import Limits
from flowerpress.transport.peer import Peer, Question
from flowerpress.transport.stream import Stream


class Line(Stream):
    """A connection that notes when it was hung up."""

    def __init__(self) -> None:
        super().__init__(60.0, self.cut)
        self.cut_at = 0.0

    def cut(self) -> None:
        self.cut_at = time.monotonic()


def login(hub: Hub, client: int) -> tuple[Line, Peer, Any]:
    """Log a client in; returns its connection, itself, and its welcome."""
    line = Line()
    peer = hub.admit(line, parse(make("hello", protocol=1, client=client)), None)
    return line, peer, parse(line._out.get())


def test_what_is_due_is_done_in_order_and_nothing_else_is(caplog: pytest.LogCaptureFixture) -> None:
    deadlines, done, last = Deadlines("test"), list[str](), threading.Event()
    now = time.monotonic()
    deadlines.at(now + 60, lambda: done.append("too early"))
    deadlines.at(now + 0.10, last.set)
    deadlines.at(now + 0.05, lambda: done.append("b"))
    deadlines.at(now + 0.02, lambda: done.append("a"))
    deadlines.at(now + 0.06, lambda: {}["no"])  # keeps nobody from what is due after it
    assert last.wait(5)
    assert time.monotonic() - now >= 0.10
    assert done == ["a", "b"]
    assert "could not be done" in caplog.text
    deadlines.close()
    deadlines.at(now, lambda: done.append("after the end"))
    time.sleep(0.05)
    assert done == ["a", "b"]


def test_a_thread_sleeps_while_nothing_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many deadlines there are."""
    deadlines, woken = Deadlines("test"), list[float]()
    wait = deadlines._changed.wait
    monkeypatch.setattr(
        deadlines._changed, "wait", lambda seconds: (woken.append(1), wait(seconds))
    )
    end = time.monotonic() + 60
    for number in range(1000):
        deadlines.at(end + number, lambda: None)
    time.sleep(0.2)
    assert len(woken) <= 2
    deadlines.close()


def test_silence_and_absence_have_their_time() -> None:
    hub = Hub(1, limits=Limits(heartbeat=0.2, grace=0.3))
    try:
        silent, _, _ = login(hub, 1)
        heard, loud, _ = login(hub, 2)
        begun, got = time.monotonic(), list[Any]()
        while not silent.cut_at:
            assert time.monotonic() - begun < 5
            loud.receive(heard, parse(make("beat")))
            time.sleep(0.02)
        assert 0.5 < silent.cut_at - begun < 2
        assert not heard.cut_at
        loud.ask(Question("q", [b"?"], got.append))
        left = time.monotonic()
        hub.leave(loud, heard)
        assert got == []
        while not got:
            assert time.monotonic() - left < 5
            time.sleep(0.01)
        assert time.monotonic() - left > 0.25
        assert got == ["client 2 is away"]
        loud.ask(Question("later", [b"?"], got.append))  # by who has not heard of that
        assert got == ["client 2 is away"] * 2
        login(hub, 2)
        loud.ask(Question("back", [b"?"], got.append))
        assert len(got) == 2
    finally:
        hub.close(done=True)


def test_who_comes_back_in_time_is_not_given_up() -> None:
    hub = Hub(1, limits=Limits(heartbeat=5.0, grace=0.2))
    try:
        line, peer, _ = login(hub, 1)
        got = list[Any]()
        peer.ask(Question("q", [b"?"], got.append))
        for _ in range(4):
            hub.leave(peer, line)
            time.sleep(0.1)
            line, _, _ = login(hub, 1)
            time.sleep(0.1)
        assert got == []
    finally:
        hub.close(done=True)


@pytest.mark.parametrize(
    ("expected", "there", "heartbeat"),
    [(0, 0, 5.0), (125, 0, 5.0), (1000, 0, 40.0), (0, 300, 12.04)],
)
def test_signs_of_life_are_rarer_the_more_clients_there_are(
    expected: int, there: int, heartbeat: float
) -> None:
    """So that a server hears at most 25 a second of those who have nothing to say."""
    hub = Hub(1, clients=expected)
    try:
        for client in range(there):
            login(hub, client)
        line, peer, welcome = login(hub, there)
        assert welcome.heartbeat == pytest.approx(heartbeat)
        assert line.heartbeat == welcome.heartbeat
        until = peer.heard_until(3)
        assert until - line.last_heard == pytest.approx(3 * heartbeat)
    finally:
        hub.close(done=True)
