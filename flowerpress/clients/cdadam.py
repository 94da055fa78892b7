"""CDAdam: worker half.

Wang, Lin, Chen 2022 (AISTATS, arXiv:2111.00705).

    1. receive c;  g += c;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
                   w = max(w, v);  x -= lr m / sqrt(w + eps)
    2. send c_i = C(g_i(x) - h_i), g_i the gradient of f_i
    3. h_i += c_i                             (once the server says it applied c_i)

h_i starts from zero, so the first message is compressed too. Step 1 is the replica's, the same on
every worker and on the server. The server half is in ``strategies/cdadam.py``.
"""

from __future__ import annotations

from flowerpress.compressors.feedback import EF21Sender
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.worker import Job, Worker


class CDAdamWorker(Worker):
    """Sends C(gradient - h) and keeps h, which the server's mean contains."""

    sender = EF21Sender

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        loss, g = job.gradient(x)
        return Outgoing(loss, g)  # 2-3: the sender subtracts h_i, and keeps it
