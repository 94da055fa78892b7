"""One client's questions and answers, without a network: what is asked, resumed, dropped."""

from __future__ import annotations

from typing import Any

import pytest

from flowerpress.transport.frames import FrameError, chunk, kind_of, make, parse
from flowerpress.transport.hub import Hub
from flowerpress.transport.limits import Limits
from flowerpress.transport.peer import Peer, Question
from flowerpress.transport.pipes import Incoming
from flowerpress.transport.stream import Stream

EPOCH = "now"


class Wire:
    """A connection whose frames are looked at instead of sent."""

    def __init__(self, peer: Peer, **hello: Any) -> None:
        self.peer, self.stream = peer, Stream(60.0, lambda: None)
        said = parse(make("hello", client=peer.client, **hello))
        peer.attach(self.stream, said, lambda **fields: make("welcome", **fields), EPOCH)

    def out(self) -> list[Any]:
        """Return what was written since, parsed."""
        frames = []
        while not self.stream._out.empty():
            item = self.stream._out.get()
            if item is not None:
                frames += [item] if isinstance(item, bytes) else list(item)
        return [parse(frame) for frame in frames]

    def say(self, *frames: bytes) -> None:
        for frame in frames:
            self.peer.receive(self.stream, parse(frame))


class Asked:
    """A question, and what became of it."""

    def __init__(self, peer: Peer, key: str = "q", text: bytes = b"question") -> None:
        self.got: list[bytes | str] = []
        peer.ask(Question(key, [text], self.settle))

    def settle(self, answer: Incoming | str) -> None:
        self.got.append(answer if isinstance(answer, str) else answer.open().read(answer.size))


def begin(number: int, data: bytes, size: int | None = None, offset: int = 0) -> bytes:
    return make(
        "begin", id=number, size=len(data) if size is None else size, offset=offset, data=data
    )


def new_peer(**limits: Any) -> Peer:
    return Peer(3, Limits(**limits))


def kinds(frames: list[Any]) -> list[str]:
    return [kind_of(frame) for frame in frames]


def test_one_question_at_a_time() -> None:
    peer = new_peer()
    wire = Wire(peer)
    first, second = Asked(peer, "a", b"one"), Asked(peer, "b", b"two")
    welcome, question = wire.out()
    assert (welcome.open, question.id, question.data) == (0, 1, b"one")
    wire.say(begin(1, b"yes"))
    assert first.got == [b"yes"]
    assert [frame.data for frame in wire.out()] == [b"two"]
    wire.say(begin(2, b"n", size=2), chunk(b"o"))
    assert second.got == [b"no"]
    assert wire.out() == []


def test_a_question_waits_for_a_connection() -> None:
    peer = new_peer()
    asked = Asked(peer)
    wire = Wire(peer)
    welcome, question = wire.out()
    assert (welcome.open, question.data) == (1, b"question")
    wire.say(begin(1, b"yes"))
    assert asked.got == [b"yes"]


def test_a_question_goes_on_where_it_was_cut() -> None:
    peer = new_peer()
    Wire(peer)
    Asked(peer)
    _, question = Wire(peer, epoch=EPOCH, partial=1, partial_bytes=5).out()
    assert (question.offset, question.data) == (5, b"ion")


@pytest.mark.parametrize("hello", [{}, {"epoch": "another", "partial": 1, "partial_bytes": 5}])
def test_a_question_begins_anew_where_the_client_does(hello: dict[str, Any]) -> None:
    peer = new_peer()
    Wire(peer)
    Asked(peer)
    _, question = Wire(peer, **hello).out()
    assert (question.offset, question.data) == (0, b"question")


@pytest.mark.parametrize("where", ["busy", "finished"])
def test_a_question_that_arrived_is_not_sent_again(where: str) -> None:
    peer = new_peer()
    Wire(peer)
    asked = Asked(peer)
    wire = Wire(peer, epoch=EPOCH, **{where: 1})
    (welcome,) = wire.out()
    assert (welcome.open, welcome.reply_bytes) == (1, 0)
    wire.say(begin(1, b"yes"))
    assert asked.got == [b"yes"]


def test_an_answer_goes_on_where_it_was_cut() -> None:
    peer = new_peer()
    wire = Wire(peer)
    asked = Asked(peer)
    wire.say(begin(1, b"ye", size=3))
    wire = Wire(peer, epoch=EPOCH, finished=1)
    (welcome,) = wire.out()
    assert welcome.reply_bytes == 2
    wire.say(begin(1, b"s", size=3, offset=2))
    assert asked.got == [b"yes"]


def test_a_client_that_lost_its_answer_computes_it_anew() -> None:
    peer = new_peer()
    wire = Wire(peer)
    asked = Asked(peer)
    wire.say(begin(1, b"ye", size=3))
    wire = Wire(peer)
    welcome, question = wire.out()
    assert (welcome.reply_bytes, question.offset) == (0, 0)
    wire.say(begin(1, b"no"))
    assert asked.got == [b"no"]


def test_what_comes_twice_or_too_late_is_counted_and_dropped() -> None:
    peer = new_peer()
    wire = Wire(peer)
    asked = Asked(peer, "a")
    wire.say(begin(1, b"yes"), begin(1, b"yes"), begin(1, b"y", size=3), chunk(b"es"))
    assert asked.got == [b"yes"]
    assert peer.counters.late == 2
    late = Asked(peer, "b")
    wire.say(begin(2, b"y", size=3))
    peer.cancel({"b"})
    wire.say(chunk(b"es"), begin(2, b"yes"))
    assert late.got == []
    assert peer.counters.late == 3
    assert kinds(wire.out())[-1] == "cancel"


def test_a_cancelled_question_makes_way() -> None:
    peer = new_peer()
    wire = Wire(peer)
    gone, waiting, then = Asked(peer, "a"), Asked(peer, "b"), Asked(peer, "c", b"then")
    peer.cancel({"a", "b"})
    # The first is not sent: it was cancelled before it went out.
    assert kinds(wire.out()) == ["welcome", "cancel", "begin"]
    wire.say(begin(2, b"yes"))
    assert (gone.got, waiting.got, then.got) == ([], [], [b"yes"])


def test_who_is_given_up_is_so_for_all_questions() -> None:
    peer = new_peer()
    asked = [Asked(peer, key) for key in "ab"]
    peer.give_up("away")
    assert [each.got for each in asked] == [["away"], ["away"]]


def test_an_old_connection_is_not_heard() -> None:
    peer = new_peer()
    old = Wire(peer)
    asked = Asked(peer)
    new = Wire(peer, epoch=EPOCH, busy=1)
    assert kinds(old.out())[-1] == "goodbye"
    old.say(begin(1, b"old"))
    assert asked.got == []
    assert not peer.detach(old.stream)
    new.say(begin(1, b"new"))
    assert asked.got == [b"new"]
    assert peer.detach(new.stream)


@pytest.mark.parametrize(
    "frames",
    [
        [chunk(b"out of nowhere")],
        [begin(1, b"", size=0)],
        [begin(1, b"", size=2**40)],
        [begin(9, b"", size=2**40)],
        [begin(9, b"", size=3, offset=5)],
        [begin(9, b"yes!", size=3)],
        [begin(1, b"y", size=3, offset=1)],
        [begin(1, b"yes!", size=3)],
        [begin(1, b"ye", size=3), chunk(b"s!")],
        [begin(1, b"ye", size=3), begin(1, b"s", size=4, offset=2)],
        [begin(1, b"yes"), chunk(b"more")],
        [make("hello")],
        [make("welcome")],
        [make("beat")] * 3000,
        [begin(9, b"x")] * 3000,
    ],
    ids=range(15),
)
def test_what_is_out_of_place_ends_the_connection(frames: list[bytes]) -> None:
    peer = new_peer()
    wire = Wire(peer)
    Asked(peer)
    with pytest.raises(FrameError):
        wire.say(*frames)


@pytest.mark.parametrize("data", [b"y", b""])
def test_an_answer_that_is_begun_again_and_again_ends_the_connection(data: bytes) -> None:
    """Each beginning takes memory, or a file."""
    peer = new_peer(frames=20.0)
    wire = Wire(peer)
    Asked(peer)
    wire.say(*[begin(1, data, size=2**24)] * 100)
    with pytest.raises(FrameError, match="more frames than a client may send"):
        wire.say(*[begin(1, data, size=2**24)] * 200)


def test_a_beginning_is_free_for_each_question_and_each_connection() -> None:
    peer = new_peer(frames=1e-6)  # so that no frame is free that need not be
    asked = []
    for number in range(1, 4):
        wire = Wire(peer)
        asked.append(Asked(peer))
        wire.say(begin(number, b"ye", size=3))
        again = Wire(peer, epoch=EPOCH, finished=number)
        again.say(begin(number, b"s", size=3, offset=2))
    assert [each.got for each in asked] == [[b"yes"]] * 3
    with pytest.raises(FrameError, match="more frames"):
        again.say(begin(9, b"x"))


def test_an_answer_may_be_as_long_as_the_run_says() -> None:
    """Unless the limits say it, whatever the run says."""
    for limits, largest in ((Limits(), 100), (Limits(message=50), 50)):
        hub = Hub(1, limits=limits)
        stream = Stream(60.0, lambda: None)
        peer = hub.admit(stream, parse(make("hello", protocol=1, client=3)), None)
        hub.allow_answers(100)
        late = hub.admit(
            Stream(60.0, lambda: None), parse(make("hello", protocol=1, client=4)), None
        )
        assert (peer.largest, late.largest) == (largest, largest)
        Asked(peer)
        with pytest.raises(FrameError, match=rf"limit is {largest} \(--max-answer\)"):
            peer.receive(stream, parse(begin(1, b"", size=largest + 1)))
        hub.close(done=True)


def test_who_says_nothing_after_its_welcome_is_not_counted_as_there() -> None:
    """It may be leaving, because the run is not one that it can take part in."""
    peer = new_peer()
    wire = Wire(peer)
    assert (peer.connected, peer.confirmed) == (True, False)
    wire.say(make("beat"))
    assert peer.confirmed
    Wire(peer)
    assert not peer.confirmed
