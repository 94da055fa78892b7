"""Nothing that a client sends is raised on the server, or believed unchecked."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord

from flowerpress.dropin import press, press_grid
from flowerpress.protocol.blob import to_array
from flowerpress.simulations.engine import InProcessGrid
from tests.dropin.apps import record
from tests.dropin.asking import adder, ask, zeros


def hostile(change):
    """An app whose first client's answers are changed by a function of their content."""

    def mod(message, context, call_next):
        reply = call_next(message, context)
        if context.node_config["partition-id"] == 0:
            change(reply.content)
        return reply

    return adder(mods=(mod, press))


def raw(data, dtype="float32", shape=(900,), stype="numpy.ndarray"):
    return Array(dtype, shape, stype, data)


BAD = {
    "empty": b"",
    "zip": b"PK\x03\x04" + bytes(60),
    "pickle": b"\x80\x04cos\nsystem\n",
    "huge": b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(117)
    + b"\n",
}


@pytest.mark.parametrize("downlink", ["", "identity"])
@pytest.mark.parametrize("where", ["form", "dense", "bare", "record", "config"])
@pytest.mark.parametrize("name", BAD)
def test_nothing_that_a_client_sends_is_raised(name, where, downlink):
    data = BAD[name]

    def change(content):
        if where == "form":
            content["flowerpress"]["form"] = raw(data, "uint8", (len(data),))
        elif where == "record":
            content["flowerpress"] = ArrayRecord({"message": raw(data)})
        elif where == "config":
            content["flowerpress"] = ConfigRecord({"a": 1})
        else:  # beside an update, or in an answer without one
            content["arrays"] = ArrayRecord({"w": raw(data)})
            if where == "bare":
                del content["flowerpress"]

    with InProcessGrid(lambda: hostile(change), 2) as grid:
        own = press_grid(grid, "topk:0.5", downlink=downlink)
        for _ in range(2):
            first, second = ask(own, record({"w": np.ones(900)}), nodes=(2, 3))
            assert not second.has_error()
            assert first.has_error() or where in ("dense", "bare")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "9" * 5000,
        "[" * 100_000,
        '{"dtypes": 3}',
        '{"dtypes": {"a": "float32"}}',
        '{"orders": {"arrays": []}}',
        '{"orders": {"arrays": ["x"]}}',
        '{"orders": {"arrays": ["w", "w"]}}',
        '{"orders": {"other": ["w"]}}',
    ],
    ids=range(11),
)
def test_what_an_answer_says_of_its_form_is_checked(text):
    def change(content):
        content["flowerpress"]["form"] = to_array(text.encode())

    with InProcessGrid(lambda: hostile(change), 1) as grid:
        own = press_grid(grid, "topk:0.5")
        (answer,) = ask(own, zeros())
    assert answer.has_error()
