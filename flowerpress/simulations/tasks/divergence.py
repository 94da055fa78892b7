"""Task `divergence`: the papers' examples of methods that do not converge.

`noise` (Fatkhullin, Tyurin, Richtarik, arXiv:2305.15155, Theorem 1): f(x) = |x|^2 / 2 in the plane,
for all clients, and noise in the gradients with mean zero whose largest coordinate has not. With
top-1 and one sample a step, EF21-SGD stops at a floor that more clients and smaller steps do not
lower as they should; its momentum (EF21-SGDM, EF21-SGD2M) does away with it. The theorem itself is
of an idealised EF21-SGD that knows the last exact gradient.

`three-clients` (Beznosikov, Horvath, Richtarik, Safaryan, arXiv:2002.12410, Example 1):
f_i(x) = <a_i, x>^2 + |x|^2 / 4 in space. With top-1 and no memory, gradient descent with step gamma
from (t, t, t) goes to (1 + 11 gamma / 6) (t, t, t): away from the solution, for any gamma > 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from flowerpress.server.theory import Smoothness
from flowerpress.simulations.tasks import options
from flowerpress.simulations.tasks.base import ShippedTaskFn
from flowerpress.simulations.tasks.partition import Indices
from flowerpress.tasks.task import Batch, FlatVector, Task

Matrix = npt.NDArray[np.float64]

# Mean zero; of the squared norms 10 / 3. Top-1 of them has the mean (0, 1/3).
_NOISE = np.array([[2.0, 0.0], [0.0, 1.0], [-2.0, -1.0]])
_SLOPES = np.array([[-3.0, 2.0, 2.0], [2.0, -3.0, 2.0], [2.0, 2.0, -3.0]])


class ExampleTask(Task):
    """f(x) = x' H x / 2, and rows of noise, one of which is added to a gradient.

    Parameters
    ----------
    hessian : array, shape (d, d), float64
        H, symmetric.
    x0 : array, shape (d,), float64
        Initial model.
    noise : array, shape (r, d), float64, optional
        Each row is as likely. Default: none, exact gradients.

    Examples
    --------
    >>> task = ExampleTask(np.eye(2), np.array([0.0, -1.0]), np.array([[2.0, 0.0], [-2.0, 0.0]]))
    >>> task.gradient(np.array([0.0, -1.0]), None), task.gradient(np.array([0.0, -1.0]), 0)
    ((0.5, array([ 0., -1.])), (0.5, array([ 2., -1.])))
    """

    num_examples = 1

    def __init__(self, hessian: Matrix, x0: Matrix, noise: Matrix | None = None) -> None:
        self._hessian, self._x0, self._noise = hessian, x0, noise

    def initial_arrays(self) -> ArrayRecord:
        """Return the initial model: one array `x` of shape (d,), float64."""
        return ArrayRecord({"x": Array(self._x0)})

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw the number of a row of noise; None where there is none."""
        return None if self._noise is None else int(rng.integers(len(self._noise)))

    def gradient(self, x: FlatVector, batch: Batch) -> tuple[float, FlatVector]:
        """Return f and its gradient, with the row `batch` of the noise if it is not None."""
        gradient: Any = self._hessian @ x
        loss = float(x @ gradient) / 2
        if batch is not None and self._noise is not None:
            row = self._noise[batch]
            loss, gradient = loss + float(row @ x), gradient + row
        return loss, gradient

    def evaluate(self, x: FlatVector) -> dict[str, float]:
        """Return `loss` and `gradient_norm_sq`, without noise."""
        loss, gradient = self.gradient(x, None)
        return {"loss": loss, "gradient_norm_sq": float(gradient @ gradient)}


class DivergenceTaskFn(ShippedTaskFn):
    """Examples on which top-1 fails without momentum, or without memory; the solution is 0."""

    name = "divergence"
    summary_line = "the papers' examples where top-1 fails: for EF21-SGD, and without any memory"
    citation = (
        "Fatkhullin, Tyurin and Richtarik, arXiv:2305.15155, Theorem 1; Beznosikov, Horvath, "
        "Richtarik and Safaryan, arXiv:2002.12410, Example 1"
    )
    options = {  # noqa: RUF012  (read only)
        "example": options.choice("noise", "three-clients"),
        "gradient_noise": options.real(0),
    }

    def __init__(
        self,
        *,
        partition: str = "iid",
        seed: int = 0,
        example: str = "noise",
        gradient_noise: float = 1.0,
    ) -> None:
        """Make the example.

        Parameters
        ----------
        partition : str
            Nothing but the default: there are no data.
        seed : int, default 0
            Fixes nothing here: the examples are the papers'.
        example : str, default "noise"
            `noise` or `three-clients`.
        gradient_noise : float, default 1
            sigma of `noise`: the mean squared norm of what is added is sigma^2.
        """
        if partition != "iid":
            raise ValueError("task 'divergence' has no partition: there are no data to share out")
        super().__init__(seed)
        self._example, self._noise = example, None
        if example == "three-clients":
            self._x0 = np.ones(3)
            self._hessians = np.array([2 * np.outer(a, a) + np.eye(3) / 2 for a in _SLOPES])
            return
        self._x0 = np.array([0.0, -1.0])
        self._hessians = np.eye(2)[None]
        if gradient_noise:
            self._noise = gradient_noise * math.sqrt(0.3) * _NOISE

    def __call__(self, partition_id: int, num_partitions: int) -> ExampleTask:
        """Return the function of client `partition_id`: the three are dealt out by turns."""
        self.check_client(partition_id, num_partitions)
        self.expect(num_partitions)
        hessian = self._hessians[partition_id % len(self._hessians)]
        return ExampleTask(hessian, self._x0, self._noise)

    def shards(self, num_partitions: int) -> list[Indices]:
        """Return each client's one example: itself."""
        self.expect(num_partitions)
        return [np.array([client]) for client in range(num_partitions)]

    def expect(self, num_partitions: int) -> None:
        """Raise `ValueError` where the example is not of so many clients."""
        if num_partitions < 1 or num_partitions % len(self._hessians):
            count = len(self._hessians)
            raise ValueError(
                f"example {self._example!r} is of {count} clients or a multiple, not of "
                f"{num_partitions}: give --clients {count} (or min-available-nodes={count})"
            )

    def held_out(self) -> ExampleTask:
        """Return the mean of the clients' functions, without noise."""
        return ExampleTask(self._hessians.mean(axis=0), self._x0)

    def smoothness_of(self, num_partitions: int, weights: str = "uniform") -> Smoothness:
        """Return the constants, which are exact; all clients count alike.

        With H_i the Hessians, L_plus^2 is the largest eigenvalue of mean H_i^2, and L_pm^2 that of
        mean H_i^2 - (mean H_i)^2.
        """
        self.expect(num_partitions)
        del weights
        mean = self._hessians.mean(axis=0)
        squares = np.mean([each @ each for each in self._hessians], axis=0)
        plus, pm = (float(np.linalg.eigvalsh(a)[-1]) for a in (squares, squares - mean @ mean))
        largest = max(float(np.linalg.eigvalsh(each)[-1]) for each in self._hessians)
        top = float(np.linalg.eigvalsh(mean)[-1])
        return Smoothness(top, math.sqrt(plus), math.sqrt(max(pm, 0.0)), L_max=largest)
