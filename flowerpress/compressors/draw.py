"""The randomness of one packet: a place in a counter-based stream, never a generator's state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flowerpress.compressors.kernels.philox import philox4x32

# In place of the rank in the key of a stream that the whole cohort shares.
_EVERYONE = 0xFFFFFFFF
_BITS = {"seed": 64, "round": 32, "rank": 32, "cohort": 32, "stream": 32}


@dataclass(frozen=True, slots=True)
class Draw:
    """Names the random numbers that one packet uses.

    Two packets with equal draws use equal random numbers, on every machine. Nothing is consumed: a
    draw may be used again and gives the same bits.

    Parameters
    ----------
    seed : int, default 0
        The run's seed, ``0 <= seed < 2**64``.
    round : int, default 0
        The round, ``0 <= round < 2**32``.
    rank : int, default 0
        The sender's place in the cohort, ``0 <= rank < cohort``.
    cohort : int, default 1
        How many senders take part, ``1 <= cohort < 2**32``.
    stream : int, default 0
        Which of a sender's packets in the round this is, ``0 <= stream < 2**32``.
    norm : float, default 0.0
        About the norm of the cohort's vectors in this round, for ``cq:range=shared``; 0 where it is
        not known. No random number depends on it.

    Raises
    ------
    ValueError
        If a field is not an integer in its range, or `norm` no number that is.

    Notes
    -----
    Keys come from Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
    SC 2011). They are not cryptographic and must not be used for privacy noise.
    """

    seed: int = 0
    round: int = 0
    rank: int = 0
    cohort: int = 1
    stream: int = 0
    norm: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.norm < math.inf:
            raise ValueError(f"Draw: norm must be a number >= 0, got {self.norm!r}")
        for name, bits in _BITS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
                raise ValueError(
                    f"Draw: {name} must be an integer in [0, 2**{bits}), got {value!r}"
                )
        if not self.rank < self.cohort:
            raise ValueError(f"Draw: rank {self.rank} is not below the cohort's size {self.cohort}")

    def key(self, purpose: int) -> tuple[int, int]:
        """Return the sender's own key for `purpose` (a small number fixed by the codec).

        Returns
        -------
        tuple of int
            Two 32-bit words.

        Examples
        --------
        >>> Draw(seed=1).key(0) == Draw(seed=1).key(0)
        True
        >>> Draw(seed=1).key(0) == Draw(seed=1, round=1).key(0)
        False
        """
        return self._key(self.rank, purpose)

    def shared_key(self, purpose: int) -> tuple[int, int]:
        """Return a key that every rank of the cohort has in common."""
        return self._key(_EVERYONE, purpose)

    def _key(self, who: int, purpose: int) -> tuple[int, int]:
        seed = (self.seed & 0xFFFFFFFF, self.seed >> 32)
        words = philox4x32((self.round, who, self.stream, purpose), seed)
        return words[0], words[1]
