"""What a comparison leaves in its folder.

==================  ==============================================================================
file                content
==================  ==============================================================================
report.html         an interactive chart and a table that can be sorted; needs no network
table.csv           one row a method
curves.csv          every round of every run
summary.json        both in short: settings, table, step sizes that were tried, refusals
figures/            the metric against rounds, bytes up, all bytes, time: PNG and SVG
settings.json       what the comparison is of: `--resume` checks it
runs/HASH.json      each run in the form of a ``results.json``, tuning among them
runs/index.csv      which of these is which method and seed
==================  ==============================================================================
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowerpress.protocol import as_json
from flowerpress.simulations.compare import figures, report, summary
from flowerpress.simulations.compare.comparison import Comparison
from flowerpress.simulations.compare.settings import SETTINGS
from flowerpress.simulations.results import versions, write_file, write_json

REPORT = "report.html"


def write(folder: Path, comparison: Comparison, command: str = "") -> list[str]:
    """Write report, tables and pictures; returns hints on what was left out, and why.

    Raises
    ------
    OSError
        Something cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = summary.table(comparison)
    write_file(folder / "table.csv", summary.as_csv(found).encode())
    write_file(folder / "curves.csv", summary.curves_csv(comparison).encode())
    write_json(folder / "summary.json", as_json(_summary(comparison, found)))
    again = "the same command"
    if (folder / SETTINGS).exists():
        again += " with --resume"
    hints = []
    try:
        write_file(folder / REPORT, report.html(comparison, command).encode())
    except ImportError as error:
        hints.append(f"no {REPORT}: {error}, then {again}")
    try:
        pictures = figures.figures(comparison)
    except ImportError as error:
        hints.append(f"no figures: {error}, then {again}")
    except Exception as error:  # a picture is never worth the results
        hints.append(f"no figures: {type(error).__name__}: {error}")
    else:
        (folder / "figures").mkdir(exist_ok=True)
        for name, data in pictures.items():
            write_file(folder / "figures" / name, data)
    return hints


def _summary(comparison: Comparison, found: summary.Table) -> dict[str, Any]:
    rows = []
    for row in found.rows:
        fields = asdict(row)
        for each, reached in zip(fields["reached"], row.reached, strict=True):
            each["cost"] = reached.cost._asdict() if reached.cost else None
        rows.append(fields)
    return {
        "settings": comparison.settings.as_dict(),
        "versions": versions(),
        "metric": asdict(comparison.metric),
        "reference": found.reference,
        "rows": rows,
        "tuning": {
            result.label: {f"{lr:g}": score for lr, score in result.tuned.scores.items()}
            for result in comparison.results
            if result.tuned is not None
        },
        "refused": dict(comparison.refused),
        "left_out": list(comparison.left_out),
    }
