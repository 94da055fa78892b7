"""Messages sent and answers asked for one by one, on each of our grids, as on Flower's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from flowerpress.simulations import InProcessGrid
from tests.transport.linked import connected

NODES = (2, 3, 4)


def echo() -> ClientApp:
    """Return a ClientApp that answers with what it was sent, and the message's group."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        said = ConfigRecord({"group": message.metadata.group_id, "ttl": message.metadata.ttl})
        return Message(RecordDict({**message.content, "said": said}), reply_to=message)

    return app


@pytest.fixture(scope="module", params=["in process", "in threads", "link"])
def grid(request: pytest.FixtureRequest) -> Iterator[Grid]:
    if request.param == "link":
        with connected(echo(), len(NODES)) as (_, linked, _):
            yield linked
    else:
        threads = 2 if request.param == "in threads" else None
        with InProcessGrid(echo, len(NODES), threads=threads) as local:
            yield local


def message(node: int, word: str = "", **more: Any) -> Message:
    return Message(RecordDict({"w": ConfigRecord({"word": word})}), node, "train", **more)


def arrive(grid: Grid, ids: list[str]) -> None:
    """Wait until all answers are there, and leave them there."""
    end = time.monotonic() + 20
    there = grid._futures if isinstance(grid, InProcessGrid) else grid._answers
    while not all(i in there and getattr(there[i], "done", lambda: True)() for i in ids):
        assert time.monotonic() < end
        time.sleep(0.005)


def words(replies: Any) -> list[str]:
    return sorted(reply.content["w"]["word"] for reply in replies)


def test_answers_are_those_asked_for(grid: Grid) -> None:
    sent = [message(node, f"to {node}") for node in NODES]
    first, second, third = ids = list(grid.push_messages(sent))
    arrive(grid, ids)
    assert list(grid.pull_messages([])) == []
    assert list(grid.pull_messages(message_ids=iter([]))) == []
    assert list(grid.pull_messages(["nobody's"])) == []
    assert words(grid.pull_messages([second, "nobody's"])) == ["to 3"]
    assert list(grid.pull_messages([second])) == [], "each answer comes once"
    assert words(grid.pull_messages(message_ids=iter([first, first]))) == ["to 2"]
    assert words(grid.pull_messages(reply_to_message_ids={third})) == ["to 4"]


def test_all_answers_at_once(grid: Grid) -> None:
    sent = [message(node, f"to {node}") for node in NODES]
    ids = list(grid.push_messages(sent))
    assert [each.metadata.message_id for each in sent] == ids
    arrive(grid, ids)
    replies = list(grid.pull_messages())
    named = {reply.metadata.reply_to_message_id: reply.metadata.src_node_id for reply in replies}
    assert named == dict(zip(ids, NODES, strict=True))
    assert list(grid.pull_messages(None)) == []


def test_either_name_and_not_both(grid: Grid) -> None:
    with pytest.raises(TypeError, match="give reply_to_message_ids, or message_ids"):
        grid.pull_messages(["a"], message_ids=["b"])


def test_a_message_sent_twice_has_two_answers(grid: Grid) -> None:
    again = message(NODES[0], "again")
    ids = [*grid.push_messages([again, again]), *grid.push_messages([again])]
    assert len(set(ids)) == 3
    arrive(grid, ids)
    assert len({reply.metadata.reply_to_message_id for reply in grid.pull_messages(ids)}) == 3


def test_one_content_for_many_keeps_group_and_time_to_live(grid: Grid) -> None:
    content = RecordDict({"w": ConfigRecord({"word": "all"})})
    sent = [Message(content, node, "train", group_id="7", ttl=50.0) for node in NODES]
    replies = list(grid.send_and_receive(sent, timeout=20))
    assert [reply.content["said"] for reply in replies] == [{"group": "7", "ttl": 50.0}] * 3
    assert {reply.metadata.reply_to_message_id for reply in replies} == {
        each.metadata.message_id for each in sent
    }
