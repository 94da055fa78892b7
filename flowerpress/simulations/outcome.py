"""What experiments reached, and whether that is what was wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.recorder import RoundRecord
from flowerpress.simulations.verdict import Verdict

if TYPE_CHECKING:
    from flowerpress.protocol import Metrics
    from flowerpress.protocol.ledger import RoundBytes
    from flowerpress.server.attendance import Presence
    from flowerpress.simulations.result import SimulationResult


@dataclass(frozen=True)
class Outcome:
    """What one run reached, and what it sent.

    Attributes
    ----------
    up_bytes, down_bytes : int
        Bytes as sent, payload and framing, from and to all clients over the whole run.
    dense_up_bytes : int
        Computed, not measured: bytes of the model times the number of uplink messages, without
        any framing.
    seconds : float
        Wall-clock time of the run, without the pauses of one that was resumed.
    up_collected : int
        Of the uplink's bytes, those of nodes' own models that were asked for (gossip).
    verdict : Verdict
        Whether it was worth anything, and who was left out.
    clients : mapping of int to Presence
        What part each client took.
    """

    experiment: Experiment
    history: tuple[RoundRecord, ...]
    ledger_rounds: tuple[RoundBytes, ...]
    up_bytes: int
    down_bytes: int
    dense_up_bytes: int
    seconds: float
    up_collected: int = 0
    verdict: Verdict = field(default_factory=lambda: Verdict("done"))
    clients: Mapping[int, Presence] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment, result: SimulationResult) -> Outcome:
        """Gather the outcome of `experiment` from what the simulation returned."""
        model_bytes = sum(array.numpy().nbytes for array in result.arrays.values())
        rounds = tuple(result.ledger.rounds)
        return cls(
            experiment=experiment,
            history=tuple(result.history),
            ledger_rounds=rounds,
            up_bytes=result.ledger.up_bytes,
            down_bytes=result.ledger.down_bytes,
            dense_up_bytes=model_bytes * sum(row.clients for row in rounds),
            seconds=result.seconds,
            up_collected=sum(row.up_collected for row in rounds),
            verdict=result.verdict,
            clients=dict(result.attendance.clients),
        )

    @property
    def status(self) -> str:
        """What became of it: see `Verdict`."""
        return self.verdict.status

    @property
    def reason(self) -> str:
        """One sentence about it; empty where all went well."""
        return self.verdict.reason

    @property
    def rounds(self) -> int:
        """Rounds that have ended."""
        return self.history[-1].round if self.history else 0

    @property
    def up_training(self) -> int:
        """Uplink bytes but for those of nodes' own models that were asked for."""
        return self.up_bytes - self.up_collected

    @property
    def final(self) -> Metrics:
        """Metrics of the final model on held-out data."""
        return dict(self.history[-1].metrics) if self.history else {}

    @property
    def final_evaluate(self) -> Metrics:
        """The clients' averaged metrics, of the last round in which they evaluated."""
        return next((dict(each.evaluate) for each in reversed(self.history) if each.evaluate), {})

    def ratio_to_dense(self, dense: Outcome | None = None) -> tuple[float, str]:
        """Return how many times fewer uplink bytes than a dense run this one sent in training.

        Parameters
        ----------
        dense : Outcome or None
            The dense run. None: compare with what the same messages would carry as dense vectors.

        Returns
        -------
        tuple[float, str]
            The ratio, and where it comes from: `"measured"` or `"computed"`.
        """
        if dense is not None:
            return dense.up_training / max(self.up_training, 1), "measured"
        return self.dense_up_bytes / max(self.up_training, 1), "computed"


@dataclass(frozen=True)
class Targets:
    """What a run must reach beside its dense baseline.

    Attributes
    ----------
    min_ratio : float or None
        At least this many times fewer uplink bytes as sent.
    max_drop : float or None
        Accuracy at most this many points (hundredths) below the baseline's.
    """

    min_ratio: float | None = None
    max_drop: float | None = None

    def missed(self, outcome: Outcome, dense: Outcome) -> list[str]:
        """Return one sentence for each target that `outcome` misses."""
        sentences = []
        ratio, _ = outcome.ratio_to_dense(dense)
        if self.min_ratio is not None and ratio < self.min_ratio:
            sentences.append(
                f"{ratio:.1f}x fewer uplink bytes than dense; the target is {self.min_ratio:g}x"
            )
        if self.max_drop is not None:
            drop = 100 * (_accuracy(dense) - _accuracy(outcome))
            if not all("accuracy" in run.final for run in (dense, outcome)):
                sentences.append("the task measures no accuracy, which max-drop is about")
            elif not drop <= self.max_drop:  # so that NaN misses too
                sentences.append(
                    f"accuracy is {drop:.2f} points below dense; the target is {self.max_drop:g}"
                )
        return sentences


def _accuracy(outcome: Outcome) -> float:
    """Return the final accuracy; NaN, which reaches no target, where there is none."""
    found = outcome.final.get("accuracy", math.nan)
    return float(found) if isinstance(found, int | float) else math.nan
