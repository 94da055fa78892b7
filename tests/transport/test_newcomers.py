"""Nodes that are new and silent, or slow: those who are known do not wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp import Grid

from flowerpress.clients import FunctionTask, client_app
from flowerpress.strategies import make_strategy
from flowerpress.transport import Limits
from flowerpress.transport.frames import make

from .linked import LIVE, run_in_thread, start_client, start_server
from .test_hostile import Raw

D = 50


def task_fn(i: int, n: int) -> FunctionTask:
    return FunctionTask(np.zeros(D), lambda x, batch: (0.0, x - i))


def slow_task_fn(i: int, n: int) -> FunctionTask:
    time.sleep(2.0)  # its data are read
    return task_fn(i, n)


class Training:
    """A server of EF21 that trains until it is told to stop, with the seconds of its rounds."""

    def __init__(self, needed: int = 2) -> None:
        self.over, self.ends = threading.Event(), list[float]()
        self.strategy = make_strategy(
            "ef21", compressor="topk:0.1", min_available_nodes=needed, available_timeout=30.0
        )

        def main(grid: Grid, context: Any) -> None:
            initial = ArrayRecord({"x": Array(np.zeros(D))})
            self.strategy.start(grid, initial, 10_000, timeout=30, evaluate_fn=self.note)

        limits = Limits(heartbeat=1.0, grace=3.0)
        self.service, self.report = start_server(main, needed, limits=limits)

    def note(self, server_round: int, arrays: ArrayRecord) -> None:
        self.ends.append(time.monotonic())
        time.sleep(0.01)
        if self.over.is_set():
            raise StopIteration("enough")

    def wait_for(self, ready: Callable[[], object], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end
            time.sleep(0.01)

    def longest(self, since: float) -> float:
        """Return the seconds of the longest round from a moment on, the open one included."""
        ends = [each for each in (*self.ends, time.monotonic()) if each >= since]
        return max(np.diff([since, *ends]))

    def stop(self) -> None:
        self.over.set()
        with pytest.raises(StopIteration):
            self.report.result(30)

    def silent_client(self, number: int) -> Raw:
        """Log in as a client that answers nothing, and gives signs of life."""
        raw = Raw(self.service.port, make("hello", protocol=1, client=number))

        def live() -> None:
            while not self.over.wait(0.3):
                raw.send(make("beat"))

        run_in_thread(live)
        return raw


def test_silent_newcomers_cost_one_round_a_moment_and_the_others_nothing() -> None:
    training = Training()
    for i in (0, 1):
        start_client(training.service.port, client_app(task_fn), i, **LIVE)
    training.wait_for(lambda: len(training.ends) > 5)
    begun = time.monotonic()
    raws = [training.silent_client(number) for number in (7, 8)]
    training.wait_for(lambda: len(training.service.hub.peers) == 4)
    rounds = len(training.ends)
    time.sleep(3.0)
    assert len(training.ends) > rounds + 20
    assert training.longest(begun) < 2.0  # a moment is a second; they have 60
    late = time.monotonic()
    time.sleep(1.0)
    assert training.longest(late) < 0.7
    training.stop()
    for raw in raws:
        raw.close()


def test_a_silent_client_does_not_hold_up_the_first_round() -> None:
    training = Training()
    raw = training.silent_client(7)
    begun = time.monotonic()
    for i in (0, 1):
        start_client(training.service.port, client_app(task_fn), i, **LIVE)
    training.wait_for(lambda: len(training.ends) > 3, 10)
    assert time.monotonic() - begun < 8
    assert sorted(training.strategy.population.clients) == [0, 1]
    training.stop()
    raw.close()


def test_a_newcomer_that_is_slow_takes_part_once_it_has_answered() -> None:
    training = Training()
    for i in (0, 1):
        start_client(training.service.port, client_app(task_fn), i, **LIVE)
    training.wait_for(lambda: len(training.ends) > 5)
    begun = time.monotonic()
    app = client_app(slow_task_fn)
    start_client(training.service.port, app, 2, **LIVE, **{"num-partitions": 3})
    training.wait_for(lambda: 2 in training.strategy.population.clients)
    assert time.monotonic() - begun > 1.9
    training.wait_for(lambda: any(row.client == 2 for row in training.strategy.ledger.rows[-20:]))
    assert training.longest(begun) < 1.9
    training.stop()
