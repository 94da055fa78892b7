"""DASHA: worker half.

Tyurin, Richtarik 2023 (arXiv:2202.01268), Algorithm 1, gradient version.

    1. receive x
    2. d_i = gradient of f_i at x
    3. send m_i = C_i(d_i - h_i - a (g_i - h_i)), a = 1/(2 omega + 1); the first time d_i, whole
    4. g_i += m_i; h_i = d_i                    (both once the server says it applied m_i)

A lost message is as if the worker had been absent: h_i stays too. The server half is in
``strategies/dasha.py``.

h_i is the gradient of an earlier round, and f_i must be one function throughout: where the model
draws (dropout), its draws are those of round 0 for the whole run. New ones in each round would stay
in d_i - h_i however close the models are, and compression would blow them up by omega.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compressors import Traits
from flowerpress.compressors.base import traits_of
from flowerpress.compressors.feedback import EF21Sender
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.worker import Job, Worker


@dataclass
class DashaSender(EF21Sender):
    """As EF21's, but packets count in full: they are unbiased."""

    def _scale(self, traits: Traits) -> float:
        return 1.0


class DashaWorker(Worker):
    """Keeps g_i, which the server's mean contains, and the gradient h_i of the round before."""

    sender = DashaSender

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        loss, d = job.full_gradient(x, drawn_in=0)  # 2
        h, g = job.state.vectors.get("h"), job.sender.memory
        if job.new or h is None or g is None:
            return Outgoing(loss, d, staged={"h": d}, dense=True)  # 3-4, the first time
        omega = traits_of(job.uplink(), x.size, job.instruction.cohort).omega or 0.0
        a = 1.0 / (2.0 * omega + 1.0)
        # The sender subtracts g_i: it sends C(vector - g_i), and adds that to g_i.
        vector = g + (d - h - a * (g - h))
        return Outgoing(loss, vector, staged={"h": d})  # 3-4
