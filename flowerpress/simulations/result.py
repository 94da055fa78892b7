"""What a run gives: its model, bytes and history, and what `print` shows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flwr.app import ArrayRecord

from flowerpress.protocol import Ledger, Metrics
from flowerpress.server.attendance import Attendance
from flowerpress.simulations.formats import format_bytes, format_metric
from flowerpress.simulations.recorder import RoundRecord
from flowerpress.simulations.verdict import Verdict, judge

_SHOWN = 8  # rounds, spread evenly, the first and the last among them
_COLUMNS = 6  # of metrics
_SOURCES = (("metrics", ""), ("evaluate", "clients' "), ("train", "train "))


@dataclass(repr=False)
class SimulationResult:
    """A run: its model, bytes and history. `print` shows a short table of it.

    Attributes
    ----------
    arrays : ArrayRecord
        The final model; of a run that was stopped, the model after the last round in `history`.
    ledger : Ledger
        Every message's bytes.
    history : list of RoundRecord
        What each round gave, the initial model's first.
    seconds : float
        Wall-clock time; of a run that was resumed that of all its rounds, without the pauses.
    strategy : str
    clients, rounds : int
        Number of clients, and of the rounds that were asked for.
    attendance : Attendance
        Who took part.
    stopped : BaseException or None
        What ended the run before its time.
    """

    arrays: ArrayRecord
    ledger: Ledger
    history: list[RoundRecord] = field(default_factory=list)
    seconds: float = 0.0
    strategy: str = ""
    clients: int = 0
    rounds: int = 0
    attendance: Attendance = field(default_factory=Attendance)
    stopped: BaseException | None = None

    @property
    def done(self) -> int:
        """Rounds that have ended."""
        return self.history[-1].round if self.history else 0

    @property
    def verdict(self) -> Verdict:
        """Whether it was worth anything, and who was left out."""
        return judge(self.history, self.attendance, self.stopped)

    def __repr__(self) -> str:
        return summary(self)


def result_of(error: BaseException | None) -> SimulationResult | None:
    """Return the result so far of the run that an exception ended, if it ended one.

    Another exception may have come while it was being ended, a second Ctrl-C say.
    """
    while error is not None:
        result = getattr(error, "result", None)
        if isinstance(result, SimulationResult):
            return result
        error = error.__context__
    return None


def summary(result: SimulationResult) -> str:
    """Return some lines: what ran, a table of some of its rounds, the model, and what went wrong.

    All of it is ASCII, whatever names metrics have.
    """
    done, asked = result.done, result.rounds
    rounds = f"{done} rounds" if done == asked else f"{done} of {asked} rounds"
    head = f"{result.strategy}, {result.clients} clients, {rounds}, {result.seconds:.1f} s"
    sizes = [array.numpy() for array in result.arrays.values()]
    count, held = sum(each.size for each in sizes), sum(each.nbytes for each in sizes)
    ledger = result.ledger
    sent = f"up {format_bytes(ledger.up_bytes)}, down {format_bytes(ledger.down_bytes)}"
    if collected := sum(record.up_collected for record in result.history):
        sent += f" (up with {format_bytes(collected)} of nodes' models that were collected)"
    lines = [
        f"SimulationResult: {head}",
        *table(result.history),
        f"in all: {sent}",
        f"model: {count:,} numbers, {format_bytes(held)}",
        *result.verdict.lines,
    ]
    return "\n".join(lines).encode("ascii", "backslashreplace").decode()


def table(history: Sequence[RoundRecord]) -> list[str]:
    r"""Return the lines of a table with some of the rounds.

    Examples
    --------
    >>> from flowerpress.simulations.recorder import RoundRecord
    >>> print("\n".join(table([RoundRecord(3, {"loss": 0.25}, {}, 1200, 40, 0.5)])))
      round  loss      up  down
          3  0.25  1.2 kB  40 B
    """
    if not history:
        return []
    places = [round(k * (len(history) - 1) / (_SHOWN - 1)) for k in range(_SHOWN)]
    rows = [history[place] for place in dict.fromkeys(places)]
    columns = [
        (source, name, head + name)
        for source, head in _SOURCES
        for name in dict.fromkeys(name for row in rows for name in _numbers(getattr(row, source)))
        if source != "train" or name == "loss"  # the others are an algorithm's own
    ][:_COLUMNS]
    cells = [["round", *(head for _, _, head in columns), "up", "down"]]
    for row in rows:
        numbers = [_numbers(getattr(row, source)).get(name) for source, name, _ in columns]
        texts = [
            "" if number is None else format_metric(name, number)
            for number, (_, name, _) in zip(numbers, columns, strict=True)
        ]
        sent = [format_bytes(row.up_bytes), format_bytes(row.down_bytes)]
        cells.append([str(row.round), *texts, *sent])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  " + "  ".join(map(str.rjust, row, widths)) for row in cells]


def _numbers(metrics: Metrics) -> dict[str, float]:
    """Return the metrics that are single numbers."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}
