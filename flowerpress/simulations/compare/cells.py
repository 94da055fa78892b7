"""The cells of a comparison's table, as the report and the terminal show them."""

from __future__ import annotations

import math
from typing import Any

from flowerpress.simulations.compare.summary import Reached, Row, Table
from flowerpress.simulations.formats import format_bytes, format_metric

Cell = dict[str, Any]
"""What is shown (``text``), and what it is sorted by (``sort``; None: at the end)."""
MISSING: Cell = {"text": "", "sort": None}


def columns(found: Table) -> list[dict[str, Any]]:
    """Return the columns: the key of a row's cell, its head, and whether it is a sentence."""
    heads = {
        "label": "method",
        "lr": "lr",
        "rounds": "rounds",
        "mean": f"{found.metric}, mean",
        "range": "range",
        "up": "up",
        "ratio": "fewer up",
        "down": "down",
        "seconds": "modelled s",
        "wall": "s here",
    }
    if not found.reference:
        del heads["ratio"]
    targets = next(([each.target for each in row.reached] for row in found.rows if row.reached), [])
    for place, target in enumerate(targets):
        heads |= {
            f"rounds{place}": f"{target}: rounds",
            f"up{place}": "up to it",
            f"total{place}": "up and down",
            f"seconds{place}": "modelled s",
        }
    found_heads: list[dict[str, Any]] = [{"key": k, "head": head} for k, head in heads.items()]
    return [*found_heads, {"key": "status", "head": "", "text": True}]


def cells(row: Row, found: Table) -> dict[str, Cell]:
    """Return a row's cells by the keys of the columns."""
    figures = _figures(row, found.metric)
    return {column["key"]: figures.get(column["key"], MISSING) for column in columns(found)}


def _figures(row: Row, metric: str) -> dict[str, Cell]:
    """Return what a row has to say, by the keys of columns."""
    told = "; ".join(
        filter(None, [row.status if row.status != "done" else "", row.reason, _note(row)])
    )
    figures: dict[str, Cell] = {
        "label": {"text": row.label, "sort": row.label},
        "lr": _lr(row.lr),
        "rounds": _cell(row.rounds or math.nan, f"{row.rounds}"),
        "mean": _cell(row.mean, format_metric(metric, row.mean)),
        "range": _cell(
            row.high - row.low,
            f"{format_metric(metric, row.low)} to {format_metric(metric, row.high)}",
        ),
        "up": _bytes(row.up),
        "ratio": _cell(math.nan if row.ratio is None else row.ratio, f"{row.ratio or 0:.1f}x"),
        "down": _bytes(row.down),
        "seconds": _seconds(row.seconds),
        "wall": _seconds(row.wall),
        "status": {"text": told, "sort": told},
    }
    for place, reached in enumerate(row.reached):
        figures |= _reached(reached, place)
    return figures


def _reached(reached: Reached, place: int) -> dict[str, Cell]:
    """Return the cells about a target."""
    cost, share = reached.cost, f"{reached.seeds}/{reached.of}"
    if cost is None:
        return {f"rounds{place}": {"text": "not reached", "sort": None}}
    some = "" if reached.seeds == reached.of else f" ({share} seeds)"
    return {
        f"rounds{place}": _cell(cost.rounds, f"{cost.rounds:.0f}{some}"),
        f"up{place}": _bytes(cost.up),
        f"total{place}": _bytes(cost.total),
        f"seconds{place}": _seconds(cost.seconds),
    }


def _note(row: Row) -> str:
    """Return what is to be known of a row's step size."""
    return "" if row.lr_from in ("given", "tuned", "") else f"lr: {row.lr_from}"


def _lr(lr: float | str | None) -> Cell:
    if lr is None:
        return MISSING
    text = f"{lr:g}" if isinstance(lr, int | float) else lr
    return {"text": text, "sort": lr if isinstance(lr, int | float) else None}


def _bytes(value: float) -> Cell:
    return _cell(value, "" if math.isnan(value) else format_bytes(round(value)))


def _seconds(value: float) -> Cell:
    return _cell(value, f"{value:.3g}" if value < 100 else f"{value:.0f}")


def _cell(value: float, text: str) -> Cell:
    """Return a figure's cell; NaN has no text."""
    return MISSING if math.isnan(value) else {"text": text, "sort": value}
