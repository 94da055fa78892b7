"""Pictures of a comparison that fit a paper: PNG, and SVG with its texts as text."""

from __future__ import annotations

import io
import math
import warnings
from typing import TYPE_CHECKING

from flowerpress.simulations.compare.comparison import Comparison
from flowerpress.simulations.compare.curves import AXES, Curve, curve
from flowerpress.simulations.plots import new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart (jfly.uni-koeln.de/color, 2008).
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
_DASHES = ("-", "--", ":", "-.")
_FORMATS = ("png", "svg")


def figures(comparison: Comparison) -> dict[str, bytes]:
    """Return the metric against rounds, bytes up, all bytes and time, by the files' names.

    ``overview`` has all four, ``rounds``, ``up``, ``total`` and ``seconds`` have one each, all as
    PNG and as SVG.

    Raises
    ------
    ImportError
        matplotlib is missing or fails.
    """
    metric, link = comparison.metric, comparison.settings.link
    lines = [(r.label, curve(r.outcomes, metric, link)) for r in comparison.results]
    files: dict[str, bytes] = {}
    with warnings.catch_warnings():  # what diverged is off every scale
        warnings.simplefilter("ignore")
        overview = new_figure(7.0)
        overview.set_figwidth(10.0)
        for place, axis in enumerate(AXES):
            _draw(overview.add_subplot(2, 2, place + 1), lines, axis, metric.name)
        # One legend for all: they have the same lines.
        handles, labels = overview.axes[0].get_legend_handles_labels()
        overview.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        files |= _files("overview", overview)
        for axis in AXES:
            figure = new_figure(4.0)
            axes = figure.add_subplot()
            _draw(axes, lines, axis, metric.name)
            axes.legend(fontsize="small")
            files |= _files(axis, figure)
    return files


def _draw(axes: Axes, lines: list[tuple[str, Curve]], axis: str, name: str) -> None:
    """Draw all methods' means, and their ranges as bands."""
    log = axis != "rounds"
    for place, (label, found) in enumerate(lines):
        points = [
            (x, *ys)
            for cost, *ys in zip(found.x, found.mean, found.low, found.high, strict=True)
            # Nothing was sent before the first round, which a log axis cannot show.
            if ((x := getattr(cost, axis)) > 0 or not log) and not math.isnan(ys[0])
        ]
        if not points:
            continue
        x, mean, low, high = zip(*points, strict=True)
        color, dash = _COLORS[place % len(_COLORS)], _DASHES[place // len(_COLORS) % len(_DASHES)]
        axes.plot(x, mean, dash, color=color, label=_shown(label), linewidth=1.5)
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set(xlabel=AXES[axis], ylabel=plain(name))
    if log:
        axes.set_xscale("log")
    if name.endswith("_sq"):
        axes.set_yscale("log")
    axes.grid(visible=True, alpha=0.3)


def _shown(label: str) -> str:
    """Return a label for a legend, which leaves out those that begin with an underscore."""
    text = plain(label)
    return f" {text}" if text.startswith("_") else text


def _files(name: str, figure: Figure) -> dict[str, bytes]:
    from matplotlib import rc_context

    files = {}
    # Texts stay texts, and no date and no random name: the same figures make the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "flowerpress"}):
        for kind in _FORMATS:
            file = io.BytesIO()
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(file, format=kind, dpi=200, metadata=metadata)
            files[f"{name}.{kind}"] = file.getvalue()
    return files
