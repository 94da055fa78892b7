"""A worker's memory between questions, as it stands in its state."""

from __future__ import annotations

from flowerpress.clients.stores import WorkerState
from flowerpress.compressors.feedback import Sender

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
