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
        nu, slope = float(self.nu[i]), float(self.slope[i])

        def gradient(x: Any, batch: Any) -> tuple[float, Any]:
            del batch  # all of f_i
            product = self._product(x, nu)
            descent = product.copy()
            descent[0] -= slope
            return float(x @ product / 2 - slope * x[0]), descent

        return FunctionTask(np.zeros(self.dim), gradient)

    def _product(self, x: Vector, nu: float) -> Vector:
        """Return A x for A = nu T / 4 + shift."""
        product: Vector = (nu / 2 + self.shift) * x
        product[:-1] -= nu / 4 * x[1:]
        product[1:] -= nu / 4 * x[:-1]
        return product

    def norm_sq(self, x: Vector) -> float:
        """Return the squared norm of the mean's gradient."""
        gradient = self._product(x, float(self.nu.mean()))
        gradient[0] -= self.slope.mean()
        return float(gradient @ gradient)

    def evaluate_fn(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Measure the model, as Flower's strategies ask for it each round."""
        del server_round
        (x,) = (array.numpy() for array in arrays.values())
        return MetricRecord({"gradient_norm_sq": self.norm_sq(x)})

    @property
    def smoothness(self) -> Smoothness:
        """L, L_plus and L_pm: the extreme eigenvalues of the mean, and of means of squares."""
        each = np.outer(self.nu / 4, self._t) + self.shift
        pm = np.sqrt(np.var(self.nu / 4) * self._t[-1] ** 2)
        plus = np.sqrt(np.max(np.mean(each**2, axis=0)))
        return Smoothness(float(np.abs(each.mean(axis=0)).max()), float(plus), float(pm))
