"""FetchSGD: worker half.

Rothchild, Panda, Ullah, Ivkin, Stoica, Braverman, Gonzalez, Arora 2020 (arXiv:2007.07682),
Algorithm 1.

    1. receive the deltas that the replica of x lacks
    2. g_i = gradient of f_i at x on one batch (K local steps: their pseudo-gradient)
    3. send S(g_i), S the same sketch in every round

No memory: a lost update is gone. The server half is in ``strategies/sketched/fetchsgd.py``.
"""

from __future__ import annotations

from dataclasses import replace

from flowerpress.worker.memory import OnceSender
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.worker import Job, Worker


class FetchSGDWorker(Worker):
    """Sends the sketch of its gradient; keeps a replica of the model alone."""

    sender = OnceSender  # its replica has gone on since a question that is asked again

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        loss, g = job.gradient(x)  # 2
        # The same draw in all rounds: the server adds sketches of several rounds.
        return Outgoing(loss, g, draw=replace(job.draw(), round=0))  # 3
