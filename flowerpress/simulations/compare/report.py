"""The report: one HTML file that needs no network, with an interactive chart and a table."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from flowerpress.extras import import_failure
from flowerpress.protocol import as_json
from flowerpress.simulations.compare.cells import cells, columns
from flowerpress.simulations.compare.comparison import Comparison, Result
from flowerpress.simulations.compare.curves import AXES, curve, metrics_of
from flowerpress.simulations.compare.summary import Table, table
from flowerpress.simulations.compare.targets import parse_metric
from flowerpress.simulations.formats import format_metric

_HERE = "flowerpress.simulations.compare"
_MARK = re.compile("@(DATA|PLOTLY|SCRIPT)@")


def html(comparison: Comparison, command: str = "") -> str:
    """Return the report of a comparison.

    Parameters
    ----------
    comparison : Comparison
    command : str, optional
        With which it can be repeated.

    Raises
    ------
    ImportError
        plotly is missing or fails.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise import_failure(error, "an HTML report", "plotly") from error
    here = files(_HERE)
    page = (here / "report.html").read_text("utf-8")
    # A text that holds a tag must not end the element that it is in.
    data = json.dumps(as_json(describe(comparison, command))).replace("<", "\\u003c")
    parts = {
        "DATA": data,
        "PLOTLY": get_plotlyjs(),
        "SCRIPT": (here / "report.js").read_text("utf-8"),
    }
    return _MARK.sub(lambda mark: parts[mark[1]], page)


def describe(comparison: Comparison, command: str) -> dict[str, Any]:
    """Return what the report shows, as JSON values."""
    found, settings = table(comparison), comparison.settings
    everything = [outcome for result in comparison.results for outcome in result.outcomes]
    metrics = list(dict.fromkeys([comparison.metric.name, *metrics_of(everything)]))
    seeds = ", ".join(map(str, settings.seeds))
    link = settings.link
    return {
        "title": f"{settings.common.label}: {len(comparison.results)} methods",
        "subtitle": f"{settings.clients} clients; seeds {seeds}. Modelled seconds: {link.up:g} "
        f"Mbit/s up, {link.down:g} down, {link.latency:g} ms of latency, and {link.compute:g} s of "
        "computing a round.",
        "metric": comparison.metric.name,
        "metrics": metrics,
        "logy": comparison.metric.name.endswith("_sq"),
        "axes": AXES,
        "targets": [
            {"metric": each.metric.name, "value": each.value} for each in comparison.targets
        ],
        "curves": [_curves(result, comparison, metrics) for result in comparison.results],
        "columns": columns(found),
        "rows": [cells(row, found) for row in found.rows],
        "caption": caption(found),
        "tuning": _tuning(comparison),
        "tuned_on": "Chosen on seeds "
        + ", ".join(map(str, settings.tuning_seeds))
        + ": the mean figure there at each; nan: a run that did not end well.",
        "settings": (command + "\n\n" if command else "")
        + json.dumps(settings.as_dict(), indent=1),
    }


def caption(found: Table) -> str:
    """Return what is to be known of the table's figures."""
    told = "Means over the seeds that ended well; bytes are as sent, of all clients."
    return told + (f" Ratios are to {found.reference}." if found.reference else "")


def _curves(result: Result, comparison: Comparison, metrics: Sequence[str]) -> dict[str, Any]:
    lines = {}
    for name in metrics:
        found = curve(result.outcomes, parse_metric(name), comparison.settings.link)
        if found.x:
            x = {axis: [getattr(cost, axis) for cost in found.x] for axis in AXES}
            lines[name] = {"x": x, "mean": found.mean, "low": found.low, "high": found.high}
    return {"label": result.label, "seeds": len(result.outcomes), "metrics": lines}


def _tuning(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the step sizes that were tried, with their figures, and which was chosen."""
    name, found = comparison.metric.name, []
    for result in comparison.results:
        if result.tuned is not None:
            tried = result.tuned.scores.items()
            scores = [
                [f"{lr:g}", format_metric(name, score), lr == result.tuned.lr]
                for lr, score in tried
            ]
            found.append({"label": result.label, "scores": scores})
    return found
