"""The server's side of the model: dense in every round, or as compressed deltas."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord

from flowerpress.compressors import Compressor, Draw, add_to, make_compressor
from flowerpress.compressors.feedback import contraction
from flowerpress.protocol import DeltaLog, Layout, ModelPart, Replica
from flowerpress.strategies.errors import RoundError

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
    rule : {"step", "ef21"}
        How a delta moves the model (see `Replica`).
    dense_first : bool
        Rule "ef21": publish the first estimate whole: workers start from what the server has.
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
        rule: str,
        dense_first: bool,
        seed: int,
    ) -> None:
        self.layout = layout
        x, self.buffers = layout.flatten(initial)
        self._identity = make_compressor("identity")
        self._compressor: Compressor | None = None
        scale = 1.0
        if spec:
            self._compressor, scale = contraction(spec, layout.shapes)
        self.replica = Replica(rule if spec else "dense", 0, x, None, scale)
        self.rule, self.dense_first, self.seed = rule, dense_first, seed
        vectors = 2 if rule == "ef21" else 1
        self.log = DeltaLog(limit=vectors * self._identity.compress(x).nbytes)
        self.error: FloatVector | None = None  # what a compressed "step" still owes
        self._snapshot: ModelPart | None = None
        self._whole: ModelPart | None = None

    @property
    def x(self) -> FloatVector:
        """The model."""
        return self.replica.model

    def arrays(self) -> ArrayRecord:
        """Return the model and its buffers as they are now."""
        return self.layout.unflatten(self.x, self.buffers)

    @property
    def version(self) -> int:
        """The model's version: the number of steps taken."""
        return self.replica.version

    def move(self, quantity: FloatVector, server_round: int, lr: float) -> None:
        """Take the model one step, and with a compressed downlink publish the delta that does it.

        Parameters
        ----------
        quantity : vector
            Rule "step": the step, x -= quantity. Rule "ef21": the estimate g of the gradient,
            x -= lr * g. Workers with a compressed downlink follow a compressed version of it.
        server_round : int
            For the delta's randomness.
        lr : float
            The step size of rule "ef21".

        Raises
        ------
        RoundError
            The step is not finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            self._require_finite(quantity, server_round)
            self._snapshot = self._whole = None
            if self._compressor is None:
                step = quantity if self.rule == "step" else quantity.dtype.type(lr) * quantity
                self.replica.x = self.x - step
                self.replica.version += 1
            else:
                self._publish(self._compressor, quantity, server_round, lr)
            self._require_finite(self.x, server_round)

    def _publish(
        self, compressor: Compressor, quantity: FloatVector, server_round: int, lr: float
    ) -> None:
        """Compress what the workers do not know yet of `quantity`, and follow it as they will."""
        known = self.replica.g if self.rule == "ef21" else None
        if self.rule == "step":
            owed = quantity.copy() if self.error is None else quantity + self.error
        else:
            owed = quantity if known is None else quantity - known
        if self.rule == "ef21" and known is None and self.dense_first:
            # Whole, whatever the workers' rule makes of a delta: they apply it scaled.
            compressor, owed = self._identity, owed / owed.dtype.type(self.replica.scale)
        packet = compressor.compress(owed, Draw(self.seed, server_round, 0, 1, _STREAM)).data
        if self.rule == "step":
            # A published delta always arrives: a worker that missed it is sent it again.
            self.error = owed
            add_to(packet, self.error, -self.replica.scale)
        self.log.append(packet, lr)
        self.replica.advance(packet, lr)

    @staticmethod
    def _require_finite(vector: FloatVector, server_round: int) -> None:
        if not np.isfinite(vector).all():
            raise RoundError(
                f"round {server_round}: the model is no longer finite: lower lr, or leave out "
                "the clients that send huge updates"
            )

    def part_for(self, held: int) -> ModelPart:
        """Return the deltas a worker that holds version `held` missed, or a snapshot if smaller."""
        deltas = self.log.since(held) if self._compressor is not None else None
        return deltas if deltas is not None else self.snapshot()

    def snapshot(self) -> ModelPart:
        """Return the model whole, with what a compressed downlink goes on from; cached."""
        if self._snapshot is None:
            g = self.replica.g
            self._snapshot = self._part([self.x] if g is None else [self.x, g])
        return self._snapshot

    def whole(self) -> ModelPart:
        """Return the model alone, for evaluation; cached."""
        if self.replica.g is None:
            return self.snapshot()
        if self._whole is None:
            self._whole = self._part([self.x])
        return self._whole

    def _part(self, vectors: list[FloatVector]) -> ModelPart:
        packets = [self._identity.compress(vector).data for vector in vectors]
        return ModelPart.snapshot(self.version, packets)
