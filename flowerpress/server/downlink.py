"""The server's side of the model: dense in every round, or as compressed deltas."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord

from flowerpress.compressors import Compressor, Draw, Packet, add_to, make_compressor
from flowerpress.compressors.identity import Identity
from flowerpress.compressors.vectors import blocks
from flowerpress.compressors.wire.packet import HEADER_BYTES
from flowerpress.protocol import DeltaLog, Layout, ModelPart, Replica, Rule, mark_of
from flowerpress.protocol.arrays import Pieces, all_finite
from flowerpress.protocol.buffers import kept_buffers, pack_buffers, unpack_buffers
from flowerpress.protocol.rooms import room_for
from flowerpress.server.errors import RoundError
from flowerpress.server.tree import Tree

FloatVector = npt.NDArray[np.floating[Any]]
Quantity = FloatVector | Callable[[slice], FloatVector]
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
        self._lent: dict[str, tuple[weakref.ref[FloatVector], weakref.ref[FloatVector]]] = {}
        vectors = 1 + len(rule.kept)
        self.log = DeltaLog(limit=vectors * (HEADER_BYTES + x.nbytes))
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
        self._lent.clear()

    @property
    def x(self) -> FloatVector:
        """The model as it is now, which stays so: while somebody holds it, steps go to a copy."""
        return self._lend("x")

    def _lend(self, name: str) -> FloatVector:
        """Return a view of the model, or of a vector kept beside it, that is not to be changed."""
        whole = self.replica.model if name == "x" else self.replica.kept[name]
        lent = self._lent_of(whole)
        if lent is None:
            # Of memory, and not of the vector: slices of it then hold it, and not what it is of.
            lent = np.frombuffer(whole.data, whole.dtype)
            self._lent[name] = weakref.ref(whole), weakref.ref(lent)
        return lent

    def _lent_of(self, whole: FloatVector) -> FloatVector | None:
        """Return the view of a vector that somebody holds; None where nobody does."""
        for of, lent in self._lent.values():
            if of() is whole:
                return lent()
        return None

    def _take_back(self) -> None:
        """Let somebody who holds a vector still have it, and go on with a copy."""
        replica = self.replica
        if self._lent_of(replica.model) is not None:
            replica.x = replica.model.copy()
        for name, vector in replica.kept.items():
            if self._lent_of(vector) is not None:
                replica.kept[name] = vector.copy()
        self._lent.clear()

    def arrays(self) -> ArrayRecord:
        """Return the model and its buffers as they are now, serialized once somebody asks."""
        return self.layout.unflatten_later(self._lend("x"), self.buffers)

    def packed_buffers(self) -> bytes:
        """Return the buffers as workers are sent them."""
        return pack_buffers(self.buffers, self.layout)

    @property
    def version(self) -> int:
        """The model's version: the number of steps taken."""
        return self.replica.version

    def move(self, quantity: Quantity, server_round: int, rate: float) -> None:
        """Take the model one step, and with a compressed downlink publish the delta that does it.

        Without one it moves where it is, block by block, unless somebody holds it (`x`).

        Parameters
        ----------
        quantity : vector or callable
            What the rule takes a step by: the step itself, or an estimate of the gradient. A
            function returns a slice of it, always the same. With a compressed downlink, server and
            workers follow a compressed version of it.
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
            of = quantity if callable(quantity) else quantity.__getitem__
            for part in blocks(self.layout.dim):
                if not np.isfinite(of(part)).all():
                    raise _not_finite(server_round)
            self._snapshot = self._whole = None
            if self._compressor is None:
                self._step(of, rate)
            else:
                self._take_back()
                self._publish(self._compressor, of, server_round, rate)
            for vector in (self.replica.model, *self.replica.kept.values()):
                if not all_finite(vector):
                    raise _not_finite(server_round)

    def _step(self, quantity: Callable[[slice], FloatVector], rate: float) -> None:
        """Take a dense step: the same numbers, one by one, wherever they are put."""
        before = self.replica.model
        held = self._lent_of(before) is not None
        after = room_for(before.size, before.dtype) if held else before
        for part in blocks(before.size):
            after[part] = self.rule.dense(before[part], quantity(part), rate)
        self.replica.x = after
        self.replica.version += 1
        self._lent.clear()

    def jump(self, x: FloatVector, server_round: int, **kept: FloatVector) -> None:
        """Set the model, and what is kept beside it: workers get it whole, not as a delta.

        Raises
        ------
        RoundError
            The model is not finite.
        """
        for vector in (x, *kept.values()):
            if not all_finite(vector):
                raise _not_finite(server_round)
        self._snapshot = self._whole = None
        self.replica.x, self.replica.kept = x, kept
        self._lent.clear()
        self.replica.version += 1
        if self.compressed:
            self.replica.mark = mark_of([_whole_packet(x)], [self.version])
        self.log = DeltaLog(self.log.limit, self.version)

    def _publish(
        self,
        compressor: Compressor,
        quantity: Callable[[slice], FloatVector],
        server_round: int,
        rate: float,
    ) -> None:
        """Compress what the workers do not know yet of `quantity`, and follow it as they will."""
        feedback, scale = self.rule.feedback, self.replica.scale
        owed = self._owed(quantity)
        if feedback == "known" and "g" not in self.replica.kept and self.dense_first:
            # Whole, whatever the workers' rule makes of a delta: they apply it scaled.
            compressor = self._identity
            owed /= owed.dtype.type(scale)
        packet = compressor.compress(owed, Draw(self.seed, server_round, 0, 1, _STREAM)).data
        if feedback == "error":
            # A published delta always arrives: a worker that missed it is sent it again.
            self.error = owed
            add_to(packet, self.error, -scale)
        del owed
        self.log.append(packet, rate)
        self.replica.advance(packet, rate)

    def _owed(self, quantity: Callable[[slice], FloatVector]) -> FloatVector:
        """Return what the workers do not know yet, in a vector of its own, made block by block."""
        dim, feedback = self.layout.dim, self.rule.feedback
        known = self.replica.kept.get("g") if feedback == "known" else None
        error = self.error if feedback == "error" else None
        beside = [each.dtype for each in (known, error) if each is not None]
        owed = room_for(dim, np.result_type(quantity(slice(0, 1)).dtype, *beside))
        for part in blocks(dim):
            owed[part] = quantity(part)
            if known is not None:
                owed[part] -= known[part]
            elif error is not None:
                owed[part] += error[part]
        return owed

    @property
    def compressed(self) -> bool:
        """Whether the model goes as deltas."""
        return self._compressor is not None

    def part_for(self, held: int) -> ModelPart:
        """Return the deltas a worker that holds version `held` missed, or a snapshot if smaller."""
        deltas = self.log.since(held) if self._compressor is not None else None
        return replace(deltas, mark=self.replica.mark) if deltas is not None else self.snapshot()

    def nothing(self) -> ModelPart:
        """Return the part of the model of a worker that holds it already."""
        version = self.replica.version
        return ModelPart(version, version, mark=self.replica.mark)

    def snapshot(self) -> ModelPart:
        """Return the model whole, with what a compressed downlink goes on from; cached."""
        if self._snapshot is None:
            names = self.rule.kept if self.replica.kept else ()
            self._snapshot = self._part(["x", *names])
        return self._snapshot

    def whole(self) -> ModelPart:
        """Return the model alone; cached."""
        if not self.replica.kept:
            return self.snapshot()
        if self._whole is None:
            self._whole = self._part(["x"])
        return self._whole

    def _part(self, names: list[str]) -> ModelPart:
        packets = [_whole_packet(self._lend(name)) for name in names]
        return ModelPart.snapshot(self.replica.version, packets, self.replica.mark)


def _whole_packet(vector: FloatVector) -> Pieces:
    """Return what `identity` makes of a finite vector, with its payload where the vector is."""
    return Pieces(Packet.pieces(Identity.codec, vector.dtype, vector.size, [vector]))


def _not_finite(server_round: int) -> RoundError:
    return RoundError(
        f"round {server_round}: the model is no longer finite: lower lr, or leave out the clients "
        "that send huge updates"
    )
