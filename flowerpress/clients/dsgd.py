"""Distributed SGD with compressed gradients, and dense federated averaging: worker half.

    1. receive x
    2. g_i = gradient of f_i at x on one batch (K local steps: their pseudo-gradient)
    3. send C(g_i)

QSGD (Alistarh et al. 2017, arXiv:1610.02132) with ``qsgd``; FedPAQ (Reisizadeh et al. 2020,
arXiv:1909.13014) with K local steps; FedAvg (McMahan et al. 2017, arXiv:1602.05629) with the
identity. No memory: a lost update is gone. The server half is in ``strategies/dsgd.py``.
"""

from __future__ import annotations

from flowerpress.compressors.feedback import PlainSender
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.worker import Job, Worker


class DSGDWorker(Worker):
    """Sends C(gradient) and remembers nothing."""

    sender = PlainSender
    on_device = True

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        loss, g = job.gradient(x)  # 2
        return Outgoing(loss, g)  # 3
