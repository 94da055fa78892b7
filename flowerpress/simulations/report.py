"""The closing table of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowerpress.simulations.formats import format_bytes, format_metrics
from flowerpress.simulations.outcome import Outcome


def table(
    outcomes: Sequence[Outcome], dense: Outcome | None = None, *, tall: bool = False
) -> Table:
    """Build the closing table: one row a run, the dense one last.

    Metrics are those on held-out data, and the means of the clients' own evaluations; where there
    are none of either, the training loss. Lists of numbers are not shown.

    Parameters
    ----------
    outcomes : sequence of Outcome
        The runs to compare.
    dense : Outcome or None
        The dense baseline. None: ratios are computed from the model's size and the number of
        messages, and say so.
    tall : bool
        One column a run, for narrow terminals.
    """
    rows = [*outcomes, *([dense] if dense is not None else [])]
    metrics = [_metrics(row) for row in rows]
    names = list(dict.fromkeys(name for row in metrics for name in row))
    lines = [("run", *names, "up", "down", "ratio to dense", "seconds")]
    lines += [_cells(row, found, names, dense) for row, found in zip(rows, metrics, strict=True)]
    heads, *cells = zip(*lines, strict=True) if tall else lines
    built = Table(title=Text(_title(rows)), caption=_caption(rows, dense) or None)
    for place, head in enumerate(heads):
        justify: Literal["left", "right"] = "right" if place else "left"
        built.add_column(Text(head), justify=justify, overflow="fold")
    for row in cells:
        built.add_row(*map(Text, row))
    return built


def show(console: Console, outcomes: Sequence[Outcome], dense: Outcome | None = None) -> None:
    """Print the table: where no terminal has a width, as wide as it needs to be."""
    built = table(outcomes, dense)
    options = console.options.update(max_width=1000)
    wanted = built.__rich_measure__(console, options).maximum
    if not console.is_terminal:
        console.width = max(console.width, wanted)
    console.print(table(outcomes, dense, tall=True) if wanted > console.width else built)


def _cells(
    row: Outcome, metrics: dict[str, str], names: Sequence[str], dense: Outcome | None
) -> tuple[str, ...]:
    """Return a run's cells, in the order of the heads."""
    ratio, _ = row.ratio_to_dense(dense)
    return (
        row.experiment.title,
        *(metrics.get(name, "") for name in names),
        format_bytes(row.up_training),
        format_bytes(row.down_bytes),
        f"{ratio:.1f}x",
        f"{row.seconds:.1f}",
    )


def _title(rows: Sequence[Outcome]) -> str:
    first = rows[0]
    done, asked = min(row.rounds for row in rows), first.experiment.rounds
    rounds = f"{done} rounds" if done == asked else f"{done} of {asked} rounds"
    held_out = ", held-out data" if any(row.final for row in rows) else ""
    return f"{first.experiment.label}: {rounds}{held_out}"


def _caption(rows: Sequence[Outcome], dense: Outcome | None) -> str:
    lines = []
    if dense is None:
        lines.append("ratio to dense: computed from the model's size and the uplink messages")
    if any(row.up_collected for row in rows):
        collected = ", ".join(format_bytes(row.up_collected) for row in rows)
        lines.append(
            "not in up: the nodes' models, collected to evaluate them and for the result "
            f"({collected})"
        )
    return "\n".join(lines)


def _metrics(row: Outcome) -> dict[str, str]:
    """Return a run's last metrics as text, by the head of their column."""
    found = format_metrics("", row.final) | format_metrics("clients' ", row.final_evaluate)
    train = row.history[-1].train if row.history else {}
    return found or format_metrics("train ", {k: v for k, v in train.items() if k == "loss"})
