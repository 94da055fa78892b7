"""The client half of an algorithm: what it remembers, and what it sends in a round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import Compressor, Draw, make_compressor, vectors
from flowerpress.compressors.composed.repeat import repeated
from flowerpress.compressors.feedback import EF21Sender, Sender, Settlement
from flowerpress.compressors.vectors import placed
from flowerpress.protocol import Hyper, Instruction, Layout, ReplicaError, Reply
from flowerpress.protocol.buffers import pack_buffers, unpack_buffers
from flowerpress.protocol.metrics import Metric
from flowerpress.protocol.rooms import in_file, room_like, zeros
from flowerpress.tasks.task import Batch, Task
from flowerpress.worker.lengths import length
from flowerpress.worker.memory import (
    STAGED,
    begin_session,
    bring,
    commit_staged,
    forget_large,
    forget_replies,
    keep_moments,
    keep_sender,
    recall,
    remember,
    restore_sender,
    settle_moments,
)
from flowerpress.worker.mistakes import check_outgoing
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.replicas import follow_model
from flowerpress.worker.stores import WorkerState

FloatVector = npt.NDArray[np.floating[Any]]
UPLINK = 0  # stream of `Draw`; the downlink's is 1


class ResyncError(Exception):
    """The worker cannot answer from its memory: the server must start it over."""


@dataclass
class Job:
    """One question to one worker, with what it needs to answer."""

    instruction: Instruction
    client: int
    task: Task
    layout: Layout
    state: WorkerState
    compressor: str = ""  # this worker's own choice; empty: the strategy's
    steepest: float = 0.0  # norm of the largest gradient met in this round
    sender: Sender = field(init=False)  # the memory around the compressor
    hyper: Hyper = field(init=False)  # the strategy's hyperparameters
    fresh: FloatVector | None = None  # the last gradient, where it is in the worker's own memory
    room: FloatVector | None = None  # the model's memory, which may be used once it was worked on
    device: Any = None  # where vectors are tensors and worked on; None: arrays on the host

    def __post_init__(self) -> None:
        self.hyper = self.instruction.hyper

    @property
    def new(self) -> bool:
        """Whether the server holds nothing of this worker."""
        return self.sender.settled == 0

    def number(self, name: str) -> float:
        """Hyperparameter `name` as a float; `ValueError` where the server sent none."""
        if name not in self.hyper:
            raise ValueError(
                f"the server sent no {name!r}: declare it with option(..., sent=True) in the "
                "strategy, or return it from hyper() there"
            )
        return float(self.hyper[name])

    def uplink(self) -> Compressor:
        """Return the compressor of this worker's updates, bound to the model's layout."""
        own = self.compressor if self.hyper.get("client_compressors", True) else ""
        return _bound(own or str(self.hyper["compressor"]), self.layout.shapes)

    def draw(self) -> Draw:
        """Return the randomness of this worker's packet in this round."""
        order = self.instruction
        norm = float(self.hyper.get("norm", 0.0))
        return Draw(order.seed, order.round, order.rank, order.cohort, UPLINK, norm)

    def gradient(
        self, x: FloatVector, rng: np.random.Generator | None = None
    ) -> tuple[float, FloatVector]:
        """Return the mean loss and the gradient at `x`, or K local steps' pseudo-gradient.

        With ``local_steps`` K > 1 it is (x - x_K) / local_lr after K steps of SGD from x: the sum
        of the K gradients met on the way (FedPAQ, Reisizadeh et al. 2020).

        Raises
        ------
        ValueError
            The task gave a NaN or an infinity, or a vector of another length.
        """
        if rng is None and getattr(self.task, "draws", True):
            rng = self.rng()
        steps, local_lr = int(self.hyper.get("local_steps", 1)), self.hyper.get("local_lr", 0.0)
        if steps == 1:
            return self.one_gradient(x, rng)
        rate = float(local_lr) or self.number("lr")
        y, losses = vectors.copied(x), []
        for _ in range(steps):
            loss, gradient = self.one_gradient(y, rng)
            losses.append(loss)
            vectors.descend(y, rate, gradient)
        return float(np.mean(losses)), vectors.divide(x - y, rate)

    def full_gradient(
        self, x: FloatVector, drawn_in: int | None = None
    ) -> tuple[float, FloatVector]:
        """Return the loss and the gradient at `x` on all of this worker's data.

        Parameters
        ----------
        drawn_in : int, optional
            The round whose draws, such as dropout masks, it is taken with; by default this one.

        Raises
        ------
        ValueError
            As `gradient` does.
        """
        return self._checked(x, self.task.draw_all(self.rng(drawn_in)))

    def rng(self, server_round: int | None = None) -> np.random.Generator:
        """Return the generator of this worker's batches in a round (this one), at its start."""
        order = self.instruction
        number = order.round if server_round is None else server_round
        return np.random.default_rng([order.seed, self.client, number])

    def place_for(self, vector: FloatVector) -> FloatVector:
        """Return where what is made of `vector` may be put: in its place, if it is nobody else's.

        Only a gradient in the worker's own memory is that (`Task.gradient_into`), and once.
        """
        if vector is not self.fresh:
            room: FloatVector = room_like(vector)
            return room
        self.fresh = None
        return vector

    def one_gradient(
        self, x: FloatVector, rng: np.random.Generator | None
    ) -> tuple[float, FloatVector]:
        """Return the loss and the gradient at `x` on the next batch of `rng`; None: of all data."""
        return self._checked(x, None if rng is None else self.task.draw(rng))

    def _checked(self, x: FloatVector, batch: Batch) -> tuple[float, FloatVector]:
        into = getattr(self.task, "gradient_into", None)
        if into is not None:
            vector = self.fresh = room_like(x)
            loss = into(x, vector, batch)
        else:
            loss, gradient = self.task.gradient(x, batch)
            vector = np.asarray(gradient, dtype=x.dtype)
        if vector.shape != x.shape:
            raise ValueError(f"gradient has shape {vector.shape}, the model has {x.shape}")
        size = length(vector)
        self.steepest = max(self.steepest, size)
        if not np.isfinite(size):
            position = next(
                part.start + int(places[0])
                for part in vectors.blocks(len(vector))
                if (places := np.flatnonzero(~np.isfinite(placed(vector[part], None)))).size
            )
            raise ValueError(
                f"gradient of client {self.client} is {float(vector[position])} at position "
                f"{position} in round {self.instruction.round}: lower lr, or check this client's "
                "data"
            )
        return float(loss), vector


class Worker(ABC):
    """The client half of one algorithm; stateless itself, its memory is `Job.state`.

    Subclasses say which memory is kept around the compressor (`sender`), and what a worker does in
    a round, line by line as in the paper (`round`).
    """

    sender: ClassVar[type[Sender]]
    on_device: ClassVar[bool] = False  # whether its vectors may be tensors, see `Job.device`
    owing: ClassVar[bool] = False  # whether what its moments hold is sent later, if it was lost
    told: ClassVar[tuple[str, ...]] = ("loss",)  # which of its numbers go along as metrics

    @abstractmethod
    def round(self, job: Job) -> Outgoing:
        """Receive the model, compute, and return what is to be sent.

        Raises
        ------
        ResyncError
            The worker's memory does not go with what it was asked.
        ReplicaError
            It needs a model that it was not sent.
        """

    def answer(self, job: Job) -> Reply:
        """Take part in one round: settle, compute, compress, remember.

        The state is consistent at every moment, so it may be saved whatever this raises.
        """
        known = self.settle(job)
        if known is not None:
            return known
        reply = self._reply(job)
        if job.sender.remembers:
            remember(job.state, job.instruction, reply)
        return reply

    def _reply(self, job: Job) -> Reply:
        try:
            out = self.round(job)
        except ReplicaError as error:
            return Reply(job.client, job.instruction.version, status="snapshot", reason=str(error))
        except ResyncError as error:
            return Reply(job.client, job.instruction.version, status="resync", reason=str(error))
        if not self.__module__.startswith("flowerpress."):  # those are tested, and rounds are short
            check_outgoing(type(self), out, job.layout, job.instruction.stage)
        return self.send(out, job)

    def settle(self, job: Job) -> Reply | None:
        """Learn what became of the packet in flight; returns a reply where no more is to do."""
        order = job.instruction
        begin_session(job.state, order.session)
        self.bring(job)
        sender = job.sender = restore_sender(self.sender, job.state, job.hyper)
        owing = self.owing and isinstance(sender, self.sender)  # not where a run forgets it
        if job.device is not None and sender.shared and sender.pending and sender.memory is None:
            sender.memory = placed(zeros(job.layout.dim, job.layout.dtype), job.device)
        # What was damaged on the way is owed as if it was lost; nothing shows that it was absurd.
        refused = 0 < sender.pending == (order.absurd if owing else order.refused)
        whole = len(sender.packet) > job.layout.dim * job.layout.dtype.itemsize
        outcome = sender.settle(order.applied, order.version, order.absurd)
        reply = partial(Reply, job.client, order.version, base=sender.heard)
        if outcome in (Settlement.STALE, Settlement.REPEAT) and sender.remembers:
            return recall(job.state, order) or reply(status="stale", reason=outcome.value)
        keep_sender(sender, job.state)
        if order.stage == 1:
            forget_large(job.state)
        if outcome is Settlement.MISMATCH:
            reason = f"server applied version {order.applied}, settled here is {sender.settled}"
            resync = reply(status="resync", reason=reason)
            remember(job.state, order, resync)
            return resync
        if outcome is Settlement.DELIVERED and whole and order.stage == 1:
            forget_replies(job.state)  # as long as the model, and the server has it
        self.learn(job, outcome, refused=refused)
        return None

    def bring(self, job: Job) -> None:
        """Have the worker's memory where this round is computed: on the model's device, or here."""
        device = getattr(job.task, "vector_device", None) if self.on_device else None
        job.device = None if device is None else device()
        bring(job.state, job.device)

    def learn(self, job: Job, outcome: Settlement, *, refused: bool) -> None:
        """Do what goes with the packet in flight, now that its fate is known."""
        commit_staged(job.state, delivered=outcome is Settlement.DELIVERED)
        settle_moments(job.state, refused=refused)

    def receive(self, job: Job) -> FloatVector:
        """Return the model of this round, the caller's own; raises `ReplicaError`, see there."""
        x = follow_model(job.instruction, job.layout, job.state, job.device)
        if job.instruction.buffers:
            load_buffers(job)
        if hasattr(job.task, "gradient_into"):  # else the task may have kept the model
            job.room = x
        return x

    def held_model(self, job: Job) -> FloatVector:
        """Return the model to evaluate: the server's; raises `ReplicaError`, see there."""
        self.bring(job)
        device = job.device if job.hyper.get("downlink") else None  # where a replica is kept
        x: FloatVector = placed(follow_model(job.instruction, job.layout, job.state, device), None)
        return x

    def send(self, out: Outgoing, job: Job) -> Reply:
        """Compress what was computed, and remember it."""
        state, packets = job.state, []
        if out.silent:
            state.vectors.update(out.moments)
        else:
            compressor = make_compressor("identity") if out.dense else job.uplink()
            if out.times > 1:
                compressor = repeated(compressor, out.times, len(out.vector))
            draw, version = out.draw or job.draw(), job.instruction.version
            sender, nbytes = job.sender, out.vector.nbytes
            absent = isinstance(sender, EF21Sender) and sender.memory is None
            if absent and job.device is None and in_file(nbytes):
                sender.memory = zeros(out.vector.size, out.vector.dtype)  # else it is in memory
            room = job.room
            if room is not None and not self._is_free(room, out, state):
                room = None
            packets = [job.sender.send(out.vector, compressor, version, draw, room).data]
            if out.moments or out.counts:
                keep_moments(state, out.moments, out.counts)
        state.vectors.update(out.kept)
        for name, vector in out.staged.items():
            state.vectors[name + STAGED] = vector
        state.numbers |= {"loss": out.loss, **out.numbers}
        keep_sender(job.sender, state)
        return reply_with(job, packets, self.told)

    @staticmethod
    def _is_free(room: FloatVector, out: Outgoing, state: WorkerState) -> bool:
        """Whether nothing that was computed, or is remembered, lies in some memory."""
        if (room.shape, room.dtype) != (out.vector.shape, out.vector.dtype):
            return False
        new = (out.vector, *out.kept.values(), *out.moments.values(), *out.staged.values())
        return not any(vectors.share_memory(room, each) for each in (*new, *state.vectors.values()))


@lru_cache(maxsize=64)
def _bound(spec: str, shapes: tuple[tuple[int, ...], ...]) -> Compressor:
    return make_compressor(spec).bind_shapes(shapes)


def load_buffers(job: Job) -> None:
    """Give the task the buffers that came with the instruction."""
    if job.instruction.buffers:
        job.task.load_buffers(unpack_buffers(job.instruction.buffers, job.layout))


def reply_with(
    job: Job, packets: list[bytes], told: Sequence[str], buffers: bytes | None = None
) -> Reply:
    """Return the reply that carries an update; without packets, that says that there is none.

    Parameters
    ----------
    told : sequence of str
        Which of the state's numbers go with it as metrics.
    buffers : bytes, optional
        By default the task's, if the model's came with the question.
    """
    numbers, sender = job.state.numbers, job.sender
    if buffers is None and job.instruction.buffers:
        buffers = pack_buffers(job.task.buffers(), job.layout)
    metrics: dict[str, Metric] = {}
    for name in told:
        if name in numbers:
            metrics[name] = float(numbers[name])
    metrics["num-examples"] = job.task.num_examples
    return Reply(
        client=job.client,
        version=job.instruction.version,
        base=sender.settled,
        status="update" if packets else "silent",
        held=int(numbers.get("held", -1)),
        scale=sender.scale,
        packets=packets,
        buffers=buffers or b"",
        gradient=float(f"{job.steepest:.4g}"),
        metrics=metrics,
    )
