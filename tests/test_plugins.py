"""What other packages register, and what becomes of it where it is wrong."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

from flowerpress import algorithms, plugins
from flowerpress.algorithms import Algorithm, algorithm_names
from flowerpress.clients.dsgd import DSGDWorker
from flowerpress.simulations import own_task
from flowerpress.simulations.own_task import all_task_names, find_registered_task, find_task
from flowerpress.simulations.tasks import task_names
from flowerpress.strategies import make_strategy, strategy_names
from flowerpress.strategies.dsgd import DSGD
from flowerpress.worker.registry import make_worker

Install = Callable[..., None]
OWN = sorted(algorithms.OWN)


class Mine(DSGD):
    """Distributed SGD by another name."""

    name = "mine"


class Other(DSGD):
    """A class with the name of one of flowerpress's own."""

    name = "ef21"


GOOD = Algorithm(strategy=Mine, worker=DSGDWorker)
TAKEN = Algorithm(strategy=Other, worker=DSGDWorker)
NO_STRATEGY = Algorithm(strategy=DSGDWorker, worker=DSGDWorker)
NO_WORKER = Algorithm(strategy=Mine, worker=Mine)
LAZY = Algorithm(strategy=f"{__name__}:Mine", worker="flowerpress.clients.dsgd:DSGDWorker")
NUMBER = 3


def task_fn(partition_id: int, num_partitions: int) -> Any:
    return partition_id, num_partitions


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Let these entry points be there: of a package each, by what they are called in this file."""

    def forget() -> None:
        algorithms._plugins.cache_clear()
        own_task.installed.cache_clear()

    def put(group: str, **entries: str) -> None:
        points = []
        for name, value in entries.items():
            where = value if ":" in value else f"{__name__}:{value}"
            point = EntryPoint(name, where, group)
            dist = SimpleNamespace(name=f"package-of-{name}", version="1.0", metadata={})
            points.append(point._for(dist))  # type: ignore[attr-defined]
        monkeypatch.setattr(
            plugins, "entry_points", lambda group: [p for p in points if p.group == group]
        )
        forget()

    forget()
    yield put
    forget()


@pytest.mark.parametrize("value", ["GOOD", "LAZY"])
def test_an_algorithm_is_found_by_its_name(install: Install, value: str) -> None:
    install(algorithms.GROUP, mine=value)
    assert strategy_names() == sorted([*OWN, "mine"])
    assert type(make_strategy("mine", lr=0.5)) is Mine
    assert type(make_worker("mine")) is DSGDWorker


WRONG = {
    "taken": (
        {"ef21": "TAKEN"},
        "strategy 'ef21' of package-of-ef21 1.0 cannot be used: this name",
    ),
    "gone": ({"mine": "no_such_module:MINE"}, "ModuleNotFoundError: No module named"),
    "no object": ({"mine": "MISSING"}, "AttributeError: "),
    "ends": ({"mine": "ending:MINE"}, "SystemExit: no GPU here"),
    "one half": ({"mine": "half:MINE"}, "worker is None: expected a class"),
    "a class": ({"mine": "Mine"}, "its entry point is a Mine, expected flowerpress.algorithms"),
    "another name": ({"yours": "GOOD"}, "its strategy's name is 'mine'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_one_is_a_line_that_names_its_package(
    install: Install, case: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries, said = WRONG[case]
    for name, code in {
        "ending": "raise SystemExit('no GPU here')",
        "half": "from flowerpress.algorithms import Algorithm\nMINE = Algorithm(object, None)",
    }.items():
        monkeypatch.delitem(sys.modules, name, raising=False)
        finder = Finder(name, code)
        monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    install(algorithms.GROUP, **entries)
    with caplog.at_level(logging.WARNING):
        assert algorithm_names() == OWN
        assert type(make_strategy("ef21")).__module__ == "flowerpress.strategies.ef21"
        strategy_names()
    (line,) = [record.getMessage() for record in caplog.records]
    assert said in line
    assert f"package-of-{next(iter(entries))} 1.0" in line
    if case != "taken":
        with pytest.raises(ValueError, match="of package-of-"):
            make_strategy(next(iter(entries)))
        with pytest.raises(ValueError, match=r"this client cannot work for .* of package-of-"):
            make_worker(next(iter(entries)))


class Finder:
    """Finds a module in a text."""

    def __init__(self, name: str, code: str) -> None:
        self.name, self.code = name, code

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        from importlib.util import spec_from_loader

        return spec_from_loader(name, self) if name == self.name else None

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(compile(self.code, self.name, "exec"), module.__dict__)


def test_halves_that_are_none_are_said_when_they_are_asked_for(install: Install) -> None:
    install(algorithms.GROUP, mine="NO_STRATEGY")
    with pytest.raises(ValueError, match="registered as strategy 'mine': expected a subclass"):
        make_strategy("mine")
    install(algorithms.GROUP, mine="NO_WORKER")
    with pytest.raises(ValueError, match="registered as the worker of 'mine': expected a subclass"):
        make_worker("mine")


def test_tasks(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install(own_task.GROUP, mine="task_fn", digits="task_fn", number="NUMBER")
    assert all_task_names() == sorted(["mine", *task_names()])
    assert find_task("mine").task_fn(1, 2) == (1, 2)
    assert find_registered_task("mine").task_fn is task_fn
    with pytest.raises(ValueError, match=r"task 'number' of package-of-number 1\.0 cannot be used"):
        find_task("number")
    with pytest.raises(ValueError, match="'lam' is an option of shipped tasks: mine is your own"):
        find_task("mine", options={"lam": 0.1})
    assert len(caplog.records) == 2


def test_a_server_does_not_choose_a_file() -> None:
    """Clients of Flower's engines take the task's name from the run config."""
    for name in ("./mine.py", "tests.test_plugins:task_fn", "mine.task_fn"):
        with pytest.raises(ValueError, match="unknown task"):
            find_registered_task(name)
