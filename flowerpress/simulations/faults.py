"""Seeded faults for the in-process engine: lost messages, and clients killed between rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Faults:
    """What goes wrong, the same in every run with the same seed.

    Parameters
    ----------
    down, up : float
        Probability in [0, 1] that a message to or from a client is lost.
    kill : mapping of int to sequence of int
        Clients (partition ids) to kill after their n-th message: ``{n: [client, ...]}``. A killed
        client loses its process, and restarts with what is on its disk.
    seed : int

    Raises
    ------
    ValueError
        A probability is not in [0, 1].
    """

    down: float = 0.0
    up: float = 0.0
    kill: Mapping[int, Sequence[int]] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("down", "up"):
            if not 0.0 <= (value := getattr(self, name)) <= 1.0:
                raise ValueError(f"{name} is {value}: expected a probability in [0, 1]")

    def loses(self, direction: str, client: int, count: int) -> bool:
        """Whether the client's `count`-th message in `direction` ("down" or "up") is lost."""
        chance = self.down if direction == "down" else self.up
        if not chance:
            return False
        stream = [self.seed, client, count, direction == "up"]
        return float(np.random.default_rng(stream).random()) < chance

    def kills(self, client: int, count: int) -> bool:
        """Whether the client dies after its `count`-th message."""
        return client in self.kill.get(count, ())
