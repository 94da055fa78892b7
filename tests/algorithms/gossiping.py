"""Nodes of a graph on quadratics that differ, and their models round by round."""

import numpy as np

from flowerpress.simulations import simulate
from flowerpress.strategies.topology import make_topology
from tests.algorithms.problems import SEED, Quadratics, vector


class Nodes(Quadratics):
    """`gradient` also knows the local step: noise comes from the worker's documented stream."""

    def gradient(self, i, x, t, h=0):
        rng = np.random.default_rng([SEED, i, t])
        noise = [rng.standard_normal(self.dim) for _ in range(h + 1)][-1]
        return self.A[i] @ (x - self.b[i]) + self.noise * noise


def weights(spec, n):
    return make_topology(spec, range(n), SEED).matrix


def run(strategy, task_fn, n, rounds, **options):
    """Return the result, and all nodes' models after each round, shape (rounds, n, d)."""
    models = []

    def collect(record):
        if record.round:
            models.append([vector(arrays) for _, arrays in strategy.local_models()])

    strategy.collect_every = 1
    result = simulate(strategy, task_fn, n, rounds, SEED, on_round=collect, **options)
    return result, np.array(models)


def spread(models):
    """Squared distance of the models from their mean, summed; over the last two axes."""
    return np.sum((models - models.mean(axis=-2, keepdims=True)) ** 2, axis=(-2, -1))
