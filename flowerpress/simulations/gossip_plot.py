"""A picture of decentralized training: accuracy, consensus error and bytes, against rounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flowerpress.simulations.experiment import Outcome
    from flowerpress.simulations.recorder import RoundRecord

CONSENSUS, EDGE = "consensus-error", "edge-bytes"
_HEIGHT = 7.2  # inches of three panels


def is_gossip(outcome: Outcome) -> bool:
    """Whether the run's nodes had models of their own."""
    return any(EDGE in record.train for record in outcome.history)


def plot(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Plot the runs whose nodes had models of their own, as PNG.

    Accuracy (or else loss) is that of the mean model, with a band from the worst to the best node
    where nodes were collected; the consensus error is the mean squared distance of the nodes'
    models from their mean; bytes are those of packets that crossed an edge one way, so far.

    Raises
    ------
    ModuleNotFoundError
        When matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: it holds global state and may want a display
    accuracy, consensus, edges = figure.subplots(3, 1, sharex=True)
    metric = "accuracy" if all("accuracy" in row.final for row in outcomes) else "loss"
    for row in outcomes:
        _curves(row, metric, accuracy, consensus, edges)
    accuracy.set(ylabel=f"held-out {metric}")
    accuracy.set_title(f"{outcomes[0].experiment.task}: mean model, and its nodes")
    consensus.set(ylabel="consensus error", yscale="log")
    edges.set(ylabel="bytes per edge, so far", yscale="log", xlabel="round")
    for axes in (accuracy, consensus, edges):
        axes.grid(visible=True, which="major", alpha=0.3)
    accuracy.legend()
    figure.savefig(path, dpi=150)


def _curves(row: Outcome, metric: str, accuracy: Axes, consensus: Axes, edges: Axes) -> None:
    """Draw one run, in one colour."""
    history = row.history
    (line,) = accuracy.plot(*_points(history, metric, "metrics"), label=row.experiment.title)
    style: dict[str, Any] = {"color": line.get_color()}
    seen = [record for record in history if record.nodes]
    found = [[node[metric] for node in each.nodes.values() if metric in node] for each in seen]
    band = [(r.round, min(each), max(each)) for r, each in zip(seen, found, strict=True) if each]
    if band:
        rounds, worst, best = ([point[k] for point in band] for k in range(3))
        accuracy.fill_between(rounds, worst, best, alpha=0.2, **style)
    consensus.plot(*_points(history, CONSENSUS, "train"), marker=".", **style)
    synced, sizes = _points(history, EDGE, "train")
    edges.plot(synced, list(accumulate(sizes)), **style)


def _points(history: Iterable[RoundRecord], name: str, where: str) -> tuple[list[int], list[float]]:
    """Return the rounds that have a figure, and the figure in them."""
    found = [(r.round, getattr(r, where)[name]) for r in history if name in getattr(r, where)]
    return [x for x, _ in found], [y for _, y in found]
