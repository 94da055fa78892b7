"""The benchmark's table, its JSON, and the bars that a kernel must reach."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from flowerpress.simulations import bench
from flowerpress.simulations.bench import Row
from flowerpress.suggestions import unknown

WIDTH = 110  # of the table: it is read in a log as often as in a terminal
GATE_DIM = 10_000_000
TRIES = 3
NS_PER_ID = 15.0  # at most, to add what was sent with its place


class Bar(NamedTuple):
    """The least that a compressor must reach.

    Attributes
    ----------
    encode, decode : float, float or None
        In speeds of a copy; None where `NS_PER_ID` holds.
    numpy, torch : tuple of float or None
        Times as fast as the plain form, encoding and decoding.
    """

    encode: float
    decode: float | None
    numpy: tuple[float | None, float | None] = (None, None)
    torch: tuple[float | None, float | None] = (None, None)


_LEVELS = Bar(0.6, 0.7, torch=(15.0, None))
BARS: dict[str, Bar] = {
    "sign": Bar(0.9, 0.9, numpy=(3.0, 5.0)),
    "sign:block=1024": Bar(0.9, 0.9, numpy=(3.0, 5.0)),
    **{f"qsgd:{levels}": _LEVELS for levels in (1, 3, 7, 127)},
    **{f"uniform:{bits}": _LEVELS for bits in (1, 2, 4, 8)},
    "natural": Bar(0.65, 0.75, numpy=(10.0, None)),
    "cq:2": Bar(0.2, 0.5, torch=(15.0, None)),
    "cq:16": Bar(0.2, 0.5, torch=(15.0, None)),
    "topk:0.01": Bar(0.22, None, numpy=(4.0, None), torch=(8.0, None)),
    "topk:0.001": Bar(0.25, None, numpy=(4.0, None), torch=(8.0, None)),
    "randk:0.01,law=stratified": Bar(1.0, 1.0, torch=(100.0, None)),
    "permk": Bar(1.0, 1.0, torch=(100.0, None)),
    "countsketch:ratio=0.004": Bar(0.035, 0.05, torch=(2.5, None)),
    "hadamard": Bar(0.15, 0.15),
}


def run(
    *,
    quick: bool = False,
    only: list[str] | None = None,
    data: list[str] | None = None,
    on_rows: Callable[[list[Row]], None] | None = None,
) -> list[Row]:
    """Measure and return the rows; `on_rows` is told of those of each vector as they come.

    Parameters
    ----------
    quick : bool
        Gaussian vectors of 1e5 and 1e6, three repetitions, no mnist: some seconds.
    only : list of str, optional
        Specs instead of all registered compressors.
    data : list of str, optional
        Some of ``bench.DATA``.
    """
    for name in data or ():  # before anything that takes seconds
        if name not in bench.DATA:
            raise ValueError(unknown(f"unknown data {name!r}", name, bench.DATA))
    wanted = only or bench.specs()
    single_thread()
    rows: list[Row] = []
    for dim in (100_000, 1_000_000) if quick else bench.DIMS:
        names = data or (["gaussian"] if quick else list(bench.DATA))
        for name, x in bench.vectors(dim, names):
            repetitions = 3 if quick else 30 if dim <= 100_000 else 9
            rows += (new := bench.measure(wanted, dim, name, x, repetitions=repetitions))
            if on_rows:
                on_rows(new)
    return rows


def single_thread() -> None:
    """Keep torch, if it is installed, to one thread."""
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)


def table(rows: list[Row]) -> Table:
    """Return rows of one vector as a table."""
    title = f"{rows[0].data}, d = {rows[0].dim:,}".replace(",", " ")
    result = Table(title=title, title_justify="left", box=None, pad_edge=False)
    result.add_column("compressor", no_wrap=True)
    for heading in ("GB/s", "x copy", "x numpy", "x torch", "bits", "ideal", "error"):
        result.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        result.add_row(
            row.spec,
            f"{row.encode_gbs:.1f} / {row.decode_gbs:.1f}",
            f"{row.encode_ratio:.2f} / {row.decode_ratio:.2f}",
            *(f"{pair[0]:.1f} / {pair[1]:.1f}" if pair else "" for pair in (row.numpy, row.torch)),
            f"{row.bits:.3f}",
            f"{row.entropy:.3f}" if row.entropy is not None else "",
            f"{row.error:.3g}",
        )
    return result


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("numpy", "numba", "flowerpress")},
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(package)
    return None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def save(path: Path, rows: list[Row]) -> None:
    """Write the rows and the machine as JSON."""
    report = {"machine": machine(), "rows": [row.as_dict() for row in rows]}
    path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def gate(console: Console) -> int:
    """Check the bars, on Gaussian vectors; return how many are missed in each of three tries."""
    single_thread()
    ((_, x),) = bench.vectors(GATE_DIM, ["gaussian"])
    ((_, short),) = bench.vectors(100_000, ["gaussian"])
    left = list(BARS)
    missed: dict[str, list[str]] = {}
    for attempt in range(1, TRIES + 1):
        long_rows = bench.measure(left, GATE_DIM, "gaussian", x, repetitions=9)
        short_rows = bench.measure(left, short.size, "gaussian", short, repetitions=30)
        console.print(table(long_rows), table(short_rows))
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        for row, brief in zip(long_rows, short_rows, strict=True):
            # What one try reached counts: a busy machine can only make a figure worse.
            now = misses(row) + slower_than_numpy(brief)
            before = missed.get(row.spec, now)
            missed[row.spec] = [each for each in now if each.split(":")[0] in _kinds(before)]
        left = [spec for spec in left if missed[spec]]
        console.print(f"try {attempt}: {len(left)} of {len(missed)} miss a bar; load {load:.1f}")
        if not left:
            break
    for spec in left:
        console.print(f"{spec}: {'; '.join(missed[spec])}", markup=False)
    return len(left)


def _kinds(sentences: list[str]) -> set[str]:
    return {sentence.split(":")[0] for sentence in sentences}


def misses(row: Row) -> list[str]:
    """Return the bars that a row misses."""
    bar, found = BARS[row.spec], []
    if row.encode_ratio < bar.encode:
        found.append(f"encode: {row.encode_ratio:.2f} of a copy, bar {bar.encode}")
    if bar.decode is not None and row.decode_ratio < bar.decode:
        found.append(f"decode: {row.decode_ratio:.2f} of a copy, bar {bar.decode}")
    if bar.decode is None:
        ids = max(1, round(float(row.spec.partition(":")[2]) * row.dim))
        if (nanoseconds := row.decode_ms * 1e6 / ids) > NS_PER_ID:
            found.append(f"decode: {nanoseconds:.1f} ns a place, bar {NS_PER_ID}")
    for library, least in (("numpy", bar.numpy), ("torch", bar.torch)):
        reached = getattr(row, library) or (math.inf, math.inf)  # torch may not be installed
        for what, faster, bound in zip(("encode", "decode"), reached, least, strict=True):
            if bound and faster < bound:
                found.append(f"{library} {what}: {faster:.1f} times as fast, bar {bound}")
    return found


def slower_than_numpy(row: Row) -> list[str]:
    """Return whether a short vector, there and back, takes longer than in plain numpy."""
    if row.numpy is None:
        return []
    own = row.encode_ms + row.decode_ms
    plain = row.numpy[0] * row.encode_ms + row.numpy[1] * row.decode_ms
    if plain >= own:
        return []
    return [f"short: {plain / own:.2f} times as fast as numpy at d = {row.dim}, bar 1"]
