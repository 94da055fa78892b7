"""Mistakes in an algorithm of somebody's own: one line, with the class and what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerpress import algorithms
from flowerpress.algorithms import Algorithm
from flowerpress.clients import EF14Sender, FunctionTask, Outgoing, PlainSender, Worker
from flowerpress.simulations.simulate import simulate
from flowerpress.strategies import (
    Ask,
    CompressedStrategy,
    RoundError,
    make_strategy,
    number,
    option,
    strategy_names,
)
from flowerpress.worker import registry
from tests.algorithms.toy import task_fn


class Plain(CompressedStrategy):
    """Takes the mean of the answers away."""

    name = "own"
    compressor: str = option("topk:0.5")
    pull: float = option(0.0, number("[0, 1)"), "Weight decay.")

    def round(self, server_round: int) -> Any:
        S, total = self.sample(server_round), self.zeros()
        S = yield Ask(S, into=total)
        self.model.move(self.rate * total / self.mass(S), server_round, self.rate)


class PlainWorker(Worker):
    """Sends its gradient."""

    sender = PlainSender

    def round(self, job: Any) -> Outgoing:
        return Outgoing(*job.gradient(self.receive(job)))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run an algorithm of these halves, two rounds with two clients."""

    def go(
        strategy: type = Plain, worker: type = PlainWorker, saved: Path | None = None, **more: Any
    ) -> None:
        registry._half.cache_clear()
        monkeypatch.setitem(algorithms.OWN, "own", Algorithm(strategy, worker))
        rounds = more.get("rounds", 2)
        simulate(make_strategy("own"), task_fn(0), 2, rounds, threads=1, checkpoint=saved)

    return go


def worker(make: Callable[..., Any], **attributes: Any) -> type:
    """Return a worker that makes something of its loss and its gradient."""

    def answer(self: Any, job: Any) -> Any:
        return make(*job.gradient(self.receive(job)))

    return type("MyWorker", (PlainWorker,), {"round": answer, **attributes})


def strategy(steps: Callable[..., Any] = Plain.round, **attributes: Any) -> type:
    return type("MyStrategy", (Plain,), {"round": steps, **attributes})


class NoRound(Worker):
    sender = PlainSender


class NoSender(Worker):
    def round(self, job: Any) -> Outgoing:
        raise NotImplementedError


def generator(*values: Any) -> Any:
    yield values


def asks_number(self: Any, job: Any) -> Any:
    return job.number("pull")


VECTOR = "give a vector of 4 x float64, as the model is"
SENDER = "it must be a class of flowerpress.clients, PlainSender, EF14Sender or EF21Sender"
WORKERS: dict[str, tuple[type, str]] = {
    "nothing": (worker(lambda *_: None), "MyWorker.round returned None: it must return Outgoing("),
    "a pair": (worker(lambda *both: both), "MyWorker.round returned a tuple: it must return Out"),
    "generator": (worker(generator), "MyWorker.round returned a generator: it must return Outg"),
    "swapped": (worker(lambda loss, g: Outgoing(g, loss)), "MyWorker.round: the loss of Outgoing"),
    "no loss": (worker(lambda _, g: Outgoing(None, g)), "loss of Outgoing(loss, vector) is None"),
    "short": (
        worker(lambda loss, g: Outgoing(loss, g[:2])),
        f"of shape (2,) and float64: {VECTOR}",
    ),
    "dtype": (worker(lambda loss, g: Outgoing(loss, g.astype("f4"))), f"and float32: {VECTOR}"),
    "list": (worker(lambda loss, g: Outgoing(loss, list(g))), f"vector) is a list: {VECTOR}"),
    "moments": (
        worker(lambda loss, g: Outgoing(loss, g, moments={"m": list(g)})),
        "MyWorker.round: moments of Outgoing must be vectors by name",
    ),
    "no names": (worker(lambda loss, g: Outgoing(loss, g, kept=g)), "kept of Outgoing must be vec"),
    "number": (
        type("MyWorker", (PlainWorker,), {"round": asks_number}),
        "the server sent no 'pull': declare it with option(..., sent=True)",
    ),
    "sender": (worker(Outgoing, sender=None), f"MyWorker.sender is None: {SENDER}"),
    "sender's name": (worker(Outgoing, sender="EF14Sender"), f"is 'EF14Sender': {SENDER}"),
    "sender made": (worker(Outgoing, sender=EF14Sender()), SENDER),
    "no sender": (NoSender, f"NoSender.sender is None: {SENDER}"),
    "no round": (NoRound, "NoRound has no round(job): define it, to return Outgoing(loss, vector)"),
}


@pytest.mark.parametrize("case", WORKERS)
def test_a_worker_that_is_wrong_is_named_in_a_line(
    run: Any, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    half, said = WORKERS[case]
    with pytest.raises(RoundError, match=r"^round 1: all 2 clients fail; client 0: ") as caught:
        run(worker=half)
    assert said in str(caught.value)
    assert all(record.exc_info is None for record in caplog.records), "no traceback"


def yields(make: Callable[..., Any]) -> type:
    def steps(self: Any, server_round: int) -> Any:
        yield make(self, self.sample(server_round))

    return strategy(steps)


def zeros_first(self: Any, server_round: int) -> Any:
    total = self.zeros()
    yield Ask(self.sample(server_round), into=total)


def second_is_none(self: Any, server_round: int) -> Any:
    yield Ask(self.sample(server_round), into=self.zeros())
    yield 3


def asks_nobody(self: Any, server_round: int) -> Any:
    self.sample(server_round)
    yield from ()


GENERATOR = "its round must be a generator with S = yield Ask(S, into=...)"
SUM = "give self.zeros(), or a function of the update"
COHORT = "give what self.sample(server_round) returns"
STRATEGIES: dict[str, tuple[type, str]] = {
    "no generator": (strategy(lambda *_: None), f"MyStrategy.round returned None: {GENERATOR}"),
    "returns": (strategy(lambda *_: Ask([])), f"MyStrategy.round returned an Ask: {GENERATOR}"),
    "nobody": (strategy(asks_nobody), f"MyStrategy.round asked nobody: {GENERATOR}"),
    "no question": (yields(lambda _, S: S), f"MyStrategy.round yielded a list: {GENERATOR}"),
    "second": (strategy(second_is_none), f"MyStrategy.round yielded an int: {GENERATOR}"),
    "length": (
        yields(lambda self, S: Ask(S, into=self.zeros(3))),
        f"an into of shape (3,) and float64, where the answers have 4 numbers: {SUM}",
    ),
    "integers": (yields(lambda _, S: Ask(S, into=np.zeros(4, int))), "an into of shape (4,) and"),
    "no vector": (yields(lambda _, S: Ask(S, into=[0])), f"into=[0]: {SUM}"),
    "no into": (yields(lambda _, S: Ask(S)), f"into=None: {SUM}"),
    "what": (
        yields(lambda self, S: Ask(S, self.zeros(), what="updates")),
        "what='updates': it is one of update, sketch, values, model, evaluation",
    ),
    "count": (yields(lambda self, S: Ask(len(S), self.zeros())), f"cohort=2: {COHORT}"),
    "ids": (yields(lambda self, S: Ask([c.id for c in S], self.zeros())), f"=[0, 1]: {COHORT}"),
    "too early": (
        strategy(zeros_first),
        "in round(), call self.sample(server_round) before self.zeros() and self.model",
    ),
    "kept": (
        strategy(kept=("mm",)),
        "MyStrategy.kept names 'mm', but there is no self.mm after begin(): set it there, or take",
    ),
    "kept as text": (strategy(kept="norm"), "MyStrategy.kept is 'norm': write kept = ('norm',)"),
}


@pytest.mark.parametrize("case", STRATEGIES)
def test_a_strategy_that_is_wrong_is_named_in_a_line(run: Any, case: str) -> None:
    half, said = STRATEGIES[case]
    with pytest.raises((ValueError, RuntimeError)) as caught:
        run(strategy=half)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_that_are_none() -> None:
    class Mine(Plain):
        push: float = 0.5

    with pytest.raises(ValueError, match=r"no option 'push': Mine.push is an attribute alone; wr"):
        Mine(push=0.1)
    with pytest.raises(ValueError, match=r"strategy own has no option 'citation': it has"):
        Mine(citation="x")
    with pytest.raises(TypeError, match=r"option\(0.5, \(0, 1\)\): which values it may have is"):
        option(0.5, (0, 1))  # type: ignore[arg-type]
    for interval in ("0,1", "[0; 1)", "", "(a, 1)"):
        with pytest.raises(ValueError, match=r"is no interval: write it as '\[0, 1\)'"):
            number(interval)


class Forgets(Plain):
    """Has momentum in `m`, and counts, and keeps neither."""

    def begin(self) -> None:
        self.m, self.t, self.seen, self.half = self.zeros(), 0, [], 0.5

    def round(self, server_round: int) -> Any:
        S, total = self.sample(server_round), self.zeros()
        S = yield Ask(S, into=total)
        self.m = self.half * self.m + total / self.mass(S)
        self.t += 1
        self.model.move(self.rate * self.m, server_round, self.rate)


class Keeps(Forgets):
    kept = ("m", "t", "seen")


class Saves(Forgets):
    def state(self) -> Any:
        return {**super().state(), "all": [self.m, self.t, self.seen]}


@pytest.mark.parametrize(("half", "lost"), [(Forgets, "m t seen"), (Keeps, ""), (Saves, "")])
def test_what_a_checkpoint_lacks_is_said_once(
    run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, half: type, lost: str
) -> None:
    run(strategy=half)
    assert not caplog.records
    run(strategy=half, saved=tmp_path, rounds=4)
    lines = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert [line.split(" is not in kept, so that a")[0] for line in lines] == [
        f"{half.__name__}.{name}" for name in lost.split()
    ]
    for name, line in zip(lost.split(), lines, strict=True):
        assert f"add '{name}' to kept" in line


@pytest.mark.parametrize("name", strategy_names())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_shipped_strategy_lacks_anything(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def task(i: int, n: int) -> FunctionTask:
        return FunctionTask(np.zeros(40), lambda x, _: (0.0, x - i))

    simulate(make_strategy(name), task, 3, 3, threads=1, checkpoint=tmp_path)
    assert not [record for record in caplog.records if "not in kept" in record.getMessage()]
    assert list(tmp_path.glob("round-*"))
