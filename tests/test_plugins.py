"""What other packages register, and what becomes of it where it is wrong."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

from flowerpress import algorithms, plugins
from flowerpress.algorithms import Algorithm, algorithm_names
from flowerpress.cli import main
from flowerpress.clients.dsgd import DSGDWorker
from flowerpress.compressors import make_compressor
from flowerpress.compressors.spec import registry
from flowerpress.simulations import own_task
from flowerpress.simulations.own_task import all_task_names, find_registered_task, find_task
from flowerpress.simulations.run_config import strategy_choice
from flowerpress.simulations.tasks import task_names
from flowerpress.strategies import make_strategy, strategy_names
from flowerpress.strategies import registry as strategies
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
        registry._plugins.cache_clear()
        registry._made.cache_clear()
        strategies._warn_once.cache_clear()
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
        "strategy 'ef21' of package-of-ef21 1.0 is not used: the shipped one of this name runs",
    ),
    "gone": ({"mine": "no_such_module:MINE"}, "ModuleNotFoundError: No module named"),
    "no object": ({"mine": "MISSING"}, "AttributeError: "),
    "ends": ({"mine": "ending:MINE"}, "SystemExit: no GPU here"),
    "one half": (
        {"mine": "half:MINE"},
        "without its worker: both halves are needed, worker=... is a subclass of flowerpress.cli",
    ),
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
        "half": "from flowerpress.algorithms import Algorithm\nMINE = Algorithm(strategy=object)",
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


def test_a_name_that_is_taken_is_said_when_it_is_asked_for_and_nothing_is_loaded(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    entries = {  # of each group one is taken, and nothing of this is loaded
        algorithms.GROUP: {"ef21": "no_such_module:X", "mine": "no_such_module:X"},
        registry.GROUP: {"topk": "no_such_module:X", "mine": "no_such_module:X"},
        own_task.GROUP: {"digits": "no_such_module:X", "mine": "no_such_module:X"},
    }
    for group, registered in entries.items():
        install(group, **registered)
        make_strategy("ef14", compressor="sign")
        make_compressor("randk:0.1")
        find_task("quadratic")
        assert not caplog.records
        for _ in range(2):
            made = make_strategy("ef21", compressor="sign")
            assert type(made).__module__ == "flowerpress.strategies.ef21"
            assert make_compressor("topk:0.25+sign").spec == "topk:0.25+sign"
            find_task("digits")
            make_worker("ef21")
        (line,) = [record.getMessage() for record in caplog.records]
        assert re.fullmatch(
            r"\w+ '(\w+)' of package-of-\1 1\.0 is not used: the shipped one of this name runs; "
            "choose another name",
            line,
        )
        caplog.clear()


def test_of_two_packages_with_one_name_the_second_is_named(
    install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(algorithms.GROUP, mine="GOOD")
    (first,) = plugins.entry_points(group=algorithms.GROUP)
    dist = SimpleNamespace(name="the-second", version="2.0", metadata={})
    second = EntryPoint("mine", first.value, first.group)._for(dist)  # type: ignore[attr-defined]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [second, first])
    assert type(make_strategy("mine")) is Mine
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "strategy 'mine' of the-second 2.0 cannot be used: package-of-mine 1.0 has this name: "
        "choose another name"
    )


@pytest.mark.parametrize("value", ["no_such_module:Mine", f"{__name__}:Missing", "ending:Mine"])
def test_a_half_that_cannot_be_imported_is_named_and_all_else_works(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    value: str,
) -> None:
    finder = Finder("ending", "raise SystemExit('no GPU here')")
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    broken = Algorithm(strategy=value, worker=value)
    monkeypatch.setattr(sys.modules[__name__], "BROKEN", broken, raising=False)
    install(algorithms.GROUP, mine="BROKEN")
    said = f"strategy 'mine' cannot be used: strategy='{value}' cannot be imported: "
    assert main(["list", "strategies"]) == 0
    assert "ef21-sgdm" in capsys.readouterr().out
    assert [record.getMessage().startswith(said) for record in caplog.records] == [True]
    assert main(["list", "mine"]) == 2
    assert capsys.readouterr().err.startswith(f"flowerpress: {said}")
    with pytest.raises(ValueError, match="no run has a key 'no-such-key'"):
        strategy_choice({"strategy": "ef21", "seed": 0, "no-such-key": 1})
    with pytest.raises(ValueError, match="this client cannot work for 'mine': worker='"):
        make_worker("mine")


def test_list_says_why_a_name_cannot_be_used(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    for group in (algorithms.GROUP, registry.GROUP, own_task.GROUP):
        install(group, broken="no_such_module:MINE")
        assert main(["list", "broken"]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "'broken' of package-of-broken 1.0 cannot be used: ModuleNotFoundError" in error
        assert len(error) < 200


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
