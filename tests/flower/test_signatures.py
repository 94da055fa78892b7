"""What we take is what the installed Flower's own classes take, and 1.43's, which is not out yet.

A release of Flower that gives a method one more parameter fails here, and not in a user's call.
`scripts/matrix` runs this with the oldest Flower that is allowed, the newest, and the nightly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from inspect import Parameter, Signature
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations import flower_app
from flowerpress.simulations.engine import InProcessGrid
from flowerpress.simulations.recorder import Recorder
from flowerpress.strategies import (
    CompressedStrategy,
    strategy_class,
    strategy_names,
)
from flowerpress.transport.grid import GrpcGrid, LargeMessage
from flowerpress.worker.app import TaskApp

GRIDS = [InProcessGrid, GrpcGrid]
STRATEGIES = [CompressedStrategy, *map(strategy_class, strategy_names())]
# Federated evaluation sends the model once more in each round: here, it is asked for.
OTHER_DEFAULTS = {"fraction_evaluate": 0.0}


class Flower143:
    """Signatures of flwr-nightly 1.43.0.dev20261026 that earlier releases do not have."""

    def pull_messages(
        self,
        reply_to_message_ids: Iterable[str] | None = None,
        *,
        message_ids: Iterable[str] | None = None,
    ) -> Iterable[Message]: ...

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
        should_stop: Callable[[int, Result], bool] | None = None,
    ) -> Result: ...


def public(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield what a class of Flower's lets others call or read, by name."""
    for name, value in inspect.getmembers_static(cls):
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            yield name, value


def lacks(ours: Signature, theirs: Signature) -> list[str]:
    """Say what one can write for `theirs`, and not for `ours`."""
    mine, yours = list(ours.parameters.values()), list(theirs.parameters.values())
    wrong = []
    for place, their in enumerate(yours):
        our = mine[place] if place < len(mine) else None
        if our is None or (our.name, our.kind, our.default) != (
            their.name,
            their.kind,
            their.default,
        ):
            wrong.append(f"place {place}: {their} is {our} here")
    more = mine[len(yours) :]
    return wrong + [f"{each} is needed" for each in more if each.default is Parameter.empty]


def assert_takes(cls: type, name: str, theirs: Any) -> None:
    ours = inspect.getattr_static(cls, name)
    if isinstance(theirs, property):
        assert isinstance(ours, property)
        return
    wanted, had = inspect.signature(theirs), inspect.signature(ours)
    if list(wanted.parameters) == ["self", "message_ids"]:  # pull_messages before 1.43
        had.bind(None, ["id"])
        had.bind(None, message_ids=["id"])
        return
    assert lacks(had, wanted) == [], f"{cls.__name__}.{name}"


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("name", "theirs"), [*public(Grid)], ids=[n for n, _ in public(Grid)])
def test_grids(grid: type, name: str, theirs: Any) -> None:
    assert_takes(grid, name, theirs)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies(strategy: type) -> None:
    for flower in (Strategy, FedAvg):
        for name, theirs in public(flower):
            assert_takes(strategy, name, theirs)


def test_what_flower_143_brings() -> None:
    for grid in GRIDS:
        assert_takes(grid, "pull_messages", Flower143.pull_messages)
    for strategy in STRATEGIES:
        assert_takes(strategy, "start", Flower143.start)


@pytest.mark.parametrize("name", strategy_names())
def test_keywords_of_fedavg(name: str) -> None:
    """Each by its name, with Flower's default; a subclass may hand them on as ``**options``."""
    theirs = {k: each.default for k, each in inspect.signature(FedAvg).parameters.items()}
    theirs |= OTHER_DEFAULTS
    # Partial participation is what PP-MARINA is for.
    expected = theirs | ({"fraction_train": 0.5} if name == "pp-marina" else {})
    options = strategy_class(name).options
    assert {option: options[option].default for option in theirs} == expected
    strategy_class(name)(**theirs)


def test_hooks_of_the_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower calls what we register with a message and a context, and nothing else."""
    hooks: list[Any] = []
    for name in ("train", "evaluate", "query"):
        monkeypatch.setattr(TaskApp, name, lambda self: hooks.append)
    client_app(lambda i, n: FunctionTask(np.zeros(2), lambda x, batch: (0.0, x)))
    assert len(hooks) == 3
    for hook in hooks:
        inspect.signature(hook).bind(Message, Context)
    for name in ("train", "evaluate", "query"):
        inspect.signature(getattr(ClientApp, name)).bind(ClientApp)  # as we call it
    inspect.signature(flower_app.answer).bind(Message, Context)
    inspect.signature(flower_app.main).bind(Grid, Context)
    inspect.signature(Recorder.__call__).bind(Recorder, 1, ArrayRecord)  # as an evaluate_fn


def test_a_large_message_is_a_message() -> None:
    for name, theirs in public(Message):
        assert_takes(LargeMessage, name, theirs)


@pytest.mark.parametrize(
    ("ours", "theirs", "wrong"),
    [  # what is wrong: how many parameters
        (lambda a, b=1: 0, lambda a, b=1: 0, 0),
        (lambda a, b=1, c=2: 0, lambda a, b=1: 0, 0),
        (lambda a: 0, lambda a, b=1: 0, 1),
        (lambda b, a: 0, lambda a, b: 0, 2),
        (lambda a, *, b=1: 0, lambda a, b=1: 0, 1),
        (lambda a, b=2: 0, lambda a, b=1: 0, 1),
        (lambda a, b=1, *, c: 0, lambda a, b=1: 0, 1),
    ],
    ids=["same", "more", "fewer", "other order", "other kind", "other default", "one needed"],
)
def test_the_comparison_finds_what_is_missing(ours: Any, theirs: Any, wrong: int) -> None:
    assert len(lacks(inspect.signature(ours), inspect.signature(theirs))) == wrong
