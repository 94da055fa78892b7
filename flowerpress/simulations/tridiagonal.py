"""The worst-case quadratic of the correlated-compression papers, with known smoothness.

    f_i(x) = x' A_i x / 2 - b_i' x,   A_i = nu_i T / 4 + shift,   T = tridiag(-1, 2, -1),
    nu_i = 1 + s N(0, 1),   b_i = nu_i / 4 (-1 + s N(0, 1)) e_1

with a shift that makes the mean's smallest eigenvalue `convexity` (Szlendak, Tyurin, Richtarik
2022, arXiv:2110.03300; Panferov et al. 2024, arXiv:2401.05518). For s = 0 all workers are alike.
All A_i have T's eigenvectors, so every constant is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, MetricRecord

from flowerpress.clients import FunctionTask
from flowerpress.server.theory import Smoothness

Vector = npt.NDArray[np.float64]


class Tridiagonal:
    """A task function: `task_fn(i, n)` is worker i's f_i.

    Parameters
    ----------
    workers : int
        n.
    dim : int (default: 32)
    noise : float (default: 0)
        s, how much the workers differ.
    convexity : float (default: 1e-6)
        Smallest eigenvalue of the mean.
    seed : int (default: 0)

    Examples
    --------
    >>> problem = Tridiagonal(workers=10)
    >>> problem.norm_sq(np.zeros(32))
    0.0625
    >>> problem.smoothness.L_pm
    0.0
    """

    def __init__(
        self,
        workers: int,
        dim: int = 32,
        noise: float = 0.0,
        convexity: float = 1e-6,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.nu = 1 + noise * rng.standard_normal(workers)
        self.slope = self.nu / 4 * (-1 + noise * rng.standard_normal(workers))
        self.dim = dim
        # Eigenvalues of T, from the smallest to the largest.
        self._t = 2 - 2 * np.cos(np.arange(1, dim + 1) * np.pi / (dim + 1))
        mean = self.nu.mean() / 4
        self.shift = convexity - min(mean * self._t[0], mean * self._t[-1])

    def task_fn(self, i: int, n: int) -> FunctionTask:
        """Return worker `i`'s task."""
        if n != len(self.nu):
            raise ValueError(f"this problem is for {len(self.nu)} workers, not {n}")

        def gradient(x: Any, batch: Any) -> tuple[float, Any]:
            del batch  # all of f_i
            return self.gradient(x, i)

        return FunctionTask(np.zeros(self.dim), gradient)

    def gradient(self, x: Vector, i: int | None = None) -> tuple[float, Vector]:
        """Return f_i(x) and its gradient; of the mean of all f_i where `i` is None."""
        nu = float(self.nu.mean() if i is None else self.nu[i])
        slope = float(self.slope.mean() if i is None else self.slope[i])
        product = self._product(x, nu)
        descent = product.copy()
        descent[0] -= slope
        return float(x @ product / 2 - slope * x[0]), descent

    def _product(self, x: Vector, nu: float) -> Vector:
        """Return A x for A = nu T / 4 + shift."""
        product: Vector = (nu / 2 + self.shift) * x
        product[:-1] -= nu / 4 * x[1:]
        product[1:] -= nu / 4 * x[:-1]
        return product

    def norm_sq(self, x: Vector) -> float:
        """Return the squared norm of the mean's gradient."""
        gradient = self.gradient(x)[1]
        return float(gradient @ gradient)

    def evaluate_fn(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Measure the model, as Flower's strategies ask for it each round."""
        del server_round
        (x,) = (array.numpy() for array in arrays.values())
        return MetricRecord({"gradient_norm_sq": self.norm_sq(x)})

    @property
    def smoothness(self) -> Smoothness:
        """The constants, exact: extreme eigenvalues of the mean, of means of squares, of each."""
        each = np.outer(self.nu / 4, self._t) + self.shift
        pm = np.sqrt(np.var(self.nu / 4) * self._t[-1] ** 2)
        plus = np.sqrt(np.max(np.mean(each**2, axis=0)))
        largest = float(np.abs(each).max())
        mean = float(np.abs(each.mean(axis=0)).max())
        return Smoothness(mean, float(plus), float(pm), L_max=largest)
