"""Write data for the example: scikit-learn's digits, shared out among three clients and the server.

    python make_data.py data

A quarter is held out: the server measures the model on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

CLIENTS = 3


def main(folder: Path) -> None:
    inputs, labels = load_digits(return_X_y=True)
    inputs = (inputs / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(labels))
    test, *shards = np.array_split(order, CLIENTS + 1)
    write(folder / "server", "_test", inputs[test], labels[test])
    for client, shard in enumerate(shards):
        write(folder / str(client), "", inputs[shard], labels[shard])


def write(folder: Path, suffix: str, inputs: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"x{suffix}.npy", inputs)
    np.save(folder / f"y{suffix}.npy", labels)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
