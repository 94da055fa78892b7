"""MARINA, VR-MARINA and PP-MARINA: worker half.

Gorbunov, Burlachenko, Li, Richtarik 2021 (arXiv:2102.07845); with correlated compressors Szlendak,
Tyurin, Richtarik 2022 (arXiv:2110.03300) and Panferov et al. 2024 (arXiv:2401.05518).

    1. receive x and the coin c, the same for all
    2. c = 1: send the gradient of f_i at x, whole
       c = 0: send Q_i(gradient at x - gradient at x_previous)

x_previous is the model of the round before: MARINA's worker keeps its gradient there, VR-MARINA's
the model itself, since it takes one batch's gradient at both points. A PP-MARINA worker that was
not asked in the round before is sent both models. The server half is in ``strategies/marina.py``.

A difference is of one function at two models. Where the model draws (dropout), VR-MARINA and
PP-MARINA take both gradients with the draws of the round. MARINA has the old one from the round
before, so all rounds up to the next whole gradient have the draws of the last: new masks in each
round would stay in the differences however close the models, and the server's sum would wander.
The gradient at the old model leaves no trace in the buffers: they count one pass a round, at the
new model, and both gradients start from what the server sent (spectral norm's vectors).
"""

from __future__ import annotations

import numpy as np

from flowerpress.protocol import ReplicaError
from flowerpress.worker.memory import OnceSender
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.worker import FloatVector, Job, ResyncError, Worker


class MarinaWorker(Worker):
    """Keeps the gradient at the model before."""

    sender = OnceSender

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        order, sync = job.instruction, bool(job.hyper["sync"])
        drawn_in = order.round if sync else int(job.state.numbers.get("drawn_in", 0))
        loss, gradient = job.full_gradient(x, drawn_in)
        kept, numbers = {"gradient": gradient}, {"at": order.model.version, "drawn_in": drawn_in}
        if sync:
            return Outgoing(loss, gradient, kept, numbers=numbers, dense=True)  # 2, c = 1
        require_previous(job, "gradient", "at")
        difference = gradient - job.state.vectors["gradient"]
        return Outgoing(loss, difference, kept, numbers=numbers)  # 2, c = 0


class VRMarinaWorker(Worker):
    """Keeps the model before, and takes one batch's gradient at both."""

    sender = OnceSender

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        kept, numbers = {"x": x.copy()}, {"at": job.instruction.model.version}
        if job.hyper["sync"]:
            loss, gradient = self._whole(x, job)
            return Outgoing(loss, gradient, kept, numbers=numbers, dense=True)  # 2, c = 1
        require_previous(job, "x", "at")
        with job.task.keeping_buffers():
            _, old = job.gradient(job.state.vectors["x"].copy())
        loss, new = job.gradient(x)
        return Outgoing(loss, new - old, kept, numbers=numbers)  # 2, c = 0

    @staticmethod
    def _whole(x: FloatVector, job: Job) -> tuple[float, FloatVector]:
        """Return the gradient of all data, or the mean of some batches' (the online variant)."""
        batches = int(job.hyper.get("sync_batches", 0))
        if not batches:
            return job.full_gradient(x)
        rng = job.rng()
        pairs = [job.one_gradient(x, rng) for _ in range(batches)]
        gradient = np.mean([gradient for _, gradient in pairs], axis=0)
        return float(np.mean([loss for loss, _ in pairs])), gradient


class PPMarinaWorker(Worker):
    """Keeps the last model it was sent, and is sent two where that is not the one before."""

    sender = OnceSender

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        state, version = job.state, job.instruction.model.version
        sent = state.vectors.pop("replica.previous", None)
        kept, numbers = {"x": x.copy()}, {"held": version}
        if job.hyper["sync"]:
            loss, gradient = job.full_gradient(x)
            return Outgoing(loss, gradient, kept, numbers=numbers, dense=True)  # 2, c = 1
        if sent is None and state.numbers.get("held") != version - 1:
            state.numbers["held"] = -1
            raise ReplicaError(f"this worker lacks model {version - 1}")
        previous = state.vectors["x"].copy() if sent is None else sent
        with job.task.keeping_buffers():
            _, old = job.full_gradient(previous)
        loss, gradient = job.full_gradient(x)
        return Outgoing(loss, gradient - old, kept, numbers=numbers)  # 2, c = 0


def require_previous(job: Job, vector: str, number: str) -> None:
    """Raise `ResyncError` unless what is kept belongs to the model before the one sent."""
    version = job.instruction.model.version
    if vector not in job.state.vectors or job.state.numbers.get(number) != version - 1:
        at = job.state.numbers.get(number, "none")
        raise ResyncError(f"this worker's last model is {at}, differences are from {version - 1}")
