"""Sketched-SGD and SketchedAMSGrad: worker half.

Sketched-SGD: Ivkin, Rothchild, Ullah, Braverman, Stoica, Arora 2019 (arXiv:1903.04488).
SketchedAMSGrad: Xian, Huang, Huang 2022 (arXiv:2210.07454).

    1. receive x
    2. Sketched-SGD:     u_i = v_i = 0 at the k places where x moved in the round before
       SketchedAMSGrad:  e_i = 0 there               (if the server says it applied the values)
    3. Sketched-SGD:     u_i = momentum u_i + g_i;  v_i += u_i;                    send S(v_i)
       SketchedAMSGrad:  m_i = beta1 m_i + (1 - beta1) g_i;  e_i = m_i + (lr_e / lr) e_i;
                                                                                   send S(e_i)
    4. receive places; send v_i there, exact (SketchedAMSGrad: e_i and g_i there)

The papers end a round with line 2. lr_e is the lr of the round that e_i is from. The worker learns
the places of line 2 from the step itself, the first delta that its replica lacks afterwards. If the
model comes whole instead, as after a long absence, it takes all places it sent for sent: what x has
not moved by is then lost, but nothing is sent twice. A lost answer, of either exchange, leaves
everything owed. One that the server refused as too large takes the round's gradient out of all
vectors again. The server halves are in ``strategies/sketched/sketched_sgd.py`` and
``strategies/sketched/sketched_amsgrad.py``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from flowerpress.compressors import decompress
from flowerpress.compressors.feedback import Settlement
from flowerpress.protocol import decode_places
from flowerpress.worker.memory import OnceSender
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.replicas import AWAITED, DELTA
from flowerpress.worker.worker import FloatVector, Job, ResyncError, Worker

_PLACES, _ANSWER, _ROUND = "places", "answer", "sketched"


class FoundBySketchWorker(Worker):
    """Sends a sketch of what it owes, and then the exact values that are asked for."""

    sender = OnceSender
    owing = True
    summed: ClassVar[tuple[str, ...]]  # vectors that gradients are added to
    owed: ClassVar[tuple[str, ...]]  # those of them that are zeroed where the model has moved
    asked: ClassVar[tuple[str, ...]]  # vectors of which the exact values are asked for

    @abstractmethod
    def owe(self, gradient: FloatVector, job: Job) -> tuple[FloatVector, dict[str, FloatVector]]:
        """Return what is sketched, and all vectors as they are then."""

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        if job.instruction.stage == 1:
            self._settle(job)  # 2
            return self._sketch(x, job)  # 3
        return self._exact(job)  # 4

    def _sketch(self, x: FloatVector, job: Job) -> Outgoing:
        """Return what is owed with the gradient at `x` in it, to be sketched."""
        loss, gradient = job.gradient(x)
        sketched, vectors = self.owe(gradient, job)
        moments = {name: vectors.pop(name) for name in self.summed}
        return Outgoing(
            loss,
            sketched,
            vectors,
            moments,
            numbers={_ROUND: job.instruction.round},
            counts={"lr": job.number("lr")},
        )

    def learn(self, job: Job, outcome: Settlement, *, refused: bool) -> None:
        if job.instruction.stage == 1:  # the second exchange is about the first one's packet
            super().learn(job, outcome, refused=refused)

    def _exact(self, job: Job) -> Outgoing:
        """Return the values at the places asked for, and remember that they are under way."""
        order, vectors, numbers = job.instruction, job.state.vectors, job.state.numbers
        if numbers.get(_ROUND) != order.round:
            raise ResyncError(f"this worker has sent no sketch in round {order.round}")
        places = decode_places(order.places, job.layout.dim)
        values = np.concatenate([vectors[name][places] for name in self.asked])
        return Outgoing(
            float(numbers["loss"]),
            values,
            {_PLACES: places},
            numbers={_ANSWER: order.version, AWAITED: order.model.version},
            dense=True,
        )

    def _settle(self, job: Job) -> None:
        """Owe no more what the server has applied of the last answer."""
        vectors, numbers = job.state.vectors, job.state.numbers
        numbers.pop(AWAITED, None)
        places, delta = vectors.pop(_PLACES, None), vectors.pop(DELTA, None)
        if places is None or job.sender.settled < numbers[_ANSWER]:
            return
        if delta is not None:
            places = np.flatnonzero(decompress(delta.tobytes(), max_dim=job.layout.dim))
        for name in self.owed:
            vectors[name][places] = 0


class SketchedSGDWorker(FoundBySketchWorker):
    """Keeps its momentum u and what it owes, v."""

    summed, owed, asked = ("u", "v"), ("u", "v"), ("v",)

    def owe(self, gradient: FloatVector, job: Job) -> tuple[FloatVector, dict[str, FloatVector]]:
        vectors, real = job.state.vectors, gradient.dtype.type
        if "u" not in vectors:
            return gradient, {"u": gradient.copy(), "v": gradient.copy()}
        u = real(job.number("momentum")) * vectors["u"] + gradient  # 3
        v = vectors["v"] + u  # 3
        return v, {"u": u, "v": v}


class SketchedAMSGradWorker(FoundBySketchWorker):
    """Keeps its momentum m, what it owes, e, and a round's gradient until it is asked for."""

    summed, owed, asked = ("m", "e"), ("e",), ("e", "gradient")

    def owe(self, gradient: FloatVector, job: Job) -> tuple[FloatVector, dict[str, FloatVector]]:
        vectors, real = job.state.vectors, gradient.dtype.type
        m = real(1 - job.number("beta1")) * gradient  # 3
        e = m
        if "m" in vectors:
            m += real(job.number("beta1")) * vectors["m"]  # 3
            e = m + real(job.state.numbers["lr"] / job.number("lr")) * vectors["e"]  # 3
        return e, {"m": m, "e": e.copy(), "gradient": gradient}
