"""Options are declared once: everything that is said or asked of them comes from there."""

from __future__ import annotations

import ast
import inspect

import pytest

from flowerpress.algorithms import algorithm
from flowerpress.strategies import (
    CompressedStrategy,
    fixed,
    make_strategy,
    number,
    offered,
    option,
    strategy_class,
    strategy_names,
    text,
    whole,
)
from flowerpress.worker import worker as worker_module

NAMES = strategy_names()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_documented_checked_and_in_the_signature(name):
    cls = strategy_class(name)
    strategy, parameters = make_strategy(name), inspect.signature(cls).parameters
    assert set(parameters) == set(cls.options)
    for key, each in cls.options.items():
        assert parameters[key].default == each.default
        if each.fixed:
            continue
        assert each.says, f"{key} says nothing"
        assert each.kind or key.endswith("_fn"), f"{key} has no type"
        owner = next(base for base in cls.__mro__ if key in vars(base))
        assert f"{key} : " in owner.__doc__
        assert make_strategy(name, **{key: each.default}).given == {key: each.default}
        assert hasattr(strategy, key)
        with pytest.raises(ValueError, match=rf"^(compressor|{key}|.*has no formula)"):
            make_strategy(name, **{key: object()})


@pytest.mark.parametrize("name", NAMES)
def test_fixed_options_say_why(name):
    cls = strategy_class(name)
    for key, each in cls.options.items():
        if each.fixed:
            assert key not in offered(cls)
            with pytest.raises(ValueError, match=f"^{key} is 'another': expected "):
                make_strategy(name, **{key: "another"})


def read_by(cls: type) -> set[str]:
    """Return the names that a worker's class, and what it stands on, read of the server's words."""
    modules = {inspect.getmodule(each) for each in cls.__mro__ if each is not object}
    found = set()
    for module in (modules - {None}) | {worker_module}:
        if not module.__name__.startswith("flowerpress."):
            continue
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            told = None
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                told = node.value, node.slice.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                if node.func.attr == "number":
                    found.add(node.args[0].value)
                elif node.func.attr == "get" and isinstance(node.args[0], ast.Constant):
                    told = node.func.value, node.args[0].value
            if told and isinstance(told[0], ast.Attribute) and told[0].attr == "hyper":
                found.add(told[1])
    return {each for each in found if isinstance(each, str)}


def test_workers_read_what_is_sent():
    """A file of `clients` holds a family: what one of it reads, some strategy of it sends."""
    sent: dict[str, set[str]] = {}
    read: dict[str, set[str]] = {}
    for name in NAMES:
        worker = algorithm(name).load("worker")
        file = worker.__module__
        sent.setdefault(file, set()).update(make_strategy(name).hyper())
        read.setdefault(file, set()).update(read_by(worker))
    assert "momentum" in read["flowerpress.clients.ef21"], "the search finds something"
    shared = set(make_strategy("dsgd", compressor="cq:range=shared").hyper())  # as of any other
    for file, names in read.items():
        sent[file] |= shared & {"norm"}
        assert names <= sent[file], f"{file} reads {names - sent[file]}, which nobody sends"


class Plain(CompressedStrategy):
    """One of a package."""

    name = "plain"
    compressor: str = option("sign")
    lr: float = option(0.5, letter="gamma")
    p: float = option(0.25, number("(0, 1)"), "Some share. And more of it.", sent=True)
    many: int = option(3, whole(1))
    word: str = option("a", text())
    local_steps: int = fixed(1, "1: none here")

    def round(self, server_round):
        raise NotImplementedError


def test_what_is_left_out_is_as_in_the_base_class():
    base, own = CompressedStrategy.options, Plain.options
    assert own["compressor"].says == base["compressor"].says
    assert own["compressor"].sent
    assert own["lr"].values == base["lr"].values
    assert own["lr"].letter == "gamma"
    assert own["p"].line == "Some share"
    assert "p : float (default: 0.25)\n    Some share. And more of it.\n" in Plain.__doc__
    assert "As in `CompressedStrategy`, without `local_steps`." in Plain.__doc__
    assert next(iter(own)) == "compressor", "a class's own come first"
    assert Plain().hyper()["p"] == 0.25
    assert "many" not in Plain().hyper()
    with pytest.raises(ValueError, match=r"^p is 1: expected a number in \(0, 1\)$"):
        Plain(p=1)
    with pytest.raises(TypeError, match=r"strategy plain has no option 'manny': did you mean"):
        Plain(manny=2)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("(0, 1]", (1e-9, 0.5, 1), (0, 1.0001, -1)),
        ("[0, 1)", (0, 0.999), (1, -1e-9)),
        ("[0, inf)", (0, 1e300), (-1e-9, float("inf"))),
        ("(-inf, inf)", (-1e300, 0), (float("-inf"), float("nan"))),
    ],
)
def test_intervals(interval, inside, outside):
    values = number(interval)
    assert all(map(values.held, inside))
    assert not any(map(values.held, (*outside, True, "0.5", None, 10**400, float("nan"))))
