"""A question to the workers: what a round of an algorithm yields, and then goes on with.

A round is a generator, `flowerpress.server.algorithm.Algorithm.round`. Each `Ask` that it
yields goes to a cohort; what comes back goes ``into`` the round's sum, one answer at a time; and
the round goes on with the workers whose answers went in. Where there is none it ends there, and the
model stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from flowerpress.protocol import Layout, ModelPart
from flowerpress.protocol.places import Places
from flowerpress.server.client import Client
from flowerpress.server.update import Update

FloatVector: TypeAlias = npt.NDArray[np.floating[Any]]
Steps: TypeAlias = "Generator[Ask, list[Client], None]"
"""A round: it yields questions, and is sent the workers whose answers went in."""

WHATS = ("update", "sketch", "values", "model", "evaluation")


@dataclass(frozen=True)
class Ask:
    """A question to a cohort.

    Parameters
    ----------
    cohort : list of Client
        The workers asked, by id.
    into : vector or callable, optional
        Where an update goes. A vector: its mass times what it holds is added. A function takes the
        `Update`, or raises `PacketError` and changes nothing. None of an evaluation.
    what : {"update", "sketch", "values", "model", "evaluation"}
        What is asked for: a compressed update; one that counts as applied only when the exact
        values that are asked for next have come; these, whole; the worker's own model, whole; or
        metrics of a model.
    places : array of uint32
        With "values": the coordinates, ascending, at least one. The question brings no model, so
        the downlink must be compressed: workers then keep a replica.
    vectors : int (default: 1)
        With "values": of how many vectors.
    part_for : callable, optional
        What of the model each worker is sent; by default what it lacks.
    buffers : bool (default: True)
        Whether the model's buffers go along, and come back with an update or a sketch; if not, they
        stay with the workers.
    silence : bool (default: False)
        Whether a worker may answer that it has nothing to send.
    several : bool (default: False)
        Whether an update may be several packets of the compressor in one.
    scaled : bool (default: True)
        Whether an update goes in times its scale, and nowhere without.
    optional : bool (default: False)
        Whether the round goes on if no answer goes in.
    timeout : float, optional
        Seconds to wait for answers, of all questions but a round's first; by default the run's.
    """

    cohort: list[Client]
    into: FloatVector | Callable[[Update], None] | None = None
    what: str = "update"
    places: Places | None = None
    vectors: int = 1
    part_for: Callable[[Client], ModelPart] | None = None
    buffers: bool = True
    silence: bool = False
    several: bool = False
    scaled: bool = True
    optional: bool = False
    timeout: float | None = None

    @cached_property
    def purpose(self) -> str:
        """What the ledger calls it."""
        return {"model": "collect", "evaluation": "evaluate"}.get(self.what, "train")

    @cached_property
    def stage(self) -> int:
        """Which of a round's exchanges it is to a worker: 2 where it answers from its memory."""
        return 2 if self.what in ("values", "model") else 1

    @cached_property
    def compressed(self) -> bool:
        """Whether the answers are compressed; else they are whole."""
        return self.what in ("update", "sketch")

    @cached_property
    def bare(self) -> bool:
        """Whether answers come without buffers."""
        return self.what == "values" or (not self.buffers and self.what != "model")

    @cached_property
    def applied(self) -> bool:
        """Whether what goes in counts as applied."""
        return self.what in ("update", "values")

    def length(self, layout: Layout) -> int:
        """Return how many numbers the packet of an answer holds."""
        return layout.dim if self.places is None else self.vectors * self.places.size

    def take(self, update: Update) -> None:
        """Let an update in, or raise `PacketError` and change nothing."""
        if callable(self.into):
            self.into(update)
        elif self.into is not None:
            update.add_to(self.into)
