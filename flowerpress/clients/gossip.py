"""SQuARM-SGD, CHOCO-SGD and plain decentralized SGD: worker half, a node of the graph.

SQuARM-SGD: Singh, Data, George, Diggavi 2021 (arXiv:2005.07041). CHOCO-SGD: Koloskova, Stich, Jaggi
2019 (arXiv:1902.00340). Plain (D-PSGD): Lian et al. 2017 (arXiv:1705.09056).

    1. receive what the neighbours have made public:  t_i += sum over neighbours j of w_ij q_j
    2. x_i += gamma (t_i - own xhat_i)                 own = sum over neighbours j of w_ij
    3. local_steps times:  v_i = momentum v_i + g;  x_i -= lr (momentum v_i + g)      (Nesterov)
    4. if |x_i - xhat_i|^2 > threshold lr^2:  send q_i = C(x_i - xhat_i);  else send nothing
    5. xhat_i += q_i                                   (once the relay says it applied q_i)

The papers do 1 and 2 at the end of a synchronisation; here a round begins with those of the one
before, so that one exchange is enough. x_i and v_i are the node's own and never leave it, but for
x_i when the relay asks for it whole (a round's second exchange). t_i is the papers' sum of the
neighbours' copies xhat_j: two vectors beside x_i and v_i, however many neighbours.

A message refused as too large: x_i and v_i are what they were before the local steps.
A lost message: xhat_i is what the relay applied, so both always hold the same (EF21's memory, see
`flowerpress.compressors.feedback`). A node that has missed rounds is sent every synchronisation it
missed, and does them one by one: each edge has then moved both its ends, and the mean of the nodes'
models is what it would have been. It makes up for the packets it could not send by sending as many
at once, up to ``catch_up``: C(y) + C(y - C(y)) + ... The relay's half is in
``strategies/gossip/squarm.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import PacketError, decompress, make_compressor
from flowerpress.compressors.feedback import EF21Sender, Sender, Settlement
from flowerpress.compressors.norms import square_sum
from flowerpress.protocol import Mix, Owed, ReplicaError, Reply
from flowerpress.protocol.buffers import (
    check_buffers,
    kept_buffers,
    pack_buffers,
    unpack_buffers,
)
from flowerpress.worker.memory import keep_sender
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.stores import WorkerState
from flowerpress.worker.worker import FloatVector, Job, Worker, reply_with


class GossipWorker(Worker):
    """Keeps its model x, its momentum v, its public copy (the sender's memory), and t.

    Two of its numbers are rounds: "tried", the last in which it answered, and "told", the last in
    which all that it had to say was heard. It tells of its round the mean loss, and the squared
    lengths of what pulled it to its neighbours, of its local steps, and of what its public copy
    lacks before it sends.
    """

    sender = EF21Sender
    owing = True
    told = ("loss", "disagreement", "moved", "unsent")

    def learn(self, job: Job, outcome: Settlement, *, refused: bool) -> None:
        super().learn(job, outcome, refused=refused)
        if outcome is Settlement.DELIVERED:
            job.state.numbers["told"] = job.state.numbers["tried"]

    def held_model(self, job: Job) -> FloatVector:
        """Return this node's own model; raises `ReplicaError` while it has none."""
        if "x" not in job.state.vectors:
            raise ReplicaError("this node holds no model yet")
        self._load_buffers(job)
        return job.state.vectors["x"].copy()

    def receive(self, job: Job) -> FloatVector:
        """Do the synchronisations not done yet, and return x.

        Raises
        ------
        ReplicaError
            They do not follow the last one done, or the relay has done others since it was
            restarted: it must start this node anew.
        PacketError, ProtocolError
            One is damaged; those before it are done.
        """
        state, owed, sender = job.state, Owed.from_part(job.instruction.model), job.sender
        begun = "x" in state.vectors and sender.memory is not None
        held = int(state.numbers.get("held", -1)) if begun else -1
        agrees = self._agrees(state, owed, held)
        if owed.start is not None and not agrees:
            self._start(job, owed)
            held, agrees = owed.base, self._agrees(state, owed, owed.base)
        if not agrees:
            raise ReplicaError(
                f"this node has done {held}, and is sent what follows {owed.base} to lead elsewhere"
            )
        for mix, gamma in owed.mixes[held - owed.base :]:
            self._mix(Mix.decode(mix), gamma, job)
        self._load_buffers(job)
        return state.vectors["x"]

    @staticmethod
    def _agrees(state: WorkerState, owed: Owed, held: int) -> bool:
        """Whether what is owed takes a node that has done `held` to where the relay expects it."""
        if not owed.base <= held <= owed.base + len(owed.mixes):
            return False
        mark = int(state.numbers["mark"])
        for mix, gamma in owed.mixes[held - owed.base :]:
            mark = Mix.decode(mix).mark(gamma, mark)
        return mark == owed.mark

    @staticmethod
    def _load_buffers(job: Job) -> None:
        buffers = job.state.vectors.get("buffers")
        if buffers is not None:
            job.task.load_buffers(unpack_buffers(kept_buffers(buffers), job.layout))

    @staticmethod
    def _start(job: Job, owed: Owed) -> None:
        """Begin at the public copy that the relay holds, or at the task's own model."""
        layout, state, sender = job.layout, job.state, job.sender
        start = list(owed.start or ())
        if start:
            buffers = start.pop() if layout.buffer_dim else b""
            check_buffers(buffers, layout)
            vectors = [decompress(packet, max_dim=layout.dim) for packet in start]
            x = vectors[0]
            t = vectors[1] if len(vectors) > 1 else x.dtype.type(owed.own) * x
            sender.memory = x.copy()
        else:
            x, own = layout.flatten(job.task.initial_arrays())
            buffers = pack_buffers(own, layout)
            t, sender.memory = np.zeros_like(x), np.zeros_like(x)
        if any(vector.shape != (layout.dim,) or vector.dtype != layout.dtype for vector in (x, t)):
            raise PacketError(f"a start of {x.size} x {x.dtype}, the model has {layout.dim}")
        state.vectors = {"x": x, "t": t}
        if buffers:
            state.vectors["buffers"] = np.frombuffer(buffers, np.uint8)
        first = job.instruction.round + (job.instruction.stage == 2)  # in which it may send
        state.numbers |= {"held": owed.base, "told": first - 1, "mark": owed.first_mark}
        keep_sender(sender, state)

    @staticmethod
    def _mix(mix: Mix, gamma: float, job: Job) -> None:
        """Do one synchronisation."""
        vectors, numbers = job.state.vectors, job.state.numbers
        x, t = vectors["x"], vectors["t"]
        total = mix.total(x)
        t = total if mix.whole else t + total  # 1
        pull = t - mix.own * known(job.sender)
        vectors["t"], vectors["x"] = t, x + gamma * pull  # 2
        numbers["held"] += 1
        numbers["mark"] = mix.mark(gamma, int(numbers["mark"]))
        numbers["disagreement"] = square_sum(pull)

    def round(self, job: Job) -> Outgoing:
        x = self.receive(job)  # 1-2
        state, order = job.state, job.instruction
        if order.stage == 2:  # the relay asks for the model itself
            return Outgoing(float(state.numbers.get("loss", 0.0)), x, dense=True)
        loss, y, v = self._local_steps(x, job)  # 3
        moments: dict[str, npt.NDArray[Any]] = {"x": y}
        if v is not None and job.number("momentum"):
            moments["v"] = v
        if job.layout.buffer_dim:
            packed = pack_buffers(job.task.buffers(), job.layout)
            moments["buffers"] = np.frombuffer(packed, np.uint8)
        unsent = square_sum(y - known(job.sender))
        silent = not unsent > job.number("threshold") * job.number("lr") ** 2  # 4
        missed = max(order.round - int(state.numbers["told"]) - 1, 0)
        numbers = {"moved": square_sum(y - x), "unsent": unsent, "tried": order.round}
        if silent:
            numbers["told"] = order.round
        times = 1 + min(missed, int(job.hyper["catch_up"]))
        return Outgoing(  # 4-5: the sender subtracts xhat_i, and keeps it
            loss, y, moments=moments, numbers=numbers, silent=silent, times=times
        )

    def _local_steps(
        self, x: FloatVector, job: Job
    ) -> tuple[float, FloatVector, FloatVector | None]:
        """Return the mean loss of the local steps, and x_i and v_i after them."""
        rng, lr, momentum = job.rng(), job.number("lr"), job.number("momentum")
        y, v = x.copy(), job.state.vectors.get("v")
        losses = []
        for _ in range(int(job.hyper["local_steps"])):
            loss, g = job.one_gradient(y, rng)
            v = g if v is None else momentum * v + g  # 3
            y -= lr * (momentum * v + g)  # 3
            losses.append(loss)
        if not np.isfinite(y).all():
            raise ValueError(
                f"the model of client {job.client} is no longer finite in round "
                f"{job.instruction.round}: lower lr, or gamma"
            )
        return float(np.mean(losses)), y, v

    def send(self, out: Outgoing, job: Job) -> Reply:
        """As `Worker.send`; the model itself goes with its buffers, and changes nothing."""
        if job.instruction.stage == 1:
            return super().send(out, job)
        whole = make_compressor("identity").compress(out.vector).data
        buffers = job.state.vectors.get("buffers")
        packed = b"" if buffers is None else kept_buffers(buffers)
        return reply_with(job, [whole], self.told, packed)


def known(sender: Sender) -> FloatVector:
    """Return the public copy."""
    if sender.memory is None:
        raise ReplicaError("this node has no public copy yet")
    return sender.memory
