"""1-bit Adam: worker half.

Tang, Gan, Awan, Rajbhandari, Li, Lian, Liu, Zhang, He 2021 (arXiv:2102.02888).

Warm-up:

    1. receive x
    2. send the gradient g_i of f_i at x, dense

Then, where m is what the server broadcast last, the same for all, and not a momentum of one's own:

    3. receive c;  m = c;  x -= lr m / (sqrt(v) + eps)
    4. p_i = beta1 m + (1 - beta1) g_i + e_i
    5. send w_i = C(p_i)
    6. e_i = p_i - w_i                                   (once the server says it applied w_i)

A gradient of the warm-up that is lost is gone; later messages are owed whole. The server half is in
``strategies/onebit_adam.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compressors import Traits
from flowerpress.compressors.feedback import EF14Sender
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.worker import Job, Worker


@dataclass
class OneBitSender(EF14Sender):
    """As EF14's; what is no contraction, the authors' sign with the l2 scale, is unscaled."""

    def _scale(self, traits: Traits) -> float:
        try:
            return super()._scale(traits)
        except ValueError:
            return 1.0


class OneBitAdamWorker(Worker):
    """Sends C(beta1 m + (1 - beta1) gradient + e) and keeps the error e."""

    sender = OneBitSender

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1 or 3
        loss, g = job.gradient(x)
        if not job.state.numbers.get("compressing"):
            job.sender.memory = (
                None  # a gradient of the warm-up is not owed, and no part of what is
            )
        if job.hyper["warmup"]:
            return Outgoing(loss, g, numbers={"compressing": 0}, dense=True)  # 2
        beta1, m = job.number("beta1"), job.state.vectors["replica.m"]
        p = beta1 * m + (1 - beta1) * g  # 4: the sender adds e_i
        return Outgoing(loss, p, numbers={"compressing": 1})  # 5-6
