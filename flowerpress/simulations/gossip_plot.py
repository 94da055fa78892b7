"""A picture of decentralized training: accuracy, consensus error and bytes, against rounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from flowerpress.simulations.plots import Quantity, as_png, new_figure, plain, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flowerpress.protocol import Metrics
    from flowerpress.simulations.outcome import Outcome
    from flowerpress.simulations.recorder import RoundRecord

CONSENSUS, EDGE = "consensus-error", "edge-bytes"
_HEIGHT = 7.2  # inches of three panels


def is_gossip(outcome: Outcome) -> bool:
    """Whether the run's nodes had models of their own."""
    return any(EDGE in record.train for record in outcome.history)


def plot(outcomes: Sequence[Outcome]) -> bytes:
    """Plot the runs whose nodes had models of their own; returns a PNG.

    Accuracy (or else loss) is that of the mean model, with a band from the worst to the best node
    where nodes were collected; the consensus error is the mean squared distance of the nodes'
    models from their mean; bytes are those of packets that crossed an edge one way, so far.

    Raises
    ------
    ImportError
        matplotlib is missing or fails.
    """
    figure = new_figure(_HEIGHT)
    accuracy, consensus, edges = figure.subplots(3, 1, sharex=True)
    chosen = quantity(outcomes)
    for row in outcomes:
        _curves(row, chosen, accuracy, consensus, edges)
    accuracy.set(ylabel=chosen.label)
    accuracy.set_title(f"{plain(outcomes[0].experiment.label)}: mean model, and its nodes")
    consensus.set(ylabel="consensus error", yscale="log")
    edges.set(ylabel="bytes per edge, so far", yscale="log", xlabel="round")
    for axes in (accuracy, consensus, edges):
        axes.grid(visible=True, which="major", alpha=0.3)
    accuracy.legend()
    return as_png(figure)


def _curves(row: Outcome, chosen: Quantity, accuracy: Axes, consensus: Axes, edges: Axes) -> None:
    """Draw one run, in one colour."""
    history = row.history
    label = plain(row.experiment.title)
    (line,) = accuracy.plot(*_points(history, chosen), label=label)
    style: dict[str, Any] = {"color": line.get_color()}
    seen = [record for record in history if record.nodes]
    found = [_values(each.nodes.values(), chosen.name) for each in seen]
    band = [(r.round, min(each), max(each)) for r, each in zip(seen, found, strict=True) if each]
    if band:
        rounds, worst, best = ([point[k] for point in band] for k in range(3))
        accuracy.fill_between(rounds, worst, best, alpha=0.2, **style)
    consensus.plot(*_points(history, Quantity("train", CONSENSUS, "")), marker=".", **style)
    synced, sizes = _points(history, Quantity("train", EDGE, ""))
    edges.plot(synced, list(accumulate(sizes)), **style)


def _points(history: Iterable[RoundRecord], what: Quantity) -> tuple[list[int], list[float]]:
    """Return the rounds that have a figure, and the figure in them."""
    found = [(r.round, value) for r in history if (value := what.of(r)) is not None]
    return [x for x, _ in found], [y for _, y in found]


def _values(nodes: Iterable[Metrics], name: str) -> list[float]:
    """Return a metric of those nodes that have it."""
    found = [node.get(name) for node in nodes]
    return [value for value in found if isinstance(value, int | float)]
