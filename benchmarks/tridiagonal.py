"""Uplink bytes, as sent, until a gradient norm is reached: PermK, CQ and independent quantization.

    python benchmarks/tridiagonal.py                       # n = 10 and 50, all workers alike
    python benchmarks/tridiagonal.py --workers 10 50 100 200 400 --noise 0 0.3 --seeds 5
    python benchmarks/tridiagonal.py --workers 10 --dims 32 1024 32768
    python benchmarks/tridiagonal.py --workers 10 --logistic --dims 1024

The quadratic of Panferov et al. 2024, or logistic regression with the regularizer of MARINA's
paper, 100 synthetic examples a worker; step sizes and coins by theory, none tuned. CQ is by the
vector's norm, as in the paper, or by its root mean square, alone and after a rotation. Bytes are
what one worker sent, median over seeds: packets with their headers, and with the framing of
messages, which is most at d = 32. A run is given up after --rounds.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple, Protocol

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from rich.console import Console
from rich.table import Table

from flowerpress.compressors import make_compressor
from flowerpress.server.theory import Smoothness, variance_constants
from flowerpress.simulations import simulate
from flowerpress.simulations.reproduce.marina_arms import coin
from flowerpress.simulations.tasks.libsvm import LogisticTask
from flowerpress.simulations.tridiagonal import Tridiagonal
from flowerpress.strategies import make_strategy
from flowerpress.tasks.task import Task

_LAM = 1e-3  # of the regularizer
TARGET = 1e-4  # of the squared norm; it starts from 0.0625, of logistic regression about 0.04
METHODS = {
    "gradient descent": ("marina", "identity"),
    "MARINA, PermK": ("marina", "permk"),
    "MARINA, CQ": ("marina", "cq:range=l2"),
    "MARINA, CQ, alike": ("marina", "cq:range=l2 alike"),
    "MARINA, CQ, authors": ("marina", "cq:range=l2 authors"),
    "MARINA, CQ by rms": ("marina", "cq"),
    "MARINA, rotated CQ by rms": ("marina", "hadamard+cq"),
    "MARINA, rotated CQ, 5 levels": ("marina", "hadamard+cq:5,c=5+rans"),
    "MARINA, rotated CQ, 33 levels": ("marina", "hadamard+cq:33,c=6+rans"),
    "MARINA, independent 1-bit": ("marina", "independent"),
    "MARINA, RandK": ("marina", "randk"),
    "distributed SGD, CQ": ("dsgd", "cq:range=l2"),
    "distributed SGD, rotated CQ, 5 levels": ("dsgd", "hadamard+cq:5,c=5+rans"),
}


class Problem(Protocol):
    """Functions of some workers, with known constants."""

    dim: int
    smoothness: Smoothness

    def task_fn(self, i: int, n: int) -> Task:
        """Return worker `i`'s task."""

    def evaluate_fn(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Return the squared norm of the mean's gradient, as ``gradient_norm_sq``."""


class Logistic:
    """Logistic regression whose examples are shared out at random.

    L_plus is the root mean square of the workers' own constants; L_pm is not known.
    """

    def __init__(self, workers: int, dim: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        features = rng.standard_normal((workers, 100, dim)) / np.sqrt(np.arange(1, dim + 1))
        plane = rng.standard_normal(dim)
        labels = np.sign(features @ plane + 0.1 * rng.standard_normal((workers, 100)))
        self.dim, pairs = dim, list(zip(features, labels, strict=True))
        self.tasks = [LogisticTask(a, b, _LAM) for a, b in pairs]
        self.whole = LogisticTask(np.concatenate(features), np.concatenate(labels), _LAM)
        plus = math.sqrt(statistics.mean(task.smoothness() ** 2 for task in self.tasks))
        self.smoothness = Smoothness(self.whole.smoothness(), plus)

    def task_fn(self, i: int, n: int) -> Task:
        """Return worker `i`'s task."""
        del n
        return self.tasks[i]

    def evaluate_fn(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Measure the model, as Flower's strategies ask for it each round."""
        del server_round
        (x,) = (array.numpy() for array in arrays.values())
        _, gradient = self.whole.gradient(x, None)
        return MetricRecord({"gradient_norm_sq": float(gradient @ gradient)})


class Reached(NamedTuple):
    """When the target was reached, and what one worker had sent; None: not within the rounds."""

    rounds: int | None
    payload: float
    sent: float


class DoneError(Exception):
    """The target is reached."""


def reach(
    method: str,
    problem: Problem,
    workers: int,
    seed: int,
    limit: int,
    target: float = TARGET,
) -> Reached:
    """Run a method until the gradient's squared norm is at most `target`."""
    name, kind = METHODS[method]
    by_theory = options(name, kind, problem, workers)
    strategy = make_strategy(name, seed=seed, weights="uniform", **by_theory)
    last = 0

    def watch(record: Any) -> None:
        nonlocal last
        last = record.round
        if record.metrics["gradient_norm_sq"] <= target:
            raise DoneError

    try:
        simulate(
            strategy,
            problem.task_fn,
            workers,
            limit,
            seed,
            problem.evaluate_fn,
            threads=1,
            on_round=watch,
        )
        found = None
    except DoneError:
        found = last
    rows = [r for r in strategy.ledger.rows if r.direction == "up" and r.purpose == "train"]
    payload = sum(row.payload for row in rows) / workers
    return Reached(found, payload, payload + sum(row.framing for row in rows) / workers)


def options(name: str, kind: str, problem: Problem, workers: int) -> dict[str, Any]:
    """Return the strategy's options by theory."""
    dim, s = problem.dim, problem.smoothness
    kind, _, named = kind.partition(" ")
    spec = {
        "independent": "cq:range=l2,rounding=independent",
        "randk": f"randk:k={max(1, dim // workers)}",
    }.get(kind, kind)
    compressor = make_compressor(spec)
    # Where workers are alike, or on request: `Marina`'s variance has these names.
    stated = compressor.homogeneous(dim, workers) if s.L_pm == 0 or named else None
    alike, share = stated is not None, 0.25 if named == "authors" else 1.0
    variance = -1.0 if stated is None else share * stated
    if name == "dsgd":
        # Compressed gradient descent: 1 / (L + A L_plus^2 / L), and a floor where workers differ.
        a = variance if alike else variance_constants(compressor.traits(dim, workers), workers)[0]
        return {"compressor": spec, "lr": 1 / (s.L + a * s.plus**2 / s.L)}
    constants = {"smoothness": s.L, "smoothness_plus": s.plus, "smoothness_pm": s.pm}
    own = {"compressor": spec, "lr": "theory", "variance": variance, **constants}
    if kind == "identity":
        return {**own, "p": 1.0}
    if kind == "permk":
        return {**own, "p": 1 / workers}
    if kind == "randk":
        return {**own, "p": max(1, dim // workers) / dim}
    if "l2" not in spec:
        return own  # the coin by what its packets take
    ab = (variance, 0.0) if alike else variance_constants(compressor.traits(dim, workers), workers)
    return {**own, "p": coin(s, ab, dim)}


def table(
    workers: int, make: Callable[[int], Problem], title: str, seeds: int, limit: int
) -> Table:
    """Run all methods on one problem; `make` takes its seed."""
    result = Table(title=title, title_justify="left", box=None)
    for heading in ("method", "rounds", "bytes of packets", "with framing"):
        result.add_column(heading, justify="left" if heading == "method" else "right")
    for method in METHODS:
        runs = [reach(method, make(seed), workers, seed, limit) for seed in range(seeds)]
        if any(run.rounds is None for run in runs):
            result.add_row(method, f"not in {limit}", "", "")
            continue
        medians = (statistics.median(column) for column in zip(*runs, strict=True))
        result.add_row(method, *(f"{value:,.0f}" for value in medians))
    return result


def main() -> None:
    """Print one table for each number of workers and noise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2000, help="most rounds of a run")
    parser.add_argument("--dims", type=int, nargs="+", default=[32])
    parser.add_argument("--logistic", action="store_true", help="logistic regression")
    given = parser.parse_args()
    console = Console()
    for dim, noise, workers in product(given.dims, given.noise, given.workers):
        title = f"n = {workers}, d = {dim}, noise = {noise:g}"
        make: Callable[[int], Problem] = partial(Tridiagonal, workers, dim, noise, 1e-6)
        if given.logistic:
            title, make = (
                f"logistic regression, n = {workers}, d = {dim}",
                partial(Logistic, workers, dim),
            )
        console.print(table(workers, make, title, given.seeds, given.rounds))
        console.print()


if __name__ == "__main__":
    main()
