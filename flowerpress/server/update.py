"""One worker's update, checked as far as every algorithm checks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import Opened, add_to
from flowerpress.server.client import Client

FloatVector = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Update:
    """What a worker sent in a round.

    Attributes
    ----------
    client : Client
        Who sent it.
    mass : float
        What the worker counts for, before it is divided by the total.
    scale : float
        The update stands for ``scale * decompress(packet)``.
    packets : list of Opened
        Of the right number, lengths and dtype, each checked and decoded.
    held : int
        The model version, or number of what a relay sent, that the worker holds.
    """

    client: Client
    mass: float
    scale: float
    packets: list[Opened]
    held: int = -1

    def add_to(self, out: FloatVector) -> None:
        """Do ``out += mass * scale * decompress(packet)`` with the first packet.

        Raises
        ------
        PacketError
            What it holds overflows `out`, which is unchanged.
        """
        add_to(self.packets[0], out, self.mass * self.scale)
