"""Task `quadratic`: the papers' tridiagonal quadratic, with noise in the gradients on request."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from flowerpress.server.theory import Smoothness
from flowerpress.simulations.tasks import options
from flowerpress.simulations.tasks.base import ShippedTaskFn
from flowerpress.simulations.tasks.partition import Indices
from flowerpress.simulations.tridiagonal import Tridiagonal
from flowerpress.tasks.task import Batch, FlatVector, Task

Vector = npt.NDArray[np.float64]


class QuadraticTask(Task):
    """One f_i of `Tridiagonal`, or the mean of all.

    Parameters
    ----------
    problem : Tridiagonal
    client : int or None
        Whose f_i; None: the mean.
    x0 : array, shape (d,), float64
        Initial model.
    gradient_noise : float, default 0
        sigma: what is drawn for a batch is an N(0, sigma^2 / d) number for each coordinate, which
        is added to the gradient; the squared norm of all has the mean sigma^2.

    Examples
    --------
    >>> task = QuadraticTask(Tridiagonal(2, dim=3), 0, np.zeros(3))
    >>> task.gradient(np.zeros(3), None)
    (0.0, array([0.25, 0.  , 0.  ]))
    """

    num_examples = 1

    def __init__(
        self, problem: Tridiagonal, client: int | None, x0: Vector, gradient_noise: float = 0.0
    ) -> None:
        self._problem, self._client, self._x0 = problem, client, x0
        self._deviation = gradient_noise / math.sqrt(problem.dim)

    def initial_arrays(self) -> ArrayRecord:
        """Return the initial model: one array `x` of shape (d,), float64."""
        return ArrayRecord({"x": Array(self._x0)})

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw what is added to the gradient; None without noise."""
        if not self._deviation:
            return None
        return self._deviation * rng.standard_normal(self._problem.dim)

    def gradient(self, x: FlatVector, batch: Batch) -> tuple[float, FlatVector]:
        """Return f_i and its gradient, with the noise `batch` if it is not None."""
        loss, gradient = self._problem.gradient(np.asarray(x, np.float64), self._client)
        if batch is not None:
            loss, gradient = loss + float(batch @ x), gradient + batch
        return loss, gradient

    def evaluate(self, x: FlatVector) -> dict[str, float]:
        """Return `loss` and `gradient_norm_sq`, without noise."""
        loss, gradient = self.gradient(x, None)
        return {"loss": loss, "gradient_norm_sq": float(gradient @ gradient)}


class QuadraticTaskFn(ShippedTaskFn):
    """The quadratic, for any number of clients: there are no data to share out.

    What is measured is the mean of the clients' functions.
    """

    name = "quadratic"
    summary_line = "the papers' tridiagonal quadratic: exact constants, unlike clients, noise"
    citation = (
        "Szlendak, Tyurin and Richtarik, arXiv:2110.03300; Fatkhullin, Tyurin and Richtarik, "
        "arXiv:2305.15155"
    )
    options = {  # noqa: RUF012  (read only)
        "dim": options.whole(1),
        "noise": options.real(0),
        "convexity": options.real(0),
        "gradient_noise": options.real(0),
        "x0": options.choice("zeros", "far"),
    }

    def __init__(
        self,
        *,
        partition: str = "iid",
        seed: int = 0,
        dim: int = 32,
        noise: float = 0.0,
        convexity: float = 1e-6,
        gradient_noise: float = 0.0,
        x0: str = "zeros",
    ) -> None:
        """Remember the options: the problem depends on the number of clients.

        Parameters
        ----------
        partition : str
            Nothing but the default: there are no data.
        seed : int, default 0
            Fixes how the clients differ.
        dim : int, default 32
            Number of coordinates d.
        noise : float, default 0
            s, how much the clients differ; for 0 all are alike.
        convexity : float, default 1e-6
            Smallest eigenvalue of the mean's Hessian.
        gradient_noise : float, default 0
            sigma, see `QuadraticTask`. 0: exact gradients.
        x0 : str, default "zeros"
            `zeros`, or `far`: sqrt(d) in the first coordinate, where the papers start.
        """
        if partition != "iid":
            raise ValueError("task 'quadratic' has no partition: there are no data to share out")
        super().__init__(seed)
        self._dim, self._noise, self._convexity = dim, noise, convexity
        self._gradient_noise = gradient_noise
        self._x0 = np.zeros(dim)
        if x0 == "far":
            self._x0[0] = math.sqrt(dim)
        self._problem: Tridiagonal | None = None

    def problem(self, num_partitions: int) -> Tridiagonal:
        """Return the problem of so many clients.

        Raises
        ------
        ValueError
            If there are no clients.
        """
        if num_partitions < 1:
            raise ValueError(f"a quadratic of {num_partitions} clients: there must be at least 1")
        problem = self._problem
        if problem is None or len(problem.nu) != num_partitions:
            problem = Tridiagonal(
                num_partitions, self._dim, self._noise, self._convexity, self._seed
            )
            self._problem = problem
        return problem

    def __call__(self, partition_id: int, num_partitions: int) -> QuadraticTask:
        """Return f_i of client `partition_id` of `num_partitions`."""
        self.check_client(partition_id, num_partitions)
        return QuadraticTask(
            self.problem(num_partitions), partition_id, self._x0, self._gradient_noise
        )

    def shards(self, num_partitions: int) -> list[Indices]:
        """Return each client's one example: itself."""
        self.expect(num_partitions)
        return [np.array([client]) for client in range(num_partitions)]

    def expect(self, num_partitions: int) -> None:
        """Hear for how many clients a run is: the mean is over these."""
        self.problem(num_partitions)

    def initial_arrays(self) -> ArrayRecord:
        """Return the initial model, the same for any number of clients."""
        return ArrayRecord({"x": Array(self._x0)})

    def held_out(self) -> QuadraticTask:
        """Return the mean of the clients' functions.

        Raises
        ------
        ValueError
            If it is not known yet how many clients there are.
        """
        if self._problem is None:
            raise ValueError(
                "the mean of a quadratic is over its clients: say how many there are with "
                "expect(num_partitions) first"
            )
        return QuadraticTask(self._problem, None, self._x0)

    def smoothness_of(self, num_partitions: int, weights: str = "uniform") -> Smoothness:
        """Return the constants, which are exact; all clients count alike."""
        del weights
        return self.problem(num_partitions).smoothness
