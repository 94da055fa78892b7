"""The server's side of the model: dense in every round, or as compressed deltas."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord

from flowerpress.compressors import Draw, add_to, make_compressor
from flowerpress.compressors.feedback import contraction_scale
from flowerpress.protocol import DeltaLog, Layout, ModelPart, Replica

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
    lr : float
        Step size of rule "ef21".
    seed : int
        The run's seed.

    Raises
    ------
    ValueError
        The compressor is neither contractive nor unbiased with known variance.
    """

    def __init__(
        self, layout: Layout, initial: ArrayRecord, spec: str, *, rule: str, lr: float, seed: int
    ) -> None:
        self.layout = layout
        x, self.buffers = layout.flatten(initial)
        self._identity = make_compressor("identity")
        self._compressor = make_compressor(spec).bind(layout.sizes) if spec else None
        scale = contraction_scale(self._compressor.traits(x.size)) if self._compressor else 1.0
        self.replica = Replica(rule if spec else "dense", 0, x, None, scale)
        self.rule, self.lr, self.seed = rule, lr, seed
        self.log = DeltaLog(limit=x.nbytes)
        self.error: FloatVector | None = None  # what a compressed "step" still owes
        self._snapshot: ModelPart | None = None

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

    def move(self, quantity: FloatVector, server_round: int) -> None:
        """Take the model one step, and with a compressed downlink publish the delta that does it.

        Parameters
        ----------
        quantity : vector
            Rule "step": the step, x -= quantity. Rule "ef21": the estimate g of the gradient,
            x -= lr * g. Workers with a compressed downlink follow a compressed version of it.
        server_round : int
            For the delta's randomness.
        """
        self._snapshot = None
        if self._compressor is None:
            step = quantity if self.rule == "step" else self.x.dtype.type(self.lr) * quantity
            self.replica.x = self.x - step
            self.replica.version += 1
            return
        if self.rule == "step":
            owed = quantity + self.error if self.error is not None else quantity
        else:
            owed = quantity - self.replica.g if self.replica.g is not None else quantity
        draw = Draw(self.seed, server_round, 0, 1, _STREAM)
        packet = self._compressor.compress(owed, draw).data
        if self.rule == "step":
            # A published delta always arrives: a worker that missed it is sent it again.
            self.error = owed.copy() if owed is quantity else owed
            add_to(packet, self.error, -self.replica.scale)
        self.log.append(packet)
        self.replica.advance(packet, self.lr)

    def part_for(self, held: int) -> ModelPart:
        """Return the deltas a worker that holds version `held` missed, or a snapshot if smaller."""
        deltas = self.log.since(held) if self._compressor is not None else None
        if deltas is not None:
            return ModelPart(self.version, held, deltas)
        return self.snapshot()

    def snapshot(self) -> ModelPart:
        """Return the model whole; the same object until it moves."""
        if self._snapshot is None:
            vectors = [v for v in (self.replica.x, self.replica.g) if v is not None]
            packets = [self._identity.compress(vector).data for vector in vectors]
            self._snapshot = ModelPart.snapshot(self.version, packets)
        return self._snapshot
