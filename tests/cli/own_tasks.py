"""A user's file of tasks, each with something that a user may do."""

import os
import signal

import numpy as np

from flowerpress.clients import FunctionTask

ROUNDS_BEFORE = 3


def task_fn(partition_id, num_partitions):
    """Pull towards the client's own number."""
    return FunctionTask(np.zeros(5), lambda x, batch: (0.5, x - partition_id))


def counting(what):
    """A task function that does something in the fourth round."""

    def make(partition_id, num_partitions):
        rounds = iter(range(1_000_000))

        def gradient(x, batch):
            if next(rounds) == ROUNDS_BEFORE:
                what()
            return 0.5, x - partition_id

        return FunctionTask(np.zeros(5), gradient)

    return make


def fail():
    raise ZeroDivisionError("no more data")


ctrl_c = counting(lambda: os.kill(os.getpid(), signal.SIGINT))
terminated = counting(lambda: os.kill(os.getpid(), signal.SIGTERM))
hung_up = counting(lambda: os.kill(os.getpid(), signal.SIGHUP))
failing = counting(fail)


def stopped_at_once(partition_id, num_partitions):
    raise KeyboardInterrupt


def measured(partition_id, num_partitions):
    """A task that evaluates: what clients say of the model."""
    return FunctionTask(
        np.zeros(5), lambda x, batch: (0.5, x - partition_id), evaluate=lambda x: {"accuracy": 0.75}
    )


def useless(partition_id, num_partitions):
    """A task whose gradients are never finite."""
    nothing = np.full(5, np.nan)
    return FunctionTask(np.zeros(5), lambda x, batch: (0.5, nothing))


def one_useless(partition_id, num_partitions):
    nothing = np.full(5, np.nan)
    honest = task_fn(partition_id, num_partitions)
    return honest if partition_id else FunctionTask(np.zeros(5), lambda x, batch: (0.5, nothing))


def undefined(partition_id, num_partitions):
    return FunctionTask(np.zeros(5), lambda x, batch: (0.5, x - unknown_name))  # noqa: F821


def exploding(partition_id, num_partitions):
    rounds = iter(range(100))
    return FunctionTask(np.zeros(5), lambda x, batch: (10.0 ** next(rounds), x - 1))


def no_task(partition_id, num_partitions):
    return "a task"


def too_few(partition_id):
    return None


number = 3


class Evaluated:
    """A task function with a model and an evaluation of its own."""

    def __call__(self, partition_id, num_partitions):
        return task_fn(partition_id, num_partitions)

    def initial_arrays(self):
        return FunctionTask(np.ones(5), lambda x, batch: (0.5, x)).initial_arrays()

    def evaluate_fn(self, server_round, arrays):
        return {"first": arrays["x"].numpy()[0]}


evaluated = Evaluated()
