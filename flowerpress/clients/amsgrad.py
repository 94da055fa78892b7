"""COMP-AMS, FedCAMS and dense FedAMS: worker half.

COMP-AMS: Li, Karimi, Li 2022 (ICLR, arXiv:2205.05632). FedCAMS: Wang, Lin, Chen 2022 (ICML,
arXiv:2205.02719).

    1. receive x
    2. COMP-AMS:  d_i = gradient of f_i at x
       FedCAMS:   d_i = x - x_K, x_K the model after K local steps of SGD
    3. p_i = d_i + e_i;  send w_i = C(p_i)
    4. e_i = p_i - w_i                        (once the server says it applied w_i)

Errors are in units of the gradient, or of the model for FedCAMS: the server's step size is not in
them. The server half is in ``strategies/amsgrad.py``.
"""

from __future__ import annotations

from typing import ClassVar

from flowerpress.compressors.feedback import EF14Sender, PlainSender, Sender
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.worker import Job, Worker


class CompAMSWorker(Worker):
    """Sends C(gradient + e) and keeps the error e."""

    sender = EF14Sender

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        loss, d = job.gradient(x)  # 2
        return Outgoing(loss, d)  # 3-4: the sender adds e_i, and keeps it


class FedCAMSWorker(Worker):
    """Sends C(x - x_K + e) and keeps the error e."""

    sender: ClassVar[type[Sender]] = EF14Sender

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        loss, g = job.gradient(x)  # of K local steps: (x - x_K) / local_lr
        d = job.number("local_lr") * g  # 2
        return Outgoing(loss, d)  # 3-4


class FedAMSWorker(FedCAMSWorker):
    """Sends x - x_K whole, and owes nothing."""

    sender = PlainSender
