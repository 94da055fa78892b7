"""What a tracker tells its writer, and what it does where that fails."""

import json
import logging
import math
import sys

import numpy as np
import pytest

from flowerpress.clients import FunctionTask
from flowerpress.simulations import RoundRecord, make_tracker, simulate
from flowerpress.simulations.tracking import TRACKERS, Tracker, Trackers, make_trackers
from flowerpress.strategies import make_strategy


class Told:
    """A writer that remembers, and fails at one of its calls."""

    def __init__(self, fails_at=0):
        self.calls, self.fails_at = [], fails_at

    def _hear(self, *call):
        self.calls.append(call)
        if len(self.calls) == self.fails_at:
            raise OSError("no space\nleft")

    def open(self, config):
        self._hear("open", config)

    def write(self, step, values):
        self._hear("write", step, values)

    def close(self, verdict):
        self._hear("close", verdict.status)

    def values(self, name):
        return {call[1]: call[2][name] for call in self.calls if call[0] == "write"}


def task_fn(i, n):
    return FunctionTask(np.zeros(4, np.float32), lambda x, batch: (1.0, x - i))


class StoppedError(Exception):
    """The server is gone."""


def run(tracker, rounds=4, **more):
    def evaluate(server_round, arrays):
        return {"loss": 2.0 - server_round / 10, "recall": [0.5, math.nan]}

    strategy = make_strategy("ef21", compressor="topk:k=2")
    return simulate(strategy, task_fn, 3, rounds, 0, evaluate, on_round=tracker, **more)


def test_a_run_is_told_in_three_lines():
    told = Told()
    tracker = Tracker("told", told)
    result = run(tracker)
    tracker.end(result)
    assert told.calls[0] == ("open", {})
    assert told.calls[-1] == ("close", "done")
    assert told.values("held-out/loss") == {0: 2.0, 1: 1.9, 2: 1.8, 3: 1.7, 4: 1.6}
    assert math.isnan(told.values("held-out/recall/1")[3])
    up, down = told.values("bytes/up"), told.values("bytes/down")
    assert up[0] == 0
    assert up[4] == result.ledger.up_bytes
    assert down[4] == result.ledger.down_bytes
    assert list(up.values()) == sorted(up.values())
    seconds = sum(record.seconds for record in result.history)
    assert told.values("time/seconds")[4] == pytest.approx(seconds)


def test_a_round_told_twice_counts_once():
    told = Told()
    tracker = Tracker("told", told)
    for r, up in [(0, 0), (1, 100), (2, 10), (2, 30)]:  # round 2 was evaluated again
        tracker.round(RoundRecord(r, {}, {}, up, 0, 1.0))
    assert told.values("bytes/up") == {0: 0, 1: 100, 2: 130}
    assert told.values("time/seconds")[2] == 3.0


def test_bytes_of_collected_models_are_apart():
    told = Told()
    Tracker("told", told).round(RoundRecord(1, {}, {}, 5, 6, 0.0, up_collected=7))
    values = told.calls[-1][2]
    assert [values[f"bytes/{name}"] for name in ("up", "down", "up-collected")] == [5, 6, 7]


def test_the_rounds_before_a_restart_are_told_too(tmp_path):
    def stop(record):
        if record.round == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(stop, checkpoint=tmp_path)
    told = Told()
    result = run(Trackers([Tracker("told", told)]), checkpoint=tmp_path, resume=True)
    assert list(told.values("bytes/up")) == [0, 1, 2, 3, 4]
    assert told.values("bytes/up")[4] == result.ledger.up_bytes


@pytest.mark.parametrize(
    ("fails_at", "heard"),
    [(1, ["open"]), (3, ["open", "write", "write"]), (7, ["open", *["write"] * 5, "close"])],
)
def test_a_writer_that_fails_is_let_go_with_one_warning(fails_at, heard, caplog):
    told, other = Told(fails_at), Told()
    with caplog.at_level(logging.WARNING, "flowerpress"):
        trackers = Trackers([Tracker("told", told), Tracker("other", other)])
        trackers.begin({"lr": 0.5})
        result = run(trackers)
        trackers.end(result)
    assert result.verdict.status == "done"
    assert [call[0] for call in told.calls] == [*heard, "close"], "and may keep what it has"
    assert other.calls[-1] == ("close", "done")
    warnings = [each.message for each in caplog.records if "track" in each.message]
    assert warnings == [
        "tracking by told has failed, and the run goes on without it: OSError: no space left"
    ]


def test_what_ends_a_run_early_is_told():
    told = Told()
    seen = []

    def stop(record):
        seen.append(record.round)
        if record.round == 2:
            raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        Trackers([Tracker("told", told)], then=stop) as trackers,
    ):
        run(trackers)
    assert seen == [0, 1, 2]
    assert list(told.values("bytes/up")) == [0, 1, 2]
    assert told.calls[-1] == ("close", "interrupted")


def test_a_run_that_never_began_has_failed():
    told = Told()
    tracker = Tracker("told", told)
    tracker.begin({})
    with pytest.raises(ValueError, match="num_clients is -1"), Trackers([tracker]) as trackers:
        simulate(make_strategy("ef21"), task_fn, -1, on_round=trackers)
    assert told.calls == [("open", {}), ("close", "failed")]


def test_trackers_are_found_by_name(tmp_path):
    with pytest.raises(ValueError, match="no tracker is called 'x': there are tensorboard, mlflow"):
        make_tracker("x", tmp_path)
    pytest.importorskip("tensorboard")
    twice = make_trackers(["tensorboard", "tensorboard"], tmp_path)
    twice.begin({})
    twice.end(None)
    assert len(list(tmp_path.glob("tensorboard/run/*"))) == 1


@pytest.mark.parametrize("name", TRACKERS)
def test_a_package_that_is_missing_is_named_with_its_extra(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as caught:
        make_tracker(name, tmp_path)
    extra = f"'flowerpress[{name}]'"
    assert str(caught.value) == f"tracking by {name} needs {extra}: pip install {extra}"
    assert not list(tmp_path.iterdir())


def test_configurations_are_flat():
    told = Told()
    own = {"none": None, "lr": 0.5, "on": True, "task": {"a/b": {"c d": [1, None]}}}
    Tracker("told", told).begin(own)
    assert told.calls == [("open", {"lr": 0.5, "on": True, "task.a/b.c d": json.dumps([1, None])})]
