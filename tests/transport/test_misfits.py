"""Clients that cannot take part in the run: they end with a reason, and the others train on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp import Grid

from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations.flower_app import client_app as shipped_app
from flowerpress.strategies import make_strategy
from flowerpress.transport.certs import make_certs, read_certs
from flowerpress.transport.join import make_client
from flowerpress.transport.status import describe_server

from .linked import LIVE, QUICK, run_in_thread, start_client, start_server

D = 30


def task_fn(i: int, n: int) -> FunctionTask:
    return FunctionTask(np.zeros(D), lambda x, batch: (0.0, x - i))


def wider(i: int, n: int) -> FunctionTask:
    return FunctionTask(np.zeros(D + 1), lambda x, batch: (0.0, x - i))


class Training:
    """A server that trains with two clients until it is told to stop."""

    def __init__(self, clients: int = 2, **options: Any) -> None:
        self.over, self.rounds = threading.Event(), 0
        self.strategy = make_strategy(
            "ef21",
            compressor="topk:0.1",
            min_available_nodes=clients,
            min_train_nodes=clients,
            available_timeout=30.0,
        )

        def main(grid: Grid, context: Any) -> None:
            initial = ArrayRecord({"x": Array(np.zeros(D))})
            self.strategy.start(grid, initial, 10_000, timeout=20, evaluate_fn=self.note)

        self.service, self.report = start_server(main, clients, limits=QUICK, **options)
        self.port = self.service.port

    def note(self, server_round: int, arrays: ArrayRecord) -> None:
        self.rounds = server_round
        time.sleep(0.01)
        if self.over.is_set():
            raise StopIteration

    def wait_for(self, ready: Callable[[], object], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end
            time.sleep(0.01)

    def stop(self) -> None:
        before = self.rounds
        self.wait_for(lambda: self.rounds > before + 2)
        self.over.set()
        with pytest.raises(StopIteration):
            self.report.result(30)


def warnings(caplog: pytest.LogCaptureFixture, said: str) -> int:
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return sum(said in record.getMessage() for record in loud)


def test_a_client_with_another_model_ends_and_the_server_goes_on_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It comes first, so that the run waits for a right one in its place."""
    training = Training()
    start_client(training.port, client_app(task_fn), 0)
    wrong, farewell = start_client(training.port, client_app(wider), 1)
    done, reason = farewell.result(20)
    assert (done, wrong.mistaken) == (False, True)
    assert "'x' has shape (31,)" in reason or "(31,)" in reason
    assert training.rounds == 0
    start_client(training.port, client_app(task_fn), 1)
    training.stop()
    assert warnings(caplog, "cannot take part") == 1
    assert not any(record.exc_info for record in caplog.records)
    assert sorted(training.strategy.population.clients) == [0, 1]


def test_a_late_client_with_no_part_of_the_data_is_told_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "flowerpress")
    training = Training()
    for i in (0, 1):
        start_client(training.port, client_app(task_fn), i)
    training.wait_for(lambda: training.rounds > 3)
    late, farewell = start_client(training.port, client_app(task_fn), 2)
    done, reason = farewell.result(20)
    assert (done, late.mistaken) == (False, True)
    assert "partition-id 2 is not in 0 ... 1" in reason
    assert "--node-config 'num-partitions=3'" in reason
    training.wait_for(lambda: warnings(caplog, "client 2 leaves: partition-id 2") == 1)
    assert not warnings(caplog, "client 0: ")  # it is called by its own number
    _, farewell = start_client(training.port, client_app(task_fn), 2, **{"num-partitions": 3})
    training.wait_for(lambda: 2 in training.strategy.population.clients)
    training.stop()
    assert farewell.result(20).reason == "StopIteration: "


def test_clients_with_data_of_their_own_come_in_whatever_their_number() -> None:
    assert shipped_app.parts({"task": "npy"}, 7, 2) == 8
    assert shipped_app.parts({"task": "digits"}, 7, 2) == 2
    assert client_app(task_fn).parts({}, 7, 2) == 2


def test_a_client_of_another_task_leaves_before_it_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Started again and again, it is mentioned once, and the run does not begin without clients."""
    training = Training(run_config={"task": "digits"})
    for _ in range(3):
        wrong = make_client(
            client_app(task_fn),
            f"127.0.0.1:{training.port}",
            None,
            0,
            node_config=LIVE,
            expected={"task": "npy"},
        )
        done, reason = run_in_thread(wrong.run).result(20)
        assert (done, wrong.mistaken) == (False, True)
        assert reason.startswith("this client's task is 'npy', the server's 'digits'")
    assert training.strategy.population.clients == {}
    for i in (0, 1):
        start_client(training.port, client_app(task_fn), i)
    training.stop()
    assert warnings(caplog, "client 0 leaves: this client's task is 'npy'") == 1


class Troubled:
    """A task function that fails so many times."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times, self.calls = error, times, 0

    def __call__(self, i: int, n: int) -> FunctionTask:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return task_fn(i, n)


CODE = Troubled.__call__.__code__
PLACE = f"test_misfits.py, line {CODE.co_firstlineno + 3}"  # where it raises


@pytest.mark.parametrize(
    ("error", "traced"),
    [
        (ValueError("no such column"), False),
        (FileNotFoundError(2, "No such file", "data.csv"), False),
        (ZeroDivisionError("division by zero"), True),
        (TypeError("an int is not iterable"), True),
        (KeyError("label"), True),
        (NotImplementedError("to be done"), True),
    ],
)
def test_a_task_that_cannot_be_made_ends_the_client(
    error: Exception, traced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in its code is logged with a traceback, for whoever wrote it."""
    training = Training(1)
    wrong, farewell = start_client(training.port, client_app(Troubled(error, 100)), 0)
    done, reason = farewell.result(20)
    assert (done, wrong.mistaken) == (False, True)
    assert reason == f"{PLACE}: {type(error).__name__}: {error}"
    training.wait_for(lambda: warnings(caplog, f"node 2 cannot take part: {reason}") == 1)
    assert warnings(caplog, f"client 0: {PLACE}: {error}") == (not traced)
    assert not warnings(caplog, "client 0 leaves")
    assert any(record.exc_info for record in caplog.records) == traced
    start_client(training.port, client_app(task_fn), 0)
    training.stop()


def test_what_may_pass_is_tried_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A device that is busy, say."""
    training = Training(1)
    task = Troubled(RuntimeError("out of memory"), 3)
    client, _ = start_client(training.port, client_app(task), 0)
    training.wait_for(lambda: training.rounds > 3)
    training.stop()
    assert not client.mistaken
    assert warnings(caplog, f"client 0 failed: {PLACE}: RuntimeError: out of memory") == 1
    assert warnings(caplog, f"node 2 cannot take part: {PLACE}: RuntimeError: out of memory") == 1


def test_a_round_that_waits_for_more_clients_says_how_many(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flowerpress.server.population._FIRST_TOLD", 0.2)
    training = Training()
    training.strategy.min_train_nodes = 3
    for i in (0, 1):
        start_client(training.port, client_app(task_fn), i, **{"num-partitions": 3})
    training.wait_for(lambda: warnings(caplog, "a round waits for 3 clients, and 2 are there") > 1)
    assert " · a round waits: 2 of 3 are there · " in describe_server(training.service)
    assert training.rounds == 0
    start_client(training.port, client_app(task_fn), 2, **{"num-partitions": 3})
    training.stop()
    assert "waits" not in describe_server(training.service)
    assert warnings(caplog, "a round waits") < 10, "more and more rarely"


def test_a_node_config_key_that_is_nearly_one_is_named(caplog: pytest.LogCaptureFixture) -> None:
    config = {**LIVE, "compresor": "topk:0.1", "state-dri": "/x", "num_partitions": 2, "foo": 1}
    make_client(client_app(task_fn), "127.0.0.1:1", None, 0, node_config=config)
    assert [record.getMessage() for record in caplog.records] == [
        "node config: flowerpress reads no 'compresor': did you mean 'compressor'?",
        "node config: flowerpress reads no 'state-dri': did you mean 'state-dir'?",
        "node config: flowerpress reads no 'num_partitions': did you mean 'num-partitions'?",
    ]


def test_a_certified_client_is_no_other_in_the_run_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Client 0 is away, and client 2 says it is client 0."""
    make_certs(tmp_path, 3)
    training = Training(certs=read_certs(tmp_path, "server"))

    def join(number: int, **config: Any) -> Any:
        client = make_client(
            client_app(task_fn),
            f"localhost:{training.port}",
            read_certs(tmp_path, f"client-{number}"),
            number,
            node_config={**LIVE, "num-partitions": 3, **config},
        )
        return client, run_in_thread(client.run)

    join(1)
    _, farewell = join(2, **{"client-id": 0})
    done, reason = farewell.result(20)
    assert not done
    assert reason == "client 2 by its certificate says it is client 0"
    join(0)
    training.stop()
    assert sorted(training.strategy.population.clients) == [0, 1]
