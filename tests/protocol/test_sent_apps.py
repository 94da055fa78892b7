"""An app that is sent to another process, as Ray does with every message, is the same app there."""

import pickle

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from flowerpress.clients import FunctionTask, client_app
from flowerpress.protocol import Hello
from flowerpress.simulations import InProcessGrid

MADE = []


def task_fn(partition_id, num_partitions):
    MADE.append(partition_id)
    return FunctionTask(np.zeros(3, np.float32), lambda x, _: (0.0, x))


class Unhashable:
    __hash__ = None

    def __call__(self, partition_id, num_partitions):
        return task_fn(partition_id, num_partitions)


def hello(grid, node):
    (answer,) = grid.send_and_receive([Message(RecordDict(), node, "query")])
    return Hello.decode(answer.content).client


@pytest.mark.parametrize(("of", "times"), [(task_fn, 1), (Unhashable(), 2)])
def test_an_app_is_sent_with_every_message(of, times):
    """A client's task is made once in the process, where its function can be told from others."""
    MADE.clear()
    data = pickle.dumps(client_app(of))
    for _ in range(2):
        with InProcessGrid(lambda: pickle.loads(data), 1) as grid:
            (node,) = grid.get_node_ids()
            assert hello(grid, node) == 0
    assert [0] * times == MADE
