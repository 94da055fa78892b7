"""What the server measures of an answer's way: the time after its first frame."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.clients import FunctionTask, client_app
from flowerpress.strategies import make_strategy
from flowerpress.transport import pipes
from flowerpress.transport.frames import CHUNK, parse
from flowerpress.transport.pipes import Incoming, Outgoing
from tests.transport.linked import connected


def cuts(size: int) -> list[int]:
    """Return how many bytes each frame of a message carries, on a network that takes them all."""
    announcement, *chunks = map(parse, Outgoing(1, [b"x" * size]).frames())
    return [len(announcement.data), *map(len, chunks)]


def test_a_short_message_is_one_frame_and_a_longer_one_announces_itself_with_little() -> None:
    assert cuts(2**14) == [2**14]
    assert cuts(2**14 + 1) == [2**12, 2**14 + 1 - 2**12]
    first, second, third, *_, last = cuts(3 * CHUNK)
    assert (first, second, third) == (2**12, 2**16, 2**17)
    assert max(cuts(3 * CHUNK)) == CHUNK
    assert 0 < last <= CHUNK


def test_an_upload_is_the_bytes_and_the_seconds_after_the_first_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(pipes.time, "monotonic", lambda: now)
    message = Incoming(1, 1000)
    assert message.upload == (0, 0.0)
    message.add(b"x" * 100)
    assert message.upload == (0, 0.0)
    now = 102.5
    message.add(b"x" * 400)
    now = 103.0
    message.add(b"x" * 500)
    assert message.upload == (900, 3.0)


def task(i: int, n: int) -> FunctionTask:
    target = np.random.default_rng(i).standard_normal(100_000)
    return FunctionTask(np.zeros(100_000, np.float32), lambda x, _: (0.0, x - target))


def test_over_the_link_a_client_is_told_what_its_own_link_carries() -> None:
    """On this machine it carries everything: the ladder is climbed to its end."""
    strategy = make_strategy("ef21", compressor="auto:deadline=5s", lr=0.1, init="compressed")
    with connected(client_app(task), 2) as (_, grid, _):
        strategy.start(grid, task(0, 2).initial_arrays(), num_rounds=10, timeout=60)
    clients = strategy.population.clients.values()
    assert strategy.exchange.refused == 0
    assert [client.step for client in clients] == [11, 11]
    assert all(client.rate > 400_000 / 5 for client in clients)
    assert strategy.train_metrics["auto-step-min"] == 12
