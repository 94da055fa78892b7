"""The server's side of the model: dense in every round, or as compressed deltas."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord

from flowerpress.compressors import Compressor, Draw, add_to, make_compressor
from flowerpress.protocol import DeltaLog, Layout, ModelPart, Replica, Rule, mark_of
from flowerpress.protocol.buffers import kept_buffers, pack_buffers, unpack_buffers
from flowerpress.server.errors import RoundError
from flowerpress.server.tree import Tree

FloatVector = npt.NDArray[np.floating[Any]]
_STREAM = 1  # of `Draw`: the uplink is stream 0


class Downlink:
    """The server's model, and what each worker needs to have it too.

    Parameters
    ----------
    layout : Layout
    initial : ArrayRecord
        The initial model, of that layout.
    spec : str
        Compressor of the deltas; empty: the model goes dense in every round.
    rule : Rule
        What a step does to the model.
    seed : int
        The run's seed.

    Raises
    ------
    ValueError
        The compressor is neither contractive nor unbiased with known variance.
    """

    def __init__(
        self,
        layout: Layout,
        initial: ArrayRecord,
        spec: str,
        *,
        rule: Rule,
        seed: int,
    ) -> None:
        self.layout = layout
        x, self.buffers = layout.flatten(initial)
        self._identity = make_compressor("identity")
        self._compressor: Compressor | None = None
        scale = 1.0
        if spec:
            self._compressor, scale = rule.bind(spec, layout.shapes)
        self.rule, self.seed = rule, seed
        self.dense_first = False  # whether the first estimate is published whole
        self.replica = Replica(rule, 0, x, {}, scale, mark=1 if spec else 0)
        vectors = 1 + len(rule.kept)
        self.log = DeltaLog(limit=vectors * self._identity.compress(x).nbytes)
        self.error: FloatVector | None = None  # what a compressor has left out and is still owed
        self._snapshot: ModelPart | None = None
        self._whole: ModelPart | None = None

    def state(self) -> Tree:
        """Return what a checkpoint needs of it."""
        replica, deltas = self.replica, list(self.log.deltas)
        return {
            "x": self.x,
            "kept": replica.kept,
            "version": replica.version,
            "mark": replica.mark,
            "buffers": self.packed_buffers(),
            "error": self.error,
            "deltas": deltas,
            "logged": self.log.version,
        }

    def restore(self, state: Tree) -> None:
        """Take what `state` returned."""
        replica = self.replica
        replica.x, replica.kept = state["x"], state["kept"]
        replica.version, replica.mark = state["version"], state["mark"]
        self.buffers = unpack_buffers(kept_buffers(state["buffers"]), self.layout)
        self.error = state["error"]
        self.log = DeltaLog(self.log.limit, state["logged"], deque(state["deltas"]))
        self.log.size = sum(len(packet) for packet, _ in self.log.deltas)
        self._snapshot = self._whole = None

    @property
    def x(self) -> FloatVector:
        """The model."""
        return self.replica.model

    def arrays(self) -> ArrayRecord:
        """Return the model and its buffers as they are now."""
        return self.layout.unflatten(self.x, self.buffers)

    def packed_buffers(self) -> bytes:
        """Return the buffers as workers are sent them."""
        return pack_buffers(self.buffers, self.layout)

    @property
    def version(self) -> int:
        """The model's version: the number of steps taken."""
        return self.replica.version

    def move(self, quantity: FloatVector, server_round: int, rate: float) -> None:
        """Take the model one step, and with a compressed downlink publish the delta that does it.

        Parameters
        ----------
        quantity : vector
            What the rule takes a step by: the step itself, or an estimate of the gradient. With a
            compressed downlink, server and workers follow a compressed version of it.
        server_round : int
            For the delta's randomness.
        rate : float
            The step size, for the rules that have one outside the quantity.

        Raises
        ------
        RoundError
            The step is not finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            self._require_finite(quantity, server_round)
            self._snapshot = self._whole = None
            if self._compressor is None:
                self.replica.x = self.rule.dense(self.x, quantity, rate)
                self.replica.version += 1
            else:
                self._publish(self._compressor, quantity, server_round, rate)
            for vector in (self.x, *self.replica.kept.values()):
                self._require_finite(vector, server_round)

    def jump(self, x: FloatVector, server_round: int, **kept: FloatVector) -> None:
        """Set the model, and what is kept beside it: workers get it whole, not as a delta.

        Raises
        ------
        RoundError
            The model is not finite.
        """
        for vector in (x, *kept.values()):
            self._require_finite(vector, server_round)
        self._snapshot = self._whole = None
        self.replica.x, self.replica.kept = x, kept
        self.replica.version += 1
        if self.compressed:
            self.replica.mark = mark_of([self._identity.compress(x).data], [self.version])
        self.log = DeltaLog(self.log.limit, self.version)

    def _publish(
        self, compressor: Compressor, quantity: FloatVector, server_round: int, rate: float
    ) -> None:
        """Compress what the workers do not know yet of `quantity`, and follow it as they will."""
        feedback, scale, owed = self.rule.feedback, self.replica.scale, quantity
        if feedback == "error" and self.error is not None:
            owed = quantity + self.error
        if feedback == "known":
            known = self.replica.kept.get("g")
            if known is not None:
                owed = quantity - known
            elif self.dense_first:
                # Whole, whatever the workers' rule makes of a delta: they apply it scaled.
                compressor, owed = self._identity, owed / owed.dtype.type(scale)
        packet = compressor.compress(owed, Draw(self.seed, server_round, 0, 1, _STREAM)).data
        if feedback == "error":
            # A published delta always arrives: a worker that missed it is sent it again.
            self.error = owed.copy() if owed is quantity else owed
            add_to(packet, self.error, -scale)
        self.log.append(packet, rate)
        self.replica.advance(packet, rate)

    @staticmethod
    def _require_finite(vector: FloatVector, server_round: int) -> None:
        if not np.isfinite(vector).all():
            raise RoundError(
                f"round {server_round}: the model is no longer finite: lower lr, or leave out "
                "the clients that send huge updates"
            )

    @property
    def compressed(self) -> bool:
        """Whether the model goes as deltas."""
        return self._compressor is not None

    def part_for(self, held: int) -> ModelPart:
        """Return the deltas a worker that holds version `held` missed, or a snapshot if smaller."""
        deltas = self.log.since(held) if self.compressed else None
        return replace(deltas, mark=self.replica.mark) if deltas is not None else self.snapshot()

    def nothing(self) -> ModelPart:
        """Return the part of the model of a worker that holds it already."""
        return ModelPart(self.version, self.version, mark=self.replica.mark)

    def snapshot(self) -> ModelPart:
        """Return the model whole, with what a compressed downlink goes on from; cached."""
        if self._snapshot is None:
            kept = self.replica.kept
            self._snapshot = self._part([self.x, *(kept[name] for name in self.rule.kept if kept)])
        return self._snapshot

    def whole(self) -> ModelPart:
        """Return the model alone; cached."""
        if not self.replica.kept:
            return self.snapshot()
        if self._whole is None:
            self._whole = self._part([self.x])
        return self._whole

    def _part(self, vectors: list[FloatVector]) -> ModelPart:
        packets = [self._identity.compress(vector).data for vector in vectors]
        return ModelPart.snapshot(self.version, packets, self.replica.mark)
