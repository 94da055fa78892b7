"""Several trackers of one run, as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flowerpress.simulations.recorder import OnRound, RoundRecord
from flowerpress.simulations.result import result_of
from flowerpress.simulations.tracking.tracker import Judged, Tracker
from flowerpress.simulations.tracking.writers import make_tracker


class Trackers:
    """Tells one run to all its trackers; inside a ``with`` block, also what ends it early.

    Parameters
    ----------
    trackers : iterable of Tracker
    then : callable, optional
        Called with each round after them, a progress bar say. Has it a method ``resumed``, that is
        called too.
    """

    def __init__(self, trackers: Iterable[Tracker], then: OnRound | None = None) -> None:
        self._trackers, self.then = list(trackers), then

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.end(result_of(error))

    def begin(self, config: Mapping[str, Any]) -> None:
        """Tell all what runs, see `Tracker.begin`."""
        for each in self._trackers:
            each.begin(config)

    def __call__(self, record: RoundRecord) -> None:
        """Tell all of a round that has ended."""
        for each in self._trackers:
            each.round(record)
        if self.then is not None:
            self.then(record)

    def resumed(self, records: Sequence[RoundRecord]) -> None:
        """Tell all of the rounds that had ended before the run was resumed."""
        for each in self._trackers:
            each.resumed(records)
        resumed = getattr(self.then, "resumed", None)
        if resumed is not None:
            resumed(records)

    def end(self, outcome: Judged | None) -> None:
        """Tell all what the run came to; what they were told before stays."""
        for each in self._trackers:
            each.end(outcome)


def make_trackers(names: Iterable[str], folder: str | Path, run: str = "run") -> Trackers:
    """Return the trackers of these names, each once; raises what `make_tracker` does."""
    return Trackers(make_tracker(name, folder, run) for name in dict.fromkeys(names))
