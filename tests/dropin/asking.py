"""An app that adds a number to all it gets, and one question to some nodes."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from flowerpress.dropin import press
from tests.dropin.apps import record


def adder(amount=1.0, mods=(press,)):
    """An app that adds a number to all floats."""
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(message, context):
        out = RecordDict()
        for name, arrays in message.content.array_records.items():
            if name == "flowerpress":  # there is no mod that takes it away
                continue
            values = {k: a.numpy() for k, a in arrays.items()}
            new = {k: np.asarray(v + v.dtype.type(amount)) for k, v in values.items()}
            out[name] = ArrayRecord({k: Array(v) for k, v in new.items()})
        return Message(out, reply_to=message)

    @app.evaluate()
    def evaluate(message, context):
        return Message(RecordDict({}), reply_to=message)

    return app


def messages(arrays, nodes, kind="train", **config):
    content = RecordDict({"arrays": arrays})
    if config:
        content["config"] = ConfigRecord(config)
    return [Message(content, node, kind) for node in nodes]


def ask(grid, arrays, nodes=(2,), kind="train", **config):
    answers = grid.send_and_receive(messages(arrays, nodes, kind, **config), timeout=5)
    return list(answers)


def zeros(**more):
    return record({"w": np.zeros(900), **more})


def seen(answer, name="w"):
    return answer.content["arrays"][name].numpy()
