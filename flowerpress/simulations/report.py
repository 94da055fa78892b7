"""Reports of finished runs: a table for the terminal, JSON to keep, a plot."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich.table import Table

from flowerpress.simulations import gossip_plot
from flowerpress.simulations.experiment import Outcome

REPORTED_PACKAGES = ("flowerpress", "flwr", "flwr-nightly", "numpy", "numba", "torch")


def format_bytes(count: int) -> str:
    """Format a number of bytes in decimal units.

    Examples
    --------
    >>> format_bytes(999), format_bytes(1_234), format_bytes(123_456_789)
    ('999 B', '1.23 kB', '123 MB')
    """
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def format_metric(name: str, value: float) -> str:
    """Format a metric: accuracies in percent, others to four digits.

    Examples
    --------
    >>> format_metric("accuracy", 0.9312), format_metric("loss", 0.25)
    ('93.12 %', '0.25')
    """
    return f"{100 * value:.2f} %" if name == "accuracy" else f"{value:.4g}"


def table(outcomes: Sequence[Outcome], dense: Outcome | None = None) -> Table:
    """Build the closing table: one row a run, the dense one last.

    Parameters
    ----------
    outcomes : sequence of Outcome
        The runs to compare.
    dense : Outcome or None
        The dense baseline. None: ratios are computed from the model's size and the number of
        messages, and say so.
    """
    rows = [*outcomes, *([dense] if dense is not None else [])]
    metrics = list(dict.fromkeys(name for row in rows for name in sorted(row.final)))
    built = Table(
        title=f"{rows[0].experiment.task}: {len(rows[0].history) - 1} rounds, held-out data"
    )
    built.add_column("run")
    for name in (*metrics, "up", "down", "ratio to dense", "seconds"):
        built.add_column(name, justify="right", no_wrap=True)
    if dense is None:
        built.caption = "ratio to dense: computed from the model's size and the uplink messages"
    if any(row.up_collected for row in rows):
        collected = ", ".join(format_bytes(row.up_collected) for row in rows)
        built.caption = (
            f"{built.caption or ''}\nnot in up: the nodes' models, collected to evaluate them and "
            f"for the result ({collected})"
        ).strip()
    for row in rows:
        ratio, _ = row.ratio_to_dense(dense)
        built.add_row(
            row.experiment.title,
            *(
                format_metric(name, row.final[name]) if name in row.final else ""
                for name in metrics
            ),
            format_bytes(row.up_training),
            format_bytes(row.down_bytes),
            f"{ratio:.1f}x",
            f"{row.seconds:.1f}",
        )
    return built


def as_json(
    outcomes: Sequence[Outcome], dense: Outcome | None, finished: datetime
) -> dict[str, Any]:
    """Return everything needed to read, plot or repeat the runs, as JSON values.

    JSON has no NaN and no infinity: a metric that diverged is null.
    """
    rows = [*outcomes, *([dense] if dense is not None else [])]
    return {
        "finished": finished.isoformat(timespec="seconds"),
        "versions": _versions(),
        "runs": [_without_nan(_run_as_json(row, dense)) for row in rows],
    }


def save(
    directory: Path, outcomes: Sequence[Outcome], dense: Outcome | None = None
) -> tuple[Path, list[str]]:
    """Write `results.json`, and pictures where matplotlib is installed, in a new folder.

    These are `plot.png`, and `gossip.png` of decentralized training.

    Parameters
    ----------
    directory : Path
        Gets the new folder; made when it does not exist. Earlier runs' folders stay as they are.
    outcomes, dense
        As in :func:`table`.

    Returns
    -------
    tuple[Path, list[str]]
        The new folder, and hints on what was left out and how to have it.

    Raises
    ------
    OSError
        When the folder cannot be written.
    """
    finished = datetime.now(UTC)
    folder = _new_folder(directory, finished, outcomes[0])
    document = json.dumps(as_json(outcomes, dense, finished), indent=1, allow_nan=False)
    (folder / "results.json").write_text(document + "\n", encoding="utf-8")
    hints = []
    try:
        rows = [*outcomes, *([dense] if dense is not None else [])]
        plot(folder / "plot.png", rows)
        if gossip := [row for row in rows if gossip_plot.is_gossip(row)]:
            gossip_plot.plot(folder / "gossip.png", gossip)
    except ModuleNotFoundError:
        hints.append("no plot: matplotlib is not installed; pip install 'flowerpress[demo]'")
    return folder, hints


def plot(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Plot accuracy (or else loss) on held-out data against uplink bytes, on a log axis, as PNG.

    Raises
    ------
    ModuleNotFoundError
        When matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: it holds global state and may want a display
    axes = figure.add_subplot()
    metric = "accuracy" if all("accuracy" in row.final for row in outcomes) else "loss"
    for row in outcomes:
        sent = accumulate(record.up_bytes - record.up_collected for record in row.history)
        # Round 0 has sent nothing, which a log axis cannot show.
        points = [
            (total, record.metrics[metric])
            for total, record in zip(sent, row.history, strict=True)
            if total > 0 and metric in record.metrics
        ]
        axes.plot(
            [x for x, _ in points], [y for _, y in points], marker=".", label=row.experiment.title
        )
    axes.set(xscale="log", xlabel="uplink bytes as sent, all clients", ylabel=f"held-out {metric}")
    axes.set_title(outcomes[0].experiment.task)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def _run_as_json(outcome: Outcome, dense: Outcome | None) -> dict[str, Any]:
    ratio, source = outcome.ratio_to_dense(dense)
    return {
        "config": outcome.experiment.as_dict(),
        "final": outcome.final,
        "up_bytes": outcome.up_bytes,
        "down_bytes": outcome.down_bytes,
        "up_collected": outcome.up_collected,
        "ratio_to_dense": {"value": ratio, "source": source},
        "seconds": outcome.seconds,
        "history": [asdict(record) for record in outcome.history],
        "ledger": [asdict(row) for row in outcome.ledger_rounds],
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    return [_without_nan(each) for each in value] if isinstance(value, list) else value


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _new_folder(directory: Path, finished: datetime, outcome: Outcome) -> Path:
    """Make a folder that no other run has, even one started in the same second."""
    name = f"{finished:%Y%m%d-%H%M%S}-{outcome.experiment.task}-{outcome.experiment.strategy}"
    directory.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        folder = directory / (name + suffix)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{directory} holds a thousand folders named {name}; give another --out")
