"""Short runs of every strategy, and the digest of every byte that they send.

    python -m tests.same_bytes

prints a line for each run, and one for all. They are the same whatever Python, Flower, numpy and
kernels are installed: `scripts/matrix` compares them.

The clients' gradients are products, sums and differences coordinate by coordinate, which IEEE 754
rounds in one way only, and their noise is whole numbers. A matrix product or an exponential would
not do: how numpy sums and approximates there depends on its version and on the machine, and a last
bit that differs is another packet. What is tested is flowerpress, not numpy's linear algebra.
"""

from __future__ import annotations

import hashlib
import math
import sys
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message

from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations import InProcessGrid
from flowerpress.strategies import make_strategy, strategy_names

CLIENTS, ROUNDS, DIM = 4, 12, 600
SKETCH = {"columns": 64, "k": 30}
# What takes a strategy through more than its defaults do.
OPTIONS: dict[str, dict[str, Any]] = {
    "fedavg": {"local_steps": 3, "fraction_evaluate": 1.0},
    "dsgd": {"compressor": "hadamard+qsgd:7"},
    "ef14": {"compressor": "sign", "downlink": "topk:0.1"},
    "ef21-sgdm": {"compressor": "topk:0.05+fp16", "fraction_train": 0.5},
    "marina": {"compressor": "permk", "p": 0.3},
    "diana": {"compressor": "natural"},
    "dasha": {"compressor": "qsgd:7+rans"},
    "onebit-adam": {"warmup_rounds": 4},
    "fetchsgd": SKETCH,
    "sketched-sgd": SKETCH,
    "sketched-amsgrad": SKETCH,
    "squarm-sgd": {"compressor": "signtopk:0.1", "collect_every": 5},
    "choco-sgd": {"gamma": "auto"},
}


class Listening(InProcessGrid):
    """A grid that digests the content of each message, there and back."""

    def __init__(self) -> None:
        super().__init__(lambda: client_app(task_fn), CLIENTS, threads=1)
        self.heard = hashlib.sha256()

    def _deliver(self, message: Message) -> Message | None:
        reply = super()._deliver(message)
        for each in (message, reply):
            if each is not None and each.has_content():
                for name, record in each.content.items():
                    self.heard.update(f"{name}: ".encode() + plain(record))
        return reply


def plain(record: Any) -> bytes:
    """Return a record as bytes: arrays as they are, numbers and texts as Python writes them."""
    if isinstance(record, ArrayRecord):
        return b"".join(f"{k} {a.dtype} {a.shape} ".encode() + a.data for k, a in record.items())
    return repr(sorted(record.items())).encode()


def task_fn(client: int, clients: int) -> FunctionTask:
    """Draw a client towards a centre of its own, by a quadratic with a diagonal matrix."""
    place = np.arange(DIM, dtype=np.float32)
    a = 0.25 + (place % 8) / 16
    b = ((7 * place + 13 * client) % 31 - 15) / 8

    def gradient(x: Any, noise: Any) -> Any:
        away = x - b
        loss = math.fsum((0.5 * a * away * away).tolist())  # rounded once, whatever the order
        return loss, a * away + (0 if noise is None else noise)

    return FunctionTask(
        np.zeros(DIM, np.float32),
        gradient,
        draw=lambda rng: (rng.integers(-8, 9, DIM) / 64).astype(np.float32),
        num_examples=client + 1,
        evaluate=lambda x: {"loss": gradient(x, None)[0]},
    )


def digest(name: str) -> tuple[str, int]:
    """Run a strategy; returns a digest of what was sent and what came of it, and the bytes."""
    strategy = make_strategy(name, seed=3, lr=0.02, **OPTIONS.get(name, {}))
    with Listening() as grid:
        result = strategy.start(grid, task_fn(0, CLIENTS).initial_arrays(), num_rounds=ROUNDS)
    grid.heard.update(plain(result.arrays) + repr(strategy.ledger.rows).encode())
    return grid.heard.hexdigest()[:16], strategy.ledger.up_bytes + strategy.ledger.down_bytes


def lines() -> list[str]:
    """Return a line for each strategy, and one for all."""
    found = [f"{name:<18}{' '.join(map(str, digest(name)))}" for name in strategy_names()]
    together = hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]
    return [*found, f"{'all':<18}{together}"]


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
