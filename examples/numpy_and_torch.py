"""Clients with and without torch in one run: softmax regression on scikit-learn's digits.

python examples/numpy_and_torch.py
"""

from __future__ import annotations

from flowerpress.clients import Task
from flowerpress.simulations import simulate
from flowerpress.simulations.tasks import make_task_fn
from flowerpress.strategies import make_strategy

BACKENDS = [
    make_task_fn("digits", partition="dirichlet:0.5", backend=backend)
    for backend in ("numpy", "torch")
]


def task_fn(partition_id: int, num_partitions: int) -> Task:
    """Return a numpy task for even clients, a torch task for odd ones: same data, same layout."""
    return BACKENDS[partition_id % 2](partition_id, num_partitions)


def main() -> None:
    strategy = make_strategy("ef21-sgdm", compressor="topk:0.05", lr=0.3)
    evaluate_fn = BACKENDS[0].evaluate_fn
    result = simulate(strategy, task_fn, num_clients=6, num_rounds=150, evaluate_fn=evaluate_fn)
    last = result.history[-1]
    print(f"accuracy on held-out digits: {last.metrics['accuracy']:.3f}")
    print(f"bytes sent to the server: {result.ledger.up_bytes:,}")


if __name__ == "__main__":
    main()
