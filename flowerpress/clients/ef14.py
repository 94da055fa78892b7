"""Error feedback (EF14), one-way and two-way: worker half.

Seide et al. 2014; Stich, Cordonnier, Jaggi 2018 (arXiv:1809.07599); Karimireddy et al. 2019
(arXiv:1901.09847). Two-way: Zheng, Huang, Kwok 2019 (dist-EF-SGD, arXiv:1905.10936), Tang et al.
2019 (DoubleSqueeze, arXiv:1905.05957).

    1. receive x (two-way: x -= delta)
    2. p_i = e_i + lr * g_i
    3. send w_i = C(p_i)
    4. e_i = p_i - w_i                        (once the server says it applied w_i)

A lost message is owed whole: e_i = p_i. One that the server refused as too large is not: e_i stays.

The step size is inside the compressor, so the error is in units of x and needs no rescaling when lr
changes. The server half is in ``strategies/ef14.py``.
"""

from __future__ import annotations

from flowerpress.compressors import vectors
from flowerpress.compressors.feedback import EF14Sender
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.worker import Job, Worker


class EF14Worker(Worker):
    """Sends C(e + lr * gradient) and keeps the error e."""

    sender = EF14Sender
    on_device = True

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        loss, g = job.gradient(x)
        p = vectors.multiply(g, job.number("lr"), job.place_for(g))
        return Outgoing(loss, p)  # 2-4: the sender adds e_i, and keeps it
