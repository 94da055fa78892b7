"""A picture of runs: what they reached, against what they sent."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from flowerpress.extras import import_failure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flowerpress.simulations.outcome import Outcome
    from flowerpress.simulations.recorder import RoundRecord

_SOURCES = (("metrics", "held-out"), ("evaluate", "clients'"), ("train", "training"))


class Quantity(NamedTuple):
    """A metric to draw: where a record has it, its name, and what to call it."""

    source: str
    name: str
    label: str

    def of(self, record: RoundRecord) -> float | None:
        """Return its value in a round; None where there is none."""
        value = getattr(record, self.source).get(self.name)
        return value if isinstance(value, int | float) else None


def quantity(outcomes: Sequence[Outcome]) -> Quantity:
    """Return what all runs can be drawn by: accuracy or else loss, on held-out data if it can be.

    Where they have neither, it is the training loss, of which a picture is then empty.
    """
    for source, label in _SOURCES:
        for name in ("accuracy", "loss"):
            found = Quantity(source, name, f"{label} {name}")
            if all(any(found.of(r) is not None for r in row.history) for row in outcomes):
                return found
    return Quantity("train", "loss", "training loss")


def plot(outcomes: Sequence[Outcome]) -> bytes:
    """Plot accuracy (or else loss) against uplink bytes, on a log axis; returns a PNG.

    Raises
    ------
    ImportError
        matplotlib is missing or fails.
    """
    figure = new_figure(4.0)
    axes = figure.add_subplot()
    chosen = quantity(outcomes)
    for row in outcomes:
        sent = accumulate(record.up_bytes for record in row.history)
        # Round 0 has sent nothing, which a log axis cannot show.
        points = [
            (total, value)
            for total, record in zip(sent, row.history, strict=True)
            if total > 0 and (value := chosen.of(record)) is not None
        ]
        label = plain(row.experiment.title)
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=label)
    axes.set(xscale="log", xlabel="uplink bytes as sent, all clients", ylabel=chosen.label)
    axes.set_title(plain(outcomes[0].experiment.label))
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend()
    return as_png(figure)


def new_figure(height: float) -> Figure:
    """Return an empty figure of this height in inches.

    Raises
    ------
    ImportError
        matplotlib is missing or fails.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise import_failure(error, "a plot", "matplotlib") from error
    figure = Figure(figsize=(6.4, height), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: it holds global state and may want a display
    return figure


def as_png(figure: Figure) -> bytes:
    """Return a figure's PNG."""
    file = io.BytesIO()
    figure.savefig(file, dpi=150, format="png")
    return file.getvalue()


def plain(text: str) -> str:
    r"""Return a name as matplotlib draws it: its font lacks most scripts, `$` begins a formula.

    Examples
    --------
    >>> print(plain("my $task"))
    my \$task
    """
    return text.replace("$", r"\$").encode("latin-1", "replace").decode("latin-1")
