"""Uplink bytes, as sent, until a gradient norm is reached: PermK, CQ and independent quantization.

    python benchmarks/tridiagonal.py                       # n = 10 and 50, all workers alike
    python benchmarks/tridiagonal.py --workers 10 50 100 200 400 --noise 0 0.3 --seeds 5

The quadratic of Panferov et al. 2024 (d = 32), step sizes and coins by theory, none tuned. Bytes
are what one worker sent, median over seeds: packets with their headers, and with the
framing of messages, which is most at this dimension.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from flowerpress.compressors import make_compressor
from flowerpress.compressors.quantized.cq import CQ
from flowerpress.server.theory import best_p, marina_lr, variance_constants
from flowerpress.simulations import simulate
from flowerpress.simulations.tridiagonal import Tridiagonal
from flowerpress.strategies import make_strategy

TARGET = 1e-4  # of the squared norm; it starts from 0.0625
METHODS = {
    "gradient descent": ("marina", "identity"),
    "MARINA, PermK": ("marina", "permk"),
    "MARINA, CQ": ("marina", "cq"),
    "MARINA, CQ, alike": ("marina", "cq alike"),
    "MARINA, CQ, authors": ("marina", "cq authors"),
    "MARINA, independent 1-bit": ("marina", "independent"),
    "MARINA, RandK": ("marina", "randk"),
    "distributed SGD, CQ": ("dsgd", "cq"),
}


class Reached(NamedTuple):
    """When the target was reached, and what one worker had sent; None: not within the rounds."""

    rounds: int | None
    payload: float
    sent: float


class DoneError(Exception):
    """The target is reached."""


def reach(
    method: str,
    problem: Tridiagonal,
    seed: int,
    limit: int,
    target: float = TARGET,
) -> Reached:
    """Run a method until the gradient's squared norm is at most `target`."""
    workers = len(problem.nu)
    name, kind = METHODS[method]
    strategy = make_strategy(name, seed=seed, weights="uniform", **options(name, kind, problem))
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


def options(name: str, kind: str, problem: Tridiagonal) -> dict[str, Any]:
    """Return the strategy's options by theory."""
    workers, dim, s = len(problem.nu), problem.dim, problem.smoothness
    kind, _, named = kind.partition(" ")
    spec = {
        "independent": "cq:rounding=independent",
        "randk": f"randk:k={max(1, dim // workers)}",
    }.get(kind, kind)
    compressor = make_compressor(spec)
    # Where workers are alike, or on request: `Marina`'s variance has these names.
    alike = isinstance(compressor, CQ) and (s.L_pm == 0 or bool(named))
    share = 0.25 if named == "authors" else 1.0
    variance = share * compressor.homogeneous(dim, workers) if alike else -1.0
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
    # As the paper has it: floats of 32 bits, one for the norm, and a bit a coordinate.
    ab = (variance, 0.0) if alike else variance_constants(compressor.traits(dim, workers), workers)
    return {**own, "p": best_p(lambda p: marina_lr(s, ab, p), (32 + dim) / (32 * dim))}


def table(workers: int, noise: float, seeds: int, limit: int) -> Table:
    """Run all methods on one problem."""
    result = Table(title=f"n = {workers}, noise = {noise:g}", title_justify="left", box=None)
    for heading in ("method", "rounds", "bytes of packets", "with framing"):
        result.add_column(heading, justify="left" if heading == "method" else "right")
    for method in METHODS:
        runs = [
            reach(method, Tridiagonal(workers, noise=noise, seed=seed), seed, limit)
            for seed in range(seeds)
        ]
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
    given = parser.parse_args()
    console = Console()
    for noise in given.noise:
        for workers in given.workers:
            console.print(table(workers, noise, given.seeds, given.rounds))
            console.print()


if __name__ == "__main__":
    main()
