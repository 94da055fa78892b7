"""A worker's memory between questions, as it stands in its state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowerpress.clients.stores import WorkerState
from flowerpress.compressors.feedback import PlainSender, Sender
from flowerpress.protocol import Instruction, Reply

_REPLY = "reply."
STAGED = "+"  # ends the name of a vector that waits for the packet in flight


def begin_session(state: WorkerState, session: int) -> None:
    """Empty a state that belongs to an earlier run of a strategy in the same Flower run."""
    if state.numbers.get("session") != session:
        state.vectors.clear()
        state.numbers.clear()
        state.numbers["session"] = session
        state.packet = b""


def commit_staged(state: WorkerState, *, delivered: bool) -> None:
    """Put the vectors that went with the packet in flight in force, or drop them."""
    for key in [name for name in state.vectors if name.endswith(STAGED)]:
        vector = state.vectors.pop(key)
        if delivered:
            state.vectors[key.removesuffix(STAGED)] = vector


def restore_sender(kind: type[Sender], state: WorkerState) -> Sender:
    """Return the sender whose memory is in `state`."""
    numbers = state.numbers
    return kind(
        memory=state.vectors.get("memory"),
        settled=int(numbers.get("settled", 0)),
        pending=int(numbers.get("pending", 0)),
        heard=int(numbers.get("heard", 0)),
        packet=state.packet,
        scale=float(numbers.get("scale", 1.0)),
    )


def keep_sender(sender: Sender, state: WorkerState) -> None:
    """Put `sender`'s memory into `state`."""
    state.vectors.pop("memory", None)
    if sender.memory is not None:
        state.vectors["memory"] = sender.memory
    state.numbers |= {
        "settled": sender.settled,
        "pending": sender.pending,
        "heard": sender.heard,
        "scale": sender.scale,
    }
    state.packet = sender.packet


@dataclass
class OnceSender(PlainSender):
    """Packets go as they are, but each question is answered once: an answer changes the worker."""

    remembers = True


def remember(state: WorkerState, order: Instruction, reply: Reply) -> None:
    """Keep the reply to a question, so that this question asked again gets the same one.

    A server that was killed in the middle of a round asks the round's questions again; the worker
    has long gone on. So the replies of a round's exchanges are kept until the next round's.
    """
    if order.stage == 1:
        for stage in (1, 2):
            state.vectors.pop(f"{_REPLY}{stage}", None)
    data = order.digest.to_bytes(4, "little") + reply.to_bytes()
    state.vectors[f"{_REPLY}{order.stage}"] = np.frombuffer(data, np.uint8)


def recall(state: WorkerState, order: Instruction) -> Reply | None:
    """Return the reply given to this very question before, if it is still known."""
    kept = state.vectors.get(f"{_REPLY}{order.stage}")
    if kept is None:
        return None
    data = kept.tobytes()
    known = int.from_bytes(data[:4], "little") == order.digest
    return Reply.from_bytes(data[4:]) if known else None
