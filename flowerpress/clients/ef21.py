"""EF21, EF21-SGDM and EF21-SGD2M: worker half.

EF21: Richtarik, Sokolov, Fatkhullin 2021 (arXiv:2106.05203). Partial participation and a compressed
downlink (EF21-PP, EF21-BC): Fatkhullin et al. 2021 (arXiv:2110.03294). Momentum (EF21-SGDM,
EF21-SGD2M): Fatkhullin, Tyurin, Richtarik 2023 (arXiv:2305.15155).

    1. receive x
    2. d_i = gradient of f_i at x
       SGDM:   v_i = (1 - momentum) v_i + momentum d_i                    and d_i = v_i
       SGD2M:  also u_i = (1 - momentum) u_i + momentum v_i, the new v_i, and d_i = u_i
    3. send c_i = C(d_i - g_i)
    4. g_i += c_i                             (once the server says it applied c_i)

``momentum`` is the paper's eta, the weight on the NEW gradient. The first message is dense (the
authors' code), or C(d_i) with ``init="compressed"`` (the paper's text); the first d_i is of
``init_batches`` batches. v_i and u_i are the
worker's own: a lost message rolls back g_i, but v_i and u_i keep the gradient they have seen. A
message that the server refused, as too large or damaged, rolls back all three: one absurd gradient
would else stay in v_i, and make every later message as absurd. The server half is in
``strategies/ef21.py``.
"""

from __future__ import annotations

from flowerpress.compressors import vectors
from flowerpress.compressors.feedback import EF21Sender
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.worker import FloatVector, Job, Worker


class EF21Worker(Worker):
    """Sends C(gradient - g) and keeps g, which the server's mean contains."""

    sender = EF21Sender
    on_device = True

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        loss, d = gradient(x, job, first=job.new)  # 2
        return Outgoing(loss, d, dense=dense(job))  # 3-4: the sender subtracts g_i, and keeps it


class EF21SGDMWorker(Worker):
    """Sends C(v - g), v the momentum of the gradients."""

    sender = EF21Sender
    on_device = True

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        loss, d = gradient(x, job, first="v" not in job.state.vectors)  # 2
        v = average(job, "v", d)
        return Outgoing(loss, v, moments={"v": v}, dense=dense(job))  # 3-4


class EF21SGD2MWorker(Worker):
    """Sends C(u - g), u the momentum of v, v the momentum of the gradients."""

    sender = EF21Sender
    on_device = True

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1
        loss, d = gradient(x, job, first="v" not in job.state.vectors)  # 2
        v = average(job, "v", d)
        u = average(job, "u", v)
        return Outgoing(loss, u, moments={"v": v, "u": u}, dense=dense(job))  # 3-4


def dense(job: Job) -> bool:
    """Whether the message is this worker's first, and goes whole."""
    return job.new and job.hyper.get("init", "dense") == "dense"


def gradient(x: FloatVector, job: Job, *, first: bool) -> tuple[float, FloatVector]:
    """Return the loss and the gradient at `x`; the first one is of ``init_batches`` batches."""
    batches = int(job.hyper.get("init_batches", 1))
    return mean_gradient(job, x, batches) if first else job.gradient(x)


def mean_gradient(job: Job, x: FloatVector, batches: int) -> tuple[float, FloatVector]:
    """Return the mean of so many gradients at `x`, each on the next batches; 0: of all the data."""
    if batches == 0:
        return job.full_gradient(x)
    rng = job.rng()
    loss, total = job.gradient(x, rng)
    for _ in range(batches - 1):
        more, gradient = job.gradient(x, rng)
        loss, total = loss + more, total + gradient
    return loss / batches, vectors.divide(total, batches)


def average(job: Job, name: str, new: FloatVector) -> FloatVector:
    """Return (1 - momentum) * old + momentum * new, `old` the state's vector; `new` at first.

    It takes the place of `new` where that is the worker's own memory; `old` stays, for a message
    that is refused.
    """
    old, moved = job.state.vectors.get(name), job.place_for(new)
    if old is None:
        if moved is not new:
            moved[:] = new
        return moved
    momentum = vectors.dtype_of(new).type(job.number("momentum"))
    vectors.mix(1 - momentum, old, momentum, new, moved)
    return moved
