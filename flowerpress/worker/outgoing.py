"""What a worker has computed in a round, before it is compressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import Draw

FloatVector = npt.NDArray[np.floating[Any]]


@dataclass
class Outgoing:
    """What a worker has computed in a round.

    What becomes of its new vectors once the server was heard of:

    ========= ================= ========== ===================
    vectors   applied           lost       refused
    ========= ================= ========== ===================
    `kept`    stay              stay       stay
    `moments` stay              stay       as they were before
    `staged`  come into force   dropped    dropped
    ========= ================= ========== ===================

    Attributes
    ----------
    loss : float
        Mean loss of what was computed.
    vector : vector, shape (dim,)
        What is to be sent, without the memory around the compressor.
    kept : dict
        New vectors that hold no gradient; in force once the packet is made.
    moments : dict
        New averages or sums of gradients; in force once the packet is made, unless the server
        refuses it. While it is in flight the old ones are kept too.
    staged : dict
        New vectors that are in force once the server says that it applied the packet.
    numbers, counts : mapping
        New numbers, in force with `kept`; and with `moments` (0 before there was one).
    dense : bool
        Whether to send it whole, whatever the compressor.
    silent : bool
        Whether to send nothing, where the server lets workers be silent; `moments` then stay.
    times : int
        How many packets of the compressor to send in one.
    draw : Draw, optional
        The packet's randomness; by default that of this worker and round.
    """

    loss: float
    vector: FloatVector
    kept: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    moments: dict[str, FloatVector] = field(default_factory=dict)
    staged: dict[str, FloatVector] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)
    dense: bool = False
    silent: bool = False
    times: int = 1
    draw: Draw | None = None
