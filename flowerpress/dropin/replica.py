"""The model on its way down, as the deltas that clients lack: a replica x^, and what it owes x.

Clients work on x^. What the compressor left out, x - x^, is owed, and goes with later deltas. An
answer that starts from x^ is rebuilt on the strategy's own x, so that the strategy sees what it
would have seen: y = x + (y^ - x^).
"""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord

from flowerpress.dropin.arrays import FloatVector, Place, Plan
from flowerpress.protocol import ModelPart, make_rule
from flowerpress.server.downlink import Downlink
from flowerpress.server.tree import Tree


class Broadcast:
    """The replica that all clients of a channel share.

    Parameters
    ----------
    plan : Plan
        What of a message it is.
    x : vector
        The first model.
    spec : str
        The compressor of deltas.
    seed : int
    """

    def __init__(self, plan: Plan, x: FloatVector, spec: str, seed: int) -> None:
        self.plan = plan
        parts = plan.scatter(x)
        first = ArrayRecord({slot.name: Array(parts[slot.place]) for slot in plan.taken})
        rule = make_rule("step", {})
        self._model = Downlink(plan.layout, first, spec, rule=rule, seed=seed)
        self._arrays: dict[Place, Array] | None = None
        self._followed = x

    def follow(self, x: FloatVector, server_round: int) -> FloatVector | None:
        """Publish what takes the replica to `x`, where that is new; returns x less the replica.

        Returns None where the step overflows: `x` then goes as it is. What is evaluated is what
        the next round starts from: it is sent once.
        """
        model = self._model
        if not np.array_equal(x, self._followed):
            # The replica and what it owes are the x before, so that C is of what the replica lacks.
            exact = model.x if model.error is None else model.x - model.error
            with np.errstate(over="ignore"):
                step = exact - x
            if not np.isfinite(step).all():
                return None
            model.move(step, server_round, 1.0)
            self._arrays, self._followed = None, x
        return x - model.x

    def state(self) -> Tree:
        """Return what a checkpoint needs."""
        return {"model": self._model.state(), "followed": self._followed}

    def restore(self, state: Tree) -> None:
        """Take what `state` returned."""
        self._model.restore(state["model"])
        self._followed, self._arrays = state["followed"], None

    def part_for(self, held: int, *, speaks: bool) -> ModelPart:
        """Return the deltas that a node lacks; a part without any where it gets the whole."""
        part = self._model.part_for(held) if speaks else self._model.snapshot()
        if part.base >= 0:
            return part
        return ModelPart(part.version, -1, mark=part.mark)

    @property
    def arrays(self) -> dict[Place, Array]:
        """The replica as arrays, the same objects for all."""
        if self._arrays is None:
            parts = self.plan.scatter(self._model.x)
            self._arrays = {place: Array(value) for place, value in parts.items()}
        return self._arrays
