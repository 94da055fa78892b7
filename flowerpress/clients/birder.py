"""Birder: worker half.

Peng et al. 2023 ("Birder: communication-efficient 1-bit adaptive optimizer for practical
distributed DNN training", NeurIPS 2023).

    1. receive q;  x -= lr q
    2. g_i = gradient of f_i at x
    3. m_i = beta m_i + (1 - beta) g_i;  b_i = beta b_i + (1 - beta) |g_i|
    4. send R(m_i / b_i), R: +1 or -1 at random, unbiased; m_i / b_i is 0 where b_i is

|m_i| <= b_i, since both average with the same weights; rounding keeps this, being monotonous. A
lost message is gone; the averages keep the gradient they have seen, and are what they were before
if it was refused. The server half is in ``strategies/birder.py``.
"""

from __future__ import annotations

import numpy as np

from flowerpress.protocol.rules import ratio
from flowerpress.worker.memory import OnceSender
from flowerpress.worker.moments import average
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.worker import Job, Worker


class BirderWorker(Worker):
    """Sends R(m / b), m and b the averages of the gradients and of their magnitudes."""

    sender = OnceSender

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        loss, g = job.gradient(x)  # 2
        beta = job.number("beta1")
        m = average(job.state, "m", g, beta)  # 3
        b = average(job.state, "b", np.abs(g), beta)
        return Outgoing(loss, ratio(m, b), moments={"m": m, "b": b})  # 4
