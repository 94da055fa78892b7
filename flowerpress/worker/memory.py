"""A worker's memory between questions, as it stands in its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowerpress.compressors.feedback import PlainSender, Sender
from flowerpress.compressors.vectors import placed
from flowerpress.protocol import Hyper, Instruction, Reply
from flowerpress.protocol.rules import NO_FEEDBACK
from flowerpress.worker.answered import Answered, read
from flowerpress.worker.stores import BEFORE, REPLY, FloatVector, WorkerState

_MEMORY, _MEMORY_BEFORE = "memory", "memory, before"
_LARGE = 2**26  # bytes
_NONE = np.empty(0)
STAGED = "+"  # ends the name of a vector that waits for the packet in flight


def begin_session(state: WorkerState, session: int) -> None:
    """Empty a state that belongs to an earlier run of a strategy in the same Flower run."""
    if state.numbers.get("session") != session:
        state.vectors.clear()
        state.replies.clear()
        state.aside.clear()
        state.numbers.clear()
        state.numbers["session"] = session
        state.packet = b""


def commit_staged(state: WorkerState, *, delivered: bool) -> None:
    """Put the vectors that went with the packet in flight in force, or drop them."""
    for key in tuple(state.vectors):
        if key.endswith(STAGED):
            vector = state.vectors.pop(key)
            if delivered:
                state.vectors[key.removesuffix(STAGED)] = vector


def keep_moments(
    state: WorkerState, moments: Mapping[str, FloatVector], counts: Mapping[str, float]
) -> None:
    """Put new moments in force, beside what they were before the packet in flight.

    They hold the gradient that the packet is made of. A lost packet changes nothing about that; if
    the server refuses it, that gradient was absurd, and must leave them: see `settle_moments`.
    """
    for name, vector in moments.items():
        state.vectors[name + BEFORE] = state.vectors.get(name, _NONE)
        state.vectors[name] = vector
    for name, number in counts.items():
        state.numbers[name + BEFORE] = state.numbers.get(name, 0)
        state.numbers[name] = number


def settle_moments(state: WorkerState, *, refused: bool) -> None:
    """Forget what the moments were before the packet in flight, or go back to it.

    Examples
    --------
    >>> state = WorkerState({"m": np.array([1.0])})
    >>> keep_moments(state, {"m": np.array([1e30]), "v": np.array([1e60])}, {})
    >>> settle_moments(state, refused=True)
    >>> state.vectors
    {'m': array([1.])}
    """
    vectors, numbers = state.vectors, state.numbers
    for key in tuple(vectors):
        if not key.endswith(BEFORE):
            continue
        name, vector = key.removesuffix(BEFORE), vectors.pop(key)
        if refused and len(vector):
            vectors[name] = vector
        elif refused:
            del vectors[name]
    for key, aside in state.aside.items():
        if refused:
            vectors[key.removesuffix(BEFORE)] = aside.read()
    state.aside.clear()
    for key in tuple(numbers):
        if key.endswith(BEFORE):
            number = numbers.pop(key)
            if refused:
                numbers[key.removesuffix(BEFORE)] = number


def bring(state: WorkerState, device: Any) -> None:
    """Have the state's vectors of floats where they are worked on: a device, or None: the host."""
    if device is not None:
        state.vectors |= {name: aside.read() for name, aside in state.aside.items()}
        state.aside.clear()
    for name, vector in state.vectors.items():
        away = not isinstance(vector, np.ndarray)
        if away or (device is not None and vector.dtype.kind == "f"):
            state.vectors[name] = placed(vector, device)


def restore_sender(kind: type[Sender], state: WorkerState, hyper: Hyper) -> Sender:
    """Return the sender whose memory is in `state`; one without any where a run switches it off."""
    numbers = state.numbers
    if kind.optional and hyper.get("feedback") == NO_FEEDBACK:
        kind = OnceSender  # what is dropped or lost is gone
    return kind(
        memory=state.vectors.get(_MEMORY),
        settled=int(numbers.get("settled", 0)),
        pending=int(numbers.get("pending", 0)),
        heard=int(numbers.get("heard", 0)),
        packet=state.packet,
        scale=float(numbers.get("scale", 1.0)),
        before=state.vectors.get(_MEMORY_BEFORE),
    )


def keep_sender(sender: Sender, state: WorkerState) -> None:
    """Put `sender`'s memory into `state`."""
    for name, vector in ((_MEMORY, sender.memory), (_MEMORY_BEFORE, sender.before)):
        state.vectors.pop(name, None)
        if vector is not None:
            state.vectors[name] = vector
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
        forget_replies(state)
    state.vectors.pop(f"{REPLY}{order.stage}", None)
    state.replies[order.stage] = Answered(order.question, reply)


def recall(state: WorkerState, order: Instruction) -> Reply | None:
    """Return the reply given to this very question before, if it is still known."""
    kept = state.replies.get(order.stage)
    if kept is not None:
        return kept.reply if kept.answers(order) else None
    vector = state.vectors.get(f"{REPLY}{order.stage}")
    return None if vector is None else read(vector, order)


def forget_replies(state: WorkerState) -> None:
    """Forget the replies of a round."""
    state.replies.clear()
    for stage in (1, 2):
        state.vectors.pop(f"{REPLY}{stage}", None)


def forget_large(state: WorkerState) -> None:
    """Drop replies that are as long as a large model, now that their round is over.

    They would be there beside all that the next round computes. A server that was set back by more
    than a round, and asks for one again, then hears that the question is stale, and asks anew.
    """
    for stage in (1, 2):
        kept = state.replies.get(stage)
        if kept is not None and kept.reply.payload >= _LARGE:
            del state.replies[stage]
        vector = state.vectors.get(f"{REPLY}{stage}")
        if vector is not None and vector.nbytes >= _LARGE:
            del state.vectors[f"{REPLY}{stage}"]
