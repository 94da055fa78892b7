"""Your own problem in numpy: four clients with data of their own, one model that fits all.

python examples/least_squares.py
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowerpress.clients import FunctionTask
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy

Vector = npt.NDArray[np.float64]
FEATURES = 20
TRUTH = np.linspace(-1, 1, FEATURES)


def task_fn(partition_id: int, num_partitions: int) -> FunctionTask:
    """Return one client's task: 50 examples of its own, drawn from its own law."""
    rng = np.random.default_rng(partition_id)
    inputs = rng.standard_normal((50, FEATURES)) * (1 + partition_id / num_partitions)
    targets = inputs @ TRUTH + 0.1 * rng.standard_normal(50)

    def gradient(x: Vector, _batch: None) -> tuple[float, Vector]:
        error = inputs @ x - targets
        return float(error @ error) / 100, inputs.T @ error / 50

    return FunctionTask(np.zeros(FEATURES), gradient, num_examples=50)


def main() -> None:
    strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.05)
    result = simulate(strategy, task_fn, num_clients=4, num_rounds=300)
    found = result.arrays["x"].numpy()
    print(f"largest error of the {FEATURES} coefficients: {np.abs(found - TRUTH).max():.3f}")
    print(f"bytes sent to the server: {result.ledger.up_bytes:,}")


if __name__ == "__main__":
    main()
