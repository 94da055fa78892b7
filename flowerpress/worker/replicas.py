"""The model a worker works on: as it came, or a replica that follows the server's deltas."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.vectors import copied, placed
from flowerpress.protocol import (
    Instruction,
    Layout,
    ModelPart,
    Replica,
    ReplicaError,
    make_rule,
)
from flowerpress.protocol.rooms import room_like
from flowerpress.worker.stores import WorkerState

FloatVector = npt.NDArray[np.floating[Any]]
_PREFIX = "replica."
DELTA, AWAITED = "delta", "awaited"


def follow_model(
    order: Instruction, layout: Layout, state: WorkerState, device: Any = None
) -> FloatVector:
    """Return the model of `order`; where the downlink is compressed, keep it in `state`.

    A worker that must see one delta as it is says so by the number "awaited" of its state: the
    version that the delta starts from. Its bytes are then put beside the vectors as "delta", unless
    the model comes whole.

    Parameters
    ----------
    device : torch.device, optional
        Where the model is worked on, and the replica kept, as a tensor; the state's vectors must be
        there. Default: on the host.

    Returns
    -------
    vector, shape (dim,)
        The caller's own: it may be written to.

    Raises
    ------
    ReplicaError
        The deltas do not start at the version held: the server must send the model whole.
    PacketError
        A packet is damaged; the worker then holds no model.
    """
    downlink = str(order.hyper.get("downlink", ""))
    rule = make_rule(str(order.hyper["rule"]), order.hyper)
    if not downlink:
        replica = Replica(rule)
        replica.follow(order.model, layout)
        for name, vector in replica.kept.items():
            state.vectors[_PREFIX + name] = vector
        whole: FloatVector = placed(replica.model, device)
        return whole
    _, scale = rule.bind(downlink, layout.shapes)
    vectors, numbers = state.vectors, state.numbers
    kept = {name: vectors[_PREFIX + name] for name in rule.kept if _PREFIX + name in vectors}
    x = vectors.get(_PREFIX + "x")
    mark = int(numbers.get("mark", 0))
    replica = Replica(rule, int(numbers.get("held", -1)), x, kept, scale, mark)
    # Deltas are applied in place: until all are, nothing is held that could be built upon.
    numbers["held"] = -1
    try:
        replica.follow(order.model, layout)
    except ReplicaError:  # found before anything is changed
        numbers["held"] = replica.version
        raise
    _keep_awaited(order.model, state)
    for name in rule.kept:
        vectors.pop(_PREFIX + name, None)
    x = vectors[_PREFIX + "x"] = placed(replica.model, device)
    kept = {_PREFIX + name: placed(vector, device) for name, vector in replica.kept.items()}
    vectors.update(kept)
    numbers |= {"held": replica.version, "mark": replica.mark}
    own: FloatVector = copied(x, room_like(x))
    return own


def _keep_awaited(part: ModelPart, state: WorkerState) -> None:
    awaited = int(state.numbers.get(AWAITED, part.version))
    if awaited < part.version:
        del state.numbers[AWAITED]
        if 0 <= part.base <= awaited:
            state.vectors[DELTA] = np.frombuffer(part.packets[awaited - part.base], np.uint8)
