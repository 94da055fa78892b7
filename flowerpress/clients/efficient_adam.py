"""Efficient-Adam: worker half.

Chen, Shen, Liu, Luo 2023 (IEEE Transactions on Signal Processing 71, arXiv:2205.14473).

    1. receive delta;  x -= delta
    2. g_i = gradient of f_i at x
    3. m_i = beta1 m_i + (1 - beta1) g_i;  v_i = beta2 v_i + (1 - beta2) g_i^2
    4. p_i = a_t m_i / (sqrt(v_i) + eps) + e_i          (the step size a_t is inside the compressor)
    5. send w_i = C(p_i)
    6. e_i = p_i - w_i                                   (once the server says it applied w_i)

A lost message is owed whole; the moments keep the gradient they have seen, whose step is in what is
owed. One refused as too large is as if it had never been made: e_i, m_i and v_i are as before. The
server half is in ``strategies/efficient_adam.py``.
"""

from __future__ import annotations

import numpy as np

from flowerpress.compressors.feedback import EF14Sender
from flowerpress.protocol.rules import ratio
from flowerpress.worker.moments import average, squared
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.worker import Job, Worker


class EfficientAdamWorker(Worker):
    """Sends C(Adam's step + e), and keeps the moments and the error e."""

    sender = EF14Sender
    owing = True

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        loss, g = job.gradient(x)  # 2
        real = x.dtype.type
        beta1, beta2 = job.number("beta1"), job.number("beta2")
        m = average(job.state, "m", g, beta1)  # 3
        v = average(job.state, "v", squared(g), beta2)
        t = int(job.state.numbers.get("gradients", 0)) + 1
        mean, square = m, v
        if job.hyper["bias_correction"]:
            mean, square = m / real(1 - beta1**t), v / real(1 - beta2**t)
        step = job.number("lr") * ratio(mean, np.sqrt(square) + job.number("eps"))  # 4
        return Outgoing(loss, step, moments={"m": m, "v": v}, counts={"gradients": t})  # 4-6
