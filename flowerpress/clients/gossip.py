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

A lost message: xhat_i is what the relay applied, so both always hold the same (EF21's memory, see
`flowerpress.compressors.feedback`). A node that has missed rounds is sent every synchronisation it
missed, and does them one by one: each edge has then moved both its ends, and the mean of the nodes'
models is what it would have been. It makes up for the packets it could not send by sending as many
at once, up to ``catch_up``: C(y) + C(y - C(y)) + ... The relay's half is in
``strategies/gossip.py``.
"""

from __future__ import annotations

import numpy as np

from flowerpress.clients.memory import keep_sender
from flowerpress.clients.worker import FloatVector, Job, Outgoing, Worker
from flowerpress.compressors import PacketError, decompress, make_compressor
from flowerpress.compressors.feedback import EF21Sender, Sender, Settlement
from flowerpress.compressors.induced import repeated
from flowerpress.protocol import Mix, ReplicaError, Reply

TOLD = ("loss", "disagreement", "moved", "unsent")
"""Numbers that a node tells of its round: mean loss; squared lengths of what pulled it to its
neighbours, of its local steps, and of what its public copy lacks before it sends."""


class GossipWorker(Worker):
    """Keeps its model x, its momentum v, its public copy (the sender's memory), and t."""

    sender = EF21Sender
    own_model = True

    def again(self, job: Job, sender: Sender) -> Reply | None:
        version = job.instruction.version
        if job.state.numbers.get("silent") == version:
            return _reply(job, sender, "silent")
        return _reply(job, sender, "update", sender.packet) if sender.pending == version else None

    def learn(self, job: Job, outcome: Settlement) -> None:
        numbers = job.state.numbers
        if outcome is Settlement.LOST:
            numbers["behind"] = numbers.get("behind", 0) + 1
        elif outcome is Settlement.DELIVERED:
            numbers["behind"] = 0

    def held_model(self, job: Job) -> FloatVector:
        """Return this node's own model; raises `ReplicaError` while it has none."""
        if "x" not in job.state.vectors:
            raise ReplicaError("this node holds no model yet")
        self._load_buffers(job)
        return job.state.vectors["x"].copy()

    def follow(self, job: Job, sender: Sender) -> FloatVector:
        """Do the synchronisations not done yet, and return x.

        Raises
        ------
        ReplicaError
            They do not follow the last one done: the relay must start this node anew.
        PacketError, ProtocolError
            One is damaged; those before it are done.
        """
        part, state = job.instruction.model, job.state
        mixes, first = part.packets, part.base
        if part.base < 0:  # a start, and what came after it
            mixes = part.packets[len(part.packets) - (len(part.rates) - 1) :]
            first = part.version - len(mixes)
            if "x" not in state.vectors or state.numbers.get("held", -1) < first:
                self._start(job, sender, part.packets[: len(part.packets) - len(mixes)], first)
        held = int(state.numbers.get("held", -1))
        if "x" not in state.vectors or not first <= held <= part.version:
            raise ReplicaError(f"this node has done mixing {held}, those sent start at {first}")
        todo = list(zip(mixes, part.rates[len(part.rates) - len(mixes) :], strict=True))
        for mix, gamma in todo[held - first :]:
            self._mix(Mix.decode(mix), gamma, job, sender)
        missed = max(part.version - held - 1, 0)
        state.numbers["behind"] = state.numbers.get("behind", 0) + missed
        self._load_buffers(job)
        return state.vectors["x"]

    @staticmethod
    def _load_buffers(job: Job) -> None:
        buffers = job.state.vectors.get("buffers")
        if buffers is not None:
            job.task.load_buffers(job.layout.split_buffers(buffers))

    @staticmethod
    def _start(job: Job, sender: Sender, packets: list[bytes], number: int) -> None:
        """Begin at the public copy that the relay holds of this node, or at the task's own model.

        The packets are the copy, t where it is not `own` times the copy, and the buffers.
        """
        layout, own = job.layout, job.instruction.model.rates[0]
        vectors = [
            decompress(packet, max_dim=max(layout.dim, layout.buffer_dim)) for packet in packets
        ]
        buffers = vectors.pop() if vectors and layout.buffer_dim else None
        if vectors:
            x, t = (
                vectors[0],
                vectors[1] if len(vectors) > 1 else vectors[0].dtype.type(own) * vectors[0],
            )
            public = x.copy()
        else:
            x, buffers = layout.flatten(job.task.initial_arrays())
            public, t = np.zeros_like(x), np.zeros_like(x)
        if any(vector.shape != (layout.dim,) or vector.dtype != layout.dtype for vector in (x, t)):
            raise PacketError(f"a start for {x.size} x {x.dtype}, the model has {layout.dim}")
        sender.memory = public
        job.state.vectors = {"x": x, "t": t}
        if buffers is not None and buffers.size:
            job.state.vectors["buffers"] = buffers
        job.state.numbers |= {"held": number, "behind": 0}
        keep_sender(sender, job.state)

    @staticmethod
    def _mix(mix: Mix, gamma: float, job: Job, sender: Sender) -> None:
        """Do one synchronisation: lines 1 and 2."""
        vectors, numbers = job.state.vectors, job.state.numbers
        x, t, public = vectors["x"], vectors["t"], known(sender)
        total = mix.total(x)
        t = total if mix.whole else t + total
        pull = t - x.dtype.type(mix.own) * public
        vectors["t"], vectors["x"] = t, x + x.dtype.type(gamma) * pull
        numbers["held"] += 1
        numbers["disagreement"] = float(pull @ pull)

    def compute(self, x: FloatVector, job: Job, sender: Sender) -> Outgoing:
        """Take the local steps: line 3; none where the model itself is asked for."""
        vectors, numbers = job.state.vectors, job.state.numbers
        if job.instruction.stage == 2:
            return Outgoing(float(numbers.get("loss", 0.0)), x, dense=True)
        rng, real = job.rng(), x.dtype.type
        lr, momentum = real(job.number("lr")), real(job.number("momentum"))
        y, v = x.copy(), vectors.get("v")
        losses = []
        for _ in range(int(job.hyper["local_steps"])):
            loss, g = job.one_gradient(y, rng)
            v = g if v is None else momentum * v + g
            y -= lr * (momentum * v + g)
            losses.append(loss)
        if not np.isfinite(y).all():
            raise ValueError(
                f"the model of client {job.client} is no longer finite in round "
                f"{job.instruction.round}: lower lr, or gamma"
            )
        kept: dict[str, FloatVector] = {"x": y}
        if v is not None and momentum:
            kept["v"] = v
        if job.layout.buffer_dim:
            kept["buffers"] = job.layout.join_buffers(job.task.buffers())
        step = y - x
        return Outgoing(float(np.mean(losses)), y, kept, numbers={"moved": float(step @ step)})

    def send(self, out: Outgoing, job: Job, sender: Sender) -> Reply:
        """Send what the trigger lets through: line 4; or the model, where it was asked for."""
        state, order = job.state, job.instruction
        if out.dense:
            whole = make_compressor("identity").compress(out.vector).data
            return _reply(job, sender, "update", whole, state.vectors.get("buffers"))
        state.vectors.update(out.kept)
        unsent = out.vector - known(sender)
        size = float(unsent @ unsent)
        state.numbers |= {"loss": out.loss, "unsent": size, **out.numbers}
        if not size > job.number("threshold") * job.number("lr") ** 2:
            state.numbers |= {"silent": order.version, "behind": 0}
            return _reply(job, sender, "silent")
        times = 1 + min(int(state.numbers["behind"]), int(job.hyper["catch_up"]))
        packet = sender.send(out.vector, repeated(job.uplink(), times), order.version, job.draw())
        keep_sender(sender, state)
        return _reply(job, sender, "update", packet.data)


def known(sender: Sender) -> FloatVector:
    """Return the public copy."""
    if sender.memory is None:
        raise ReplicaError("this node has no public copy yet")
    return sender.memory


def _reply(
    job: Job,
    sender: Sender,
    status: str,
    packet: bytes = b"",
    buffers: FloatVector | None = None,
) -> Reply:
    numbers = job.state.numbers
    told = {name: float(numbers[name]) for name in TOLD if name in numbers}
    return Reply(
        client=job.client,
        version=job.instruction.version,
        base=sender.settled,
        status=status,
        held=int(numbers["held"]),
        scale=sender.scale,
        packets=[packet] if packet else [],
        buffers=b"" if buffers is None else make_compressor("identity").compress(buffers).data,
        metrics={**told, "num-examples": job.task.num_examples},
    )
