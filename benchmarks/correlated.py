"""Error of a cohort's mean against bits: correlated quantizers, their ranges, and independent ones.

    python benchmarks/correlated.py                      # all: some minutes
    python benchmarks/correlated.py --of gaussian --n 100 --plot correlated.png

Client i has x_i = common + likeness * noise_i, with noise of the common part's norm; "none" is
noise alone. Three kinds: normal values, Student's t with four degrees of freedom (d = 65,536), and
gradients of a small network on MNIST after some steps (d = 50,890): the mean of all clients, and
what a batch of 8 images departs from it. The error is |mean of what arrives - mean|^2 / |mean|^2;
bits are those sent, frames included, for each coordinate of a client.

Then hadamard+cq at d = 1,000, 100,000 and 10,000,000. Exits with 1 unless hadamard+cq takes at most
1.15 bits and, at likeness 0.1 with 100 clients, has at most 0.6 of drive's error; and the error at
the three lengths is the same within 10 %.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from flowerpress.compressors import Compressor, Draw, add_to, make_compressor

Rows = npt.NDArray[np.float32]
DIM, BATCH = 65_536, 8
LENGTHS = (1_000, 100_000, 10_000_000)
LIKENESS: tuple[float | None, ...] = (0.1, 0.3, 1.0, None)
SPECS = (
    "cq:range=l2",
    "cq:range=max",
    "cq",
    "cq:2,range=NUMBER",
    "hadamard+cq:range=max",
    "hadamard+cq",
    "hadamard+cq:range=shared",
    "hadamard+cq:3,c=3.5+rans",
    "hadamard+cq:5,c=5+rans",
    "hadamard+cq:9,c=6+rans",
    "hadamard+cq:5,c=5,rounding=independent+rans",
    "drive",
    "eden:2",
    "eden:3",
    "terngrad+rans",
    "qsgd:1+rans",
    "qsgd:3+rans",
    "hadamard+uniform:1,bucket=0",
    "hadamard+uniform:2,bucket=0",
)
BITS, SHARE, SPREAD = 1.15, 0.6, 0.1  # what is promised of hadamard+cq


class Found(NamedTuple):
    """What was measured of one compressor in one cohort."""

    kind: str
    n: int
    likeness: float | None
    spec: str
    bits: float
    error: float


def normal(n: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return a common vector, and one of noise for each client."""
    return rng.standard_normal(DIM, np.float32), rng.standard_normal((n, DIM), np.float32)


def heavy(n: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return the same of Student's t."""
    draw = rng.standard_t(4, (n + 1, DIM)).astype(np.float32)
    return draw[0], draw[1:]


def gradients(n: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return a network's gradient, and what the clients' batches depart from it."""
    from flowerpress.simulations.tasks.mnist import MnistTaskFn

    del rng
    task = MnistTaskFn(model="mlp", batch_size=BATCH)(0, 1)
    x = np.concatenate([array.numpy().ravel() for array in task.initial_arrays().values()])
    draw = np.random.default_rng(0)
    for _ in range(100):
        x = x - 0.1 * task.gradient(x, task.draw(draw))[1]
    rows = np.array([task.gradient(x, task.draw(draw))[1] for _ in range(n)], dtype=np.float32)
    common = rows.mean(axis=0)
    noise = rows - common
    noise *= np.linalg.norm(common) / np.linalg.norm(noise, axis=1, keepdims=True)
    return common, noise


KINDS: dict[str, Callable[[int, np.random.Generator], tuple[Rows, Rows]]] = {
    "gaussian": normal,
    "heavy": heavy,
    "mnist": gradients,
}


def cohort(common: Rows, noise: Rows, likeness: float | None) -> Rows:
    """Return the clients' vectors."""
    return noise if likeness is None else common + np.float32(likeness) * noise


def made(spec: str, rows: Rows) -> tuple[Compressor, float]:
    """Return a compressor, with a number that suits the rows, and their median norm."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    number = 3 * float(norms.mean()) / math.sqrt(rows.shape[1])
    return make_compressor(spec.replace("NUMBER", f"{number:.6g}")), float(np.median(norms))


def measured(spec: str, rows: Rows, seeds: int) -> tuple[float, float]:
    """Return the bits of a coordinate, and the error of the mean, over some seeds."""
    compressor, norm = made(spec, rows)
    mean, (n, dim) = rows.mean(axis=0, dtype=np.float64), rows.shape
    errors, sent = [], 0
    for seed in range(seeds):
        total = np.zeros(dim)
        for rank, row in enumerate(rows):
            draw = Draw(seed, 1, rank, n, 0, norm if "shared" in spec else 0.0)
            packet = compressor.compress(row, draw)
            sent += packet.nbytes
            add_to(packet, total, 1 / n)
        errors.append(float(((total - mean) ** 2).sum() / (mean**2).sum()))
    return 8 * sent / (seeds * n * dim), statistics.mean(errors)


def compare(kinds: list[str], sizes: list[int]) -> Iterator[list[Found]]:
    """Yield what was measured, for each kind and number of clients."""
    for kind in kinds:
        for n in sizes:
            common, noise = KINDS[kind](n, np.random.default_rng(n))
            rows = [(each, cohort(common, noise, each)) for each in LIKENESS]
            found = [
                Found(kind, n, each, spec, *measured(spec, x, 3 if n < 100 else 1))
                for spec in track(SPECS, f"{kind}, n = {n}", transient=True)
                for each, x in rows
            ]
            yield found


def table(found: list[Found]) -> Table:
    """Return one kind and number of clients: a row for each compressor."""
    result = Table(title=f"{found[0].kind}, n = {found[0].n}", title_justify="left", box=None)
    for heading in ("compressor", "bits", *(f"h = {h}" for h in LIKENESS[:-1]), "none"):
        result.add_column(heading, justify="left" if heading == "compressor" else "right")
    for spec in SPECS:
        of = [each for each in found if each.spec == spec]
        errors = [f"{each.error:#.3g}" for each in of]
        result.add_row(spec, f"{of[0].bits:.2f}", *errors)
    return result


def length_error(dim: int, n: int = 10) -> float:
    """Return the error of hadamard+cq at likeness 0.1, over about as many coordinates."""
    compressor, errors = make_compressor("hadamard+cq"), []
    for seed in range(max(1, min(300, 1_000_000 // dim))):
        rng = np.random.default_rng(seed)
        common = rng.standard_normal(dim, np.float32)
        total, mean = np.zeros(dim, np.float32), np.zeros(dim, np.float32)
        for rank in range(n):
            x = common + np.float32(0.1) * rng.standard_normal(dim, np.float32)
            mean += x / np.float32(n)
            add_to(compressor.compress(x, Draw(seed, 1, rank, n)), total, 1 / n)
        difference = (total - mean).astype(np.float64)
        errors.append(float(difference @ difference / (mean.astype(np.float64) @ mean)))
    return statistics.mean(errors)


def missed(found: list[Found], lengths: dict[int, float]) -> list[str]:
    """Return which promises do not hold."""
    said = []
    of = {(f.kind, f.n, f.likeness, f.spec): f for f in found}
    for (kind, n, likeness, spec), each in of.items():
        if spec != "hadamard+cq":
            continue
        if each.bits > BITS:
            said.append(f"{kind}, n = {n}: hadamard+cq takes {each.bits:.3f} bits")
        drive = of[kind, n, likeness, "drive"]
        if (n, likeness) == (100, 0.1) and each.error > SHARE * drive.error:
            said.append(f"{kind}: {each.error / drive.error:.2f} of drive's error")
    if lengths and max(lengths.values()) > (1 + SPREAD) * min(lengths.values()):
        said.append(f"the error depends on the length: {lengths}")
    return said


def plot(found: list[Found], path: Path) -> None:
    """Draw errors against bits, a panel for each number of clients and likeness."""
    from matplotlib.figure import Figure

    sizes = sorted({f.n for f in found})
    figure = Figure(figsize=(3.2 * len(LIKENESS), 2.8 * len(sizes)), layout="constrained")
    panels: Any = figure.subplots(len(sizes), len(LIKENESS), squeeze=False, sharex=True)
    for row, n in zip(panels, sizes, strict=True):
        for axes, likeness in zip(row, LIKENESS, strict=True):
            points = [f for f in found if (f.n, f.likeness) == (n, likeness)]
            for correlated, label, mark in ((True, "correlated", "o"), (False, "independent", "x")):
                of = [f for f in points if _correlates(f.spec) == correlated and f.error < 30]
                axes.plot([f.bits for f in of], [f.error for f in of], mark, label=label, ms=4)
                for f in of:
                    axes.annotate(_short(f.spec), (f.bits, f.error), fontsize=5)
            axes.set(yscale="log", title=f"n = {n}, h = {likeness or 'none'}")
    panels[0][0].legend(fontsize=7)
    figure.supxlabel("bits of a coordinate")
    figure.supylabel("squared error of the mean, over its squared norm")
    figure.savefig(path, dpi=120)


def _correlates(spec: str) -> bool:
    return "cq" in spec and "independent" not in spec


def _short(spec: str) -> str:
    for long, short in (
        ("hadamard+", ""),
        (",rounding=independent", ""),
        ("+rans", ""),
        ("range=", ""),
    ):
        spec = spec.replace(long, short)
    return spec


def main() -> int:
    """Print the tables; return 1 if a promise is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--of", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--n", nargs="+", type=int, default=[10, 100, 1000])
    parser.add_argument("--no-lengths", action="store_true", help="leave the three lengths out")
    parser.add_argument("--plot", type=Path, help="PNG of the first kind")
    given = parser.parse_args()
    console, everything = Console(width=100), []
    for found in compare(given.of, given.n):
        console.print(table(found))
        console.print()
        everything += found
    lengths = {} if given.no_lengths else {dim: length_error(dim) for dim in LENGTHS}
    for dim, error in lengths.items():
        console.print(f"hadamard+cq, n = 10, h = 0.1, d = {dim:,}: {error:.4g}")
    if given.plot:
        plot([f for f in everything if f.kind == given.of[0]], given.plot)
    wrong = missed(everything, lengths)
    for line in wrong:
        console.print(f"MISSED {line}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
