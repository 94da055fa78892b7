"""A tracker: one run's configuration, rounds and verdict, for a writer that shows them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from flowerpress.simulations.recorder import RoundRecord
from flowerpress.simulations.tracking.naming import Setting, flat_config, flat_metrics
from flowerpress.simulations.verdict import FAILED, Verdict

log = logging.getLogger("flowerpress")


class Judged(Protocol):
    """What a run came to: an `Outcome`, a `SimulationResult`, or whatever has a verdict."""

    @property
    def verdict(self) -> Verdict:
        """Whether the run was worth anything, and who was left out."""


class Writer(Protocol):
    """What a library must do to be a tracker. Anything it raises ends the tracking of the run."""

    def open(self, config: Mapping[str, Setting]) -> None:
        """Begin a run; `config` is flat: truth values, numbers and texts by dotted names."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Show the values of a round, by name; NaN and infinity are among them."""

    def close(self, verdict: Verdict) -> None:
        """End the run."""


class Tracker:
    """Tells one run to a writer, and never ends the run: a writer that fails is not asked again.

    Call it with each `RoundRecord`, so it is an ``on_round`` of `simulate`.

    ==================================== ==========================================================
    name                                 value, at a round's number
    ==================================== ==========================================================
    held-out/NAME                        metric that ``evaluate_fn`` returned
    clients/NAME                         the clients' own evaluations, averaged
    train/NAME                           training metrics, averaged
    bytes/up, bytes/down                 payload and framing as sent by all clients, so far
    bytes/up-collected                   of nodes' own models that were asked for, so far (gossip)
    time/seconds                         since the run began, so far
    ==================================== ==========================================================

    A list is one name for each element, ``held-out/recall/0`` say.

    Parameters
    ----------
    name : str
        What the writer is called in a warning.
    writer : Writer

    Examples
    --------
    >>> class Printed:
    ...     def open(self, config):
    ...         print(config)
    ...     def write(self, step, values):
    ...         print(step, values["held-out/loss"], values["bytes/up"])
    ...     def close(self, verdict):
    ...         print(verdict.status)
    >>> tracker = Tracker("print", Printed())
    >>> tracker.begin({"strategy": "ef21", "strategy_options": {"lr": 0.5}})
    {'strategy': 'ef21', 'strategy_options.lr': 0.5}
    >>> for r in range(2):
    ...     tracker.round(RoundRecord(r, {"loss": 2.0 - r}, {}, 100 * r, 0, 0.1))
    0 2.0 0.0
    1 1.0 100.0
    >>> tracker.end(None)
    failed
    """

    def __init__(self, name: str, writer: Writer) -> None:
        self.name, self._writer = name, writer
        self._begun = self._over = False
        self._before = self._last = RoundRecord(-1, {}, {}, 0, 0, 0.0)  # sums up to a round

    def begin(self, config: Mapping[str, Any]) -> None:
        """Tell what runs: names and values, nested as they come, such as `Experiment.as_dict`."""
        self._begun = True
        self._try(lambda: self._writer.open(flat_config(config)))

    def round(self, record: RoundRecord) -> None:
        """Tell a round that has ended; one told again, as at an early end, takes its place."""
        if not self._begun:
            self.begin({})
        if record.round != self._last.round:
            self._before = self._last
        before = self._before
        self._last = sums = replace(
            record,
            up_bytes=before.up_bytes + record.up_bytes,
            down_bytes=before.down_bytes + record.down_bytes,
            up_collected=before.up_collected + record.up_collected,
            seconds=before.seconds + record.seconds,
        )
        self._try(lambda: self._writer.write(record.round, _values(sums)))

    def __call__(self, record: RoundRecord) -> None:
        """As `round`."""
        self.round(record)

    def resumed(self, records: Iterable[RoundRecord]) -> None:
        """Tell the rounds that had ended before the run was resumed, so that sums are of all."""
        for record in records:
            self.round(record)

    def end(self, outcome: Judged | None) -> None:
        """Tell what the run came to; None: it ended before a round had."""
        if not self._begun:
            self.begin({})
        verdict = Verdict(FAILED) if outcome is None else outcome.verdict
        self._try(lambda: self._writer.close(verdict))
        self._over = True

    def _try(self, call: Callable[[], None]) -> None:
        if self._over:
            return
        try:
            call()
        except Exception as error:
            self._over = True
            log.warning(
                "tracking by %s has failed, and the run goes on without it: %s: %s",
                self.name,
                type(error).__name__,
                " ".join(str(error).split()),
            )
            with suppress(Exception):  # what it has so far should be kept
                self._writer.close(Verdict(FAILED, "tracking has failed"))


def _values(sums: RoundRecord) -> dict[str, float]:
    """Return what is shown of a round, whose bytes and seconds are sums, by name."""
    values = {
        **flat_metrics("held-out", sums.metrics),
        **flat_metrics("clients", sums.evaluate),
        **flat_metrics("train", sums.train),
        "bytes/up": float(sums.up_bytes),
        "bytes/down": float(sums.down_bytes),
        "time/seconds": sums.seconds,
    }
    return values | ({"bytes/up-collected": float(sums.up_collected)} if sums.up_collected else {})
