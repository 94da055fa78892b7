"""Long vectors in files that the system may write back."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from flowerpress.clients import client_app
from flowerpress.compressors import add_to
from flowerpress.protocol import rooms
from flowerpress.simulations import simulate
from flowerpress.transport.client import _room_for
from flowerpress.transport.frames import FrameError, make, parse
from flowerpress.transport.pipes import Memory
from tests.transport.linked import connected
from tests.transport.test_places import STRATEGIES, D, Lent, strategy_of


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Have vectors of 1,000 bytes and more in files."""
    monkeypatch.setattr(rooms, "LARGE", 1000)
    monkeypatch.setenv(rooms.VARIABLE, str(tmp_path))
    return tmp_path


def in_file(array: np.ndarray) -> bool:
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return isinstance(array, memoryview) and isinstance(array.obj, mmap.mmap)


def test_long_ones_are_in_files_without_a_name(small):
    for build in (rooms.room_for, rooms.zeros):
        long, short = build(500, np.float32), build(100, np.float32)
        assert in_file(long)
        assert not in_file(short)
        long[:] = 3.0
        assert long.sum() == 1500
    assert not rooms.zeros(500, np.float64).any()
    assert not list(small.iterdir())
    Memory(2000).write(b"abc")


def test_without_the_variable_they_are_in_memory(monkeypatch):
    monkeypatch.setattr(rooms, "LARGE", 1000)
    assert not in_file(rooms.room_for(500, np.float32))


@pytest.mark.parametrize("size", [2**60, 2**46])
def test_no_room_is_said_before_anything_is_written(small, size):
    with pytest.raises(MemoryError, match=r"no room for a vector of .* MB in"):
        rooms.room_for(size, np.float32)
    assert not list(small.iterdir())


def test_a_message_that_there_is_no_room_for_is_refused(small):
    with pytest.raises(FrameError, match="a message of 1152921504606846976 bytes, for which"):
        _room_for(parse(make("begin", id=1, size=2**60)))
    assert _room_for(parse(make("begin", id=1, size=2000))).size == 2000


@pytest.mark.parametrize(("name", "options"), [STRATEGIES[i] for i in (0, 1, 2, 3, 6)])
def test_they_change_no_number(small, monkeypatch, name, options):
    with connected(client_app(lambda i, n: Lent(i, into=True)), 2) as (_, grid, _):
        strategy = strategy_of(name, options)
        result = strategy.start(grid, Lent(0, into=True).initial_arrays(), 4)
        assert in_file(strategy.model.replica.model) or options.get("downlink")
    monkeypatch.delenv(rooms.VARIABLE)
    inside = simulate(
        strategy_of(name, options),
        lambda i, n: Lent(i, into=False),
        num_clients=2,
        num_rounds=4,
        seed=3,
    )
    assert result.arrays["x"].data == inside.arrays["x"].data


@pytest.mark.parametrize("fails", range(3, 12))
def test_a_client_that_runs_out_of_room_settles_with_the_next_question(small, monkeypatch, fails):
    """Whichever vector there is no room for, the round is lost, and what is shared agrees."""
    made, spent = rooms._mapped, list[int]()

    def failing(folder: str, nbytes: int) -> mmap.mmap:
        spent.append(nbytes)
        if len(spent) == fails:
            raise MemoryError("no room")
        return made(folder, nbytes)

    app = client_app(lambda i, n: Lent(i, into=True))
    with connected(app, 2) as (_, grid, _):
        strategy = strategy_of("ef21-sgdm", {"compressor": "topk:0.2"})
        begin = type(strategy).begin

        def begin_and_fail(self) -> None:
            begin(self)  # with the server's own vectors
            monkeypatch.setattr(rooms, "_mapped", failing)

        monkeypatch.setattr(type(strategy), "begin", begin_and_fail)
        strategy.start(grid, Lent(0, into=True).initial_arrays(), 6)
    assert len(spent) > fails
    assert strategy.model.version == 6
    assert strategy.exchange.resyncs == 0
    total = np.zeros(D)
    for (_, i, _), state in app._client._states.items():
        client = strategy.population.clients[i]
        total += state.vectors["memory"]
        if state.packet and client.receiver.applied == state.numbers["pending"]:
            add_to(state.packet, total, state.numbers["scale"])
    np.testing.assert_allclose(strategy._sum, total, atol=1e-5)
