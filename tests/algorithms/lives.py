"""Runs whose server is killed after any message, and started again from its last checkpoint."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from flwr.app import MetricRecord

from flowerpress.clients import FunctionTask
from flowerpress.simulations import simulate
from flowerpress.simulations.engine import InProcessGrid
from flowerpress.strategies import make_strategy
from tests.algorithms.problems import Quadratics, vector

N, ROUNDS, SEED = 3, 5, 5
PROBLEM = Quadratics(n=N, dim=8)

# What takes an algorithm through all that it has within few rounds.
OPTIONS = {
    "d-psgd": {"momentum": 0.5, "collect_every": 2},
    "choco-sgd": {"compressor": "topk:k=2", "collect_every": 2},
    "squarm-sgd": {"compressor": "topk:k=2", "collect_every": 2, "gamma": "auto"},
    "onebit-adam": {"warmup_rounds": 2, "lr": 0.05},
    "marina": {"compressor": "randk:k=2", "p": 0.3},
    "vr-marina": {"compressor": "randk:k=2", "p": 0.3},
    "pp-marina": {"compressor": "randk:k=2", "p": 0.3, "fraction_train": 0.7},
    "fedavg": {"local_steps": 2},
    "dsgd": {"compressor": "qsgd:3"},
    "ef14": {"compressor": "topk:k=2", "downlink": "topk:k=2"},
    "ef21": {"compressor": "topk:k=2", "downlink": "topk:k=2"},
    "fetchsgd": {"columns": 4, "k": 2},
    "sketched-sgd": {"columns": 4, "k": 2, "momentum": 0.5},
    "sketched-amsgrad": {"columns": 4, "k": 2},
}


class KilledError(Exception):
    """The server's process is gone."""


class Noisy(FunctionTask):
    """A quadratic with noise, and a buffer that every gradient moves."""

    def __init__(self, i):
        arrays = {"x": PROBLEM.x0, "seen": np.zeros(2)}

        def gradient(x, batch):
            noise = 0.0 if batch is None else batch
            return float(x @ x), PROBLEM.A[i] @ (x - PROBLEM.b[i]) + noise

        super().__init__(
            arrays,
            gradient,
            draw=lambda rng: 0.1 * rng.standard_normal(PROBLEM.dim),
            num_examples=i + 1,
            evaluate=lambda x: {"first": float(x[0])},
        )
        self.seen = np.zeros(2)

    def gradient(self, x, batch):
        loss, gradient = super().gradient(x, batch)
        self.seen = 0.5 * self.seen + gradient[:2]
        return loss, gradient

    def buffer_names(self):
        return ("seen",)

    def buffers(self):
        return {"seen": self.seen.copy()}

    def load_buffers(self, values):
        self.seen = np.array(values["seen"])


def task_fn(i, n):
    return Noisy(i)


def evaluate(server_round, arrays):
    return MetricRecord({"norm": float(np.linalg.norm(vector(arrays)))})


def strategy_of(name, **options):
    return make_strategy(name, **{**OPTIONS.get(name, {}), **options})


def deadly(monkeypatch, at):
    """Kill the server when message number `at` was answered, before it hears of it; 0: never."""
    count, deliver = [0], InProcessGrid._deliver

    def once(self, message):
        reply = deliver(self, message)
        count[0] += 1
        if count[0] == at:
            raise KilledError
        return reply

    monkeypatch.setattr(InProcessGrid, "_deliver", once)
    return count


def run(name, rounds=ROUNDS, options=None, **more):
    """Return a run's result."""
    strategy = strategy_of(name, **(options or {}))
    return simulate(strategy, task_fn, N, rounds, SEED, evaluate, node_evaluate_fn=evaluate, **more)


def kill(monkeypatch, at, start):
    """Call `start` and kill it after message `at`."""
    with monkeypatch.context() as patch:
        deadly(patch, at)
        with pytest.raises(KilledError):
            start()


def whole_run(monkeypatch, name, **more):
    """Return a run that is never killed, and how many messages had passed by each round's end."""
    ends = []
    with monkeypatch.context() as patch:
        count = deadly(patch, 0)
        whole = run(name, on_round=lambda record: ends.append(count[0]), **more)
    return whole, ends


def killed_at(monkeypatch, name, folder, positions, ends, **more):
    """Run, killed after each of these messages of the whole run, and return the last life's."""
    start = 0  # of the life: the messages of the rounds that had ended before
    for position in positions:
        life = partial(run, name, checkpoint=folder, resume=True, **more)
        kill(monkeypatch, position - start, life)
        start = max(end for end in ends if end < position)
    return run(name, checkpoint=folder, resume=True, **more)


def records(result):
    """What the rounds gave, but for how long they took."""
    return [
        (r.round, r.metrics, r.train, r.evaluate, r.up_bytes, r.down_bytes, r.nodes)
        for r in result.history
    ]


def assert_same(result, whole):
    np.testing.assert_array_equal(vector(result.arrays), vector(whole.arrays))
    assert result.ledger.rows == whole.ledger.rows
    assert records(result) == records(whole)
