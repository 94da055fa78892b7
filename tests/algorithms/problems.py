"""Small problems with known solutions, and the run of a strategy on them, round by round."""

import numpy as np
from flwr.app import ArrayRecord

from flowerpress.clients import FunctionTask
from flowerpress.compressors import Packet, add_to
from flowerpress.simulations import simulate
from flowerpress.worker.stores import DiskStore

SEED = 11


class Quadratics:
    """f_i(x) = 0.5 (x - b_i)' A_i (x - b_i), different on every client; noise on request."""

    def __init__(self, n=5, dim=8, noise=0.0, seed=0):
        rng = np.random.default_rng(seed)
        self.n, self.dim, self.noise = n, dim, noise
        roots = rng.standard_normal((n, dim, dim)) / np.sqrt(dim)
        self.A = np.einsum("nij,nkj->nik", roots, roots) + 0.3 * np.eye(dim)
        self.b = 2 * rng.standard_normal((n, dim))
        self.x0 = rng.standard_normal(dim)

    @property
    def smoothness(self):
        """L of the mean, and the quadratic mean of the L_i."""
        each = [np.linalg.eigvalsh(a)[-1] for a in self.A]
        return np.linalg.eigvalsh(self.A.mean(axis=0))[-1], float(np.sqrt(np.mean(np.square(each))))

    def solution(self):
        return np.linalg.solve(self.A.sum(axis=0), np.einsum("nij,nj->i", self.A, self.b))

    def full_gradient(self, x):
        return np.mean([self.A[i] @ (x - self.b[i]) for i in range(self.n)], axis=0)

    def gradient(self, i, x, r):
        """What worker i computes in round r: the worker's documented stream gives the noise."""
        rng = np.random.default_rng([SEED, i, r])
        return self.A[i] @ (x - self.b[i]) + self.noise * rng.standard_normal(self.dim)

    def task_fn(self, i, n):
        def gradient(x, batch):
            return 0.0, self.A[i] @ (x - self.b[i]) + batch

        return FunctionTask(
            self.x0, gradient, draw=lambda rng: self.noise * rng.standard_normal(self.dim)
        )


class Triangle:
    """f_i(x) = (a_i' x)^2 + |x|^2 / 4, a_i = (-3, 2, 2) and its rotations: top-1 picks badly."""

    a = np.array([[-3.0, 2, 2], [2, -3, 2], [2, 2, -3]])
    L, Ltilde, mu = 17.0 + 1 / 6, 34.5, 1 + 1 / 6

    def gradient(self, i, x):
        return 2 * self.a[i] * (self.a[i] @ x) + x / 2

    def value(self, x):
        return float(np.mean((self.a @ x) ** 2) + x @ x / 4)

    def task_fn(self, i, n):
        return FunctionTask(np.ones(3), lambda x, _: (0.0, self.gradient(i, x)))


def vector(arrays: ArrayRecord):
    return np.concatenate([array.numpy().ravel() for array in arrays.values()])


def trajectory(strategy, task_fn, clients, rounds, seed=SEED, **options):
    """Run and return the result and the models x^0, x^1, ..."""
    models = []
    result = simulate(
        strategy,
        task_fn,
        clients,
        rounds,
        seed,
        evaluate_fn=lambda r, arrays: models.append(vector(arrays)),
        **options,
    )
    return result, np.array(models)


def cohorts(result):
    """The workers asked in each round."""
    asked = {}
    for row in result.ledger.rows:
        if row.purpose == "train" and row.direction == "down":
            asked.setdefault(row.round, []).append(row.client)
    return asked


def worker_memory(state_dir, client, applied, name="memory"):
    """A worker's vector from its disk, settled as if it had just been told `applied`."""
    (path,) = state_dir.glob(f"run-*/client-{client}.safetensors")
    state = DiskStore(path).load()
    if name == "memory" and name not in state.vectors:  # nothing before the first packet is applied
        first = Packet.parse(state.packet)
        state.vectors[name] = np.zeros(first.dim, first.dtype)
    memory = state.vectors[name].copy()
    if name == "memory" and state.packet and applied == state.numbers["pending"]:
        add_to(state.packet, memory, state.numbers["scale"])
    return memory
